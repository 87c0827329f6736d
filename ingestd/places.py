"""Where in a body something is wrong, in the words of errors: `$[3].timestamp: …`, `line 5: $.event: …`."""

from __future__ import annotations

import re
from typing import Final

from ingestd.errors import Rejection

_WHITE_SPACE: Final = b" \t\r"
_EVENT: Final = re.compile(r"\$\[(\d+)\]")


def first(message: str) -> str:
    """msgspec's 'Expected … - at `$[3].event`' as '$[3].event: expected …'."""
    what, _, place = message.rpartition(" - at ")
    if not what:
        return f"$: {message[:1].lower()}{message[1:]}"
    what = what.replace("`datetime`", "an RFC 3339 date-time").replace(
        "RFC3339 encoded datetime", "RFC 3339 date-time"
    )
    return f"{place.strip('`')}: {what[:1].lower()}{what[1:]}"


def moved(rejection: Rejection, by: int) -> Rejection:
    """The same about an event that stands so many further on in the whole array."""
    detail = rejection.detail or ""
    match = _EVENT.match(detail)
    if match is None:
        return rejection
    return _again(rejection, f"$[{int(match[1]) + by}]{detail[match.end() :]}")


def on_its_line(rejection: Rejection, body: bytes | bytearray) -> Rejection:
    """What is wrong with an event of an array, at its line in the body that the array was made of."""
    detail = rejection.detail or ""
    match = _EVENT.match(detail)
    if match is None:
        return rejection
    number = [number for number, _ in lines(body)][int(match[1])]
    return on_line(number, rejection, f"${detail[match.end() :]}")


def on_line(number: int, rejection: Rejection, detail: str) -> Rejection:
    """The same, with the place counted from the start of this line."""
    return _again(rejection, f"line {number}: {detail}")


def lines(body: bytes | bytearray) -> list[tuple[int, bytes]]:
    """The lines that are not empty, without white space around them, and their numbers from 1."""
    texts = [text.strip(_WHITE_SPACE) for text in bytes(body).split(b"\n")]
    return [(number, text) for number, text in enumerate(texts, 1) if text]


def _again(rejection: Rejection, detail: str) -> Rejection:
    return Rejection(rejection.status, rejection.code, rejection.error, detail, quoted=rejection.quoted)
