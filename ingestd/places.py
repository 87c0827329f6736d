"""Where in a body it goes wrong: what msgspec raises, as a Rejection that names the place.

That is an event (`$[3].timestamp: …`) or, in NDJSON, a line (`line 5: $.timestamp: …`).
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from ingestd import oddities
from ingestd.errors import Rejection, invalid_event

_WHITE_SPACE: Final = b" \t\r"
_EVENT: Final = re.compile(r"\$\[(\d+)\]")
_COUNTED: Final = re.compile(r"(\$\[|line )(\d+)")


def invalid(error: Exception) -> Rejection:
    """The Rejection (400) for an error of msgspec, in its three families."""
    if isinstance(error, UnicodeDecodeError):
        return invalid_event("invalid_utf8", f"byte {error.start}: not valid UTF-8")
    if isinstance(error, msgspec.ValidationError):
        return invalid_event("invalid_event", _first(str(error)))
    if isinstance(error, RecursionError):
        return oddities.too_deep()
    return invalid_event("invalid_json", str(error))


def moved(rejection: Rejection, by: int) -> Rejection:
    """The same about an event, or a line, that stands so many further on in the whole."""
    match = _COUNTED.match(rejection.detail or "")
    if match is None or rejection.detail is None:
        return rejection
    return _again(rejection, f"{match[1]}{int(match[2]) + by}{rejection.detail[match.end() :]}")


def in_member(rejection: Rejection, name: str | None) -> Rejection:
    """The same about an event of an array for one who has sent the array as this member, or one event."""
    detail = rejection.detail or ""
    match = _EVENT.match(detail)
    if match is None:
        return rejection
    return _again(
        rejection, f"$.{name}[{match[1]}]{detail[match.end() :]}" if name else f"${detail[match.end() :]}"
    )


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


def _first(message: str) -> str:
    """msgspec's 'Expected … - at `$[3].event`' as '$[3].event: expected …'."""
    what, _, place = message.rpartition(" - at ")
    if not what:
        return f"$: {message[:1].lower()}{message[1:]}"
    what = what.replace("`datetime`", "an RFC 3339 date-time").replace(
        "RFC3339 encoded datetime", "RFC 3339 date-time"
    )
    return f"{place.strip('`')}: {what[:1].lower()}{what[1:]}"
