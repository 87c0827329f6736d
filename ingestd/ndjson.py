"""Bodies of one event a line (NDJSON, JSON Lines), which log shippers send, as the events of an array.

A line holds one JSON value, whole. Two on a line, or one on two, are refused: nobody who means NDJSON
sends them, and the numbers of lines in errors would lie. Empty lines are passed over.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

from ingestd import oddities, places
from ingestd.errors import Rejection, invalid_event

CONTENT_TYPES: Final = frozenset(
    (
        b"application/x-ndjson",
        b"application/ndjson",
        b"application/x-jsonlines",
        b"application/jsonlines",
        b"application/x-jsonl",
        b"application/jsonl",
        b"application/json-lines",
        b"application/stream+json",
    )
)
"""None of them is registered; each is sent by somebody."""

_values = msgspec.json.Decoder(Raw).decode_lines
_value = msgspec.json.Decoder(Raw).decode


def as_array(body: bytes | bytearray) -> bytes:
    """The values of the lines, not yet validated, as an array. Raises Rejection (400)."""
    try:
        body.decode()
        try:
            values = _values(body)
        except msgspec.DecodeError:
            body = oddities.without_lone_surrogates(body)
            values = _values(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _bad_line(body) from None
    if not _is_one_a_line(values, body):
        raise _bad_line(body)
    if not values:
        raise invalid_event("invalid_event", "the body has no line with an event")
    return b"[%b]" % b",".join(values)


def _is_one_a_line(values: list[Raw], body: bytes | bytearray) -> bool:
    whole = b"\n".join(values)
    if whole.count(b"\n") != len(values) - 1:
        return not values
    if whole == body.replace(b"\r\n", b"\n").rstrip(b"\n"):
        return True
    # There are white space or empty lines. A value begins where its line does; so if all are as long,
    # each is its line.
    return [len(memoryview(value)) for value in values] == [len(text) for _, text in places.lines(body)]


def _bad_line(body: bytes | bytearray) -> Rejection:
    """The Rejection of the first line that is not one JSON value."""
    for number, text in places.lines(body):
        try:
            text.decode()
            _value(oddities.without_lone_surrogates(text))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            rejection = places.invalid(e)
        else:
            continue
        return places.on_line(number, rejection, rejection.detail or "")
    raise AssertionError("each line is good, and all together are not")
