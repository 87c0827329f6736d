"""Valid or nearly valid JSON that some reader of the segments refuses, and what becomes of it.

| in an event | measured with jq 1.6, DuckDB 2.0, Polars 2.1, ClickHouse 26.9 | here |
|--|--|--|
| a name twice in one object | DuckDB, Polars and ClickHouse refuse the whole file | the last one stays |
| a number beyond a double (`1e999`) | Polars refuses the whole file | 400 |
| an integer beyond 128 bits | Polars refuses the whole file | 400 |
| more than 127 levels | DuckDB and jq refuse the whole file | 400 from 101 levels on |
| a lone surrogate (`\\ud800`) | all refuse | U+FFFD in its place |
| `23:59:60`, year 0000 | all read it | kept |

JavaScript clients make lone surrogates of cut-off emoji: one must not cost the batch.
"""

from __future__ import annotations

import json
import math
import re
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw

from ingestd.errors import Rejection, invalid_event

Timestamp = Annotated[datetime, Meta(tz=True)]

DEPTH_MAX: Final = 100
# Too few for DEPTH_MAX levels of objects, which have 5 bytes at least: `{"":}`.
_SHALLOW_BYTES_MAX: Final = 5 * DEPTH_MAX

NO_TIMESTAMP: Final = "expected an RFC 3339 date-time with an offset, as 2025-10-29T22:00:00.778Z"

_encoder = msgspec.json.Encoder()
_decode_any = msgspec.json.Decoder().decode
_decode_any_lines = msgspec.json.Decoder().decode_lines

# A pair is matched whole and kept; an escaped backslash is consumed so that `\\ud800` is text.
_SURROGATES: Final = re.compile(
    rb"\\\\"
    rb"|\\u[dD][89aAbB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)

# Decoding has refused floats out of range; an integer out of range has 39 digits or more.
_INTEGER_MAX: Final = 2**127 - 1
_DIGITS_TO_ZEROS: Final = bytes(0x30 if 0x30 <= c <= 0x39 else 0x20 for c in range(256))
_LONG_NUMBER: Final = b"0" * 39
# Of 39 bytes in a row every fourth is looked at first, which are nine at least. No UUID has so many
# digits there: wherever one begins, one of them is a hyphen.
_STEP: Final = 4
_LONG_NUMBER_IN_STEPS: Final = b"0" * (39 // _STEP)

_ESCAPED_QUOTE_COLON: Final = re.compile(rb"\\u00(?:22|3[aA])")

_RFC3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:[Zz]|([+-])(\d\d):?(\d\d))", re.ASCII
)


def is_plain(body: bytes | bytearray) -> bool:
    """True if it is proven that no reader can take offence at `body`; False if it must be looked at.

    Raises what msgspec raises, but for numbers out of range.
    """
    try:
        value = _decode_any(body)
    except msgspec.ValidationError:
        return False
    return not _is_deep(body, value) and _is_plain(body, _encoder.encode(value))


def plain_values(bodies: list[bytes], text: bytes) -> list[Any] | None:
    """What several objects hold, if all of them are plain; `text` has each on a line of its own.

    Raises what msgspec raises.
    """
    values = _decode_any_lines(text)
    # A CR is a line break too, and may stand between a name and its colon, where it would hide the name.
    if len(values) != len(bodies) or b"\r" in text:
        return None
    if (b"[" in text or max(map(len, bodies)) > _SHALLOW_BYTES_MAX) and any(map(_is_deep, bodies, values)):
        return None
    encoded = _encoder.encode_lines(values)
    # What is encoded has each value on a line of its own. Else no value may end in the middle of a line
    # or go on in the next one: `}` LF `{` ends a value, and there are as many values as lines.
    are_lines = encoded == text or _are_lines(bodies, text)
    return values if are_lines and _is_plain(text, encoded) else None


def _are_lines(bodies: list[bytes], text: bytes) -> bool:
    """True if each body begins with `{`, ends with `}` and has no line break."""
    if text.count(b"\n") != len(bodies):
        return False
    return all(body.startswith(b"{") and body.endswith(b"}") for body in bodies)


def _is_plain(text: bytes | bytearray, encoded: bytes) -> bool:
    """True if no name stands twice and no number is out of range; `encoded` is `text` decoded and encoded.

    Decoding drops all but the last of a repeated name, so if encoding gives back the same bytes, or
    at least as many `":`, there was none. Inside strings `":` is spelled `\\":` on both sides, or the
    text is not plain.
    """
    if has_long_number(text):
        return False
    if encoded == text:
        return True
    if b" :" in text or (b"\t" in text and b"\t:" in text):
        return False
    if b"\\" in text and _ESCAPED_QUOTE_COLON.search(text):
        return False
    return text.count(b'":') == encoded.count(b'":')


def _is_deep(body: bytes | bytearray, value: Any) -> bool:
    """True if `value`, decoded from `body`, has more than DEPTH_MAX levels.

    Most bodies are too small, or have too few brackets.
    """
    if len(body) <= _SHALLOW_BYTES_MAX and b"[" not in body:
        return False
    return body.count(b"{") + body.count(b"[") > DEPTH_MAX and _depth(value) > DEPTH_MAX


def may_be_deep(array: bytes | bytearray, events: list[bytes]) -> bool:
    """True unless it is plain to see that no event has too many levels; they stand without their braces."""
    if array.find(b"[", 1) < 0 and max(map(len, events)) <= _SHALLOW_BYTES_MAX - 10:
        return False
    return any(event.count(b"{") + event.count(b"[") > DEPTH_MAX - 2 for event in events)


def has_long_number(body: bytes | bytearray) -> bool:
    """True if there may be an integer beyond 128 bits."""
    steps = body[::_STEP].translate(_DIGITS_TO_ZEROS)
    return _LONG_NUMBER_IN_STEPS in steps and _LONG_NUMBER in body.translate(_DIGITS_TO_ZEROS)


def resolved(body: bytes | bytearray) -> bytes | bytearray:
    """`body` with every name once in its object (the last one stays), else the very same bytes.

    Numbers keep their spelling. Raises Rejection (400) for what cannot be kept readable.
    """
    repeated = False

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        members = dict(pairs)
        repeated |= len(members) != len(pairs)
        return members

    value = json.loads(body.decode(), object_pairs_hook=once, parse_float=_float, parse_int=_integer)
    if _depth(value) > DEPTH_MAX:
        raise too_deep()
    return _encoder.encode(value) if repeated else body


def _float(text: str) -> Raw:
    """The number as it is spelled. Raises Rejection where a double cannot hold it."""
    if math.isinf(float(text)):
        raise _out_of_range(text, "1.7976931348623157e308")
    return Raw(text.encode())


def _integer(text: str) -> Raw:
    """The number as it is spelled. Raises Rejection where 128 bits cannot hold it."""
    if len(text) > 38 and not (len(text) <= 41 and abs(int(text)) <= _INTEGER_MAX):
        raise _out_of_range(text, str(_INTEGER_MAX))
    return Raw(text.encode())


def _out_of_range(text: str, limit: str) -> Rejection:
    shown = text if len(text) <= 20 else f"{text[:17]}..."
    return invalid_event("number_out_of_range", f"the number {shown} is beyond {limit}", quoted=shown)


def _depth(value: Any) -> int:
    """Levels of objects and arrays, counted without recursion; stops once there are too many."""
    depth = 0
    level = [value] if isinstance(value, dict | list) else []
    while level and depth <= DEPTH_MAX:
        depth += 1
        level = [
            item
            for each in level
            for item in (each.values() if type(each) is dict else each)
            if type(item) is dict or type(item) is list
        ]
    return depth


def too_deep() -> Rejection:
    """400 for nesting beyond DEPTH_MAX."""
    return invalid_event("too_deep", f"nested deeper than {DEPTH_MAX} levels")


def without_lone_surrogates(body: bytes | bytearray) -> bytes | bytearray:
    """`body` with U+FFFD for each unpaired surrogate escape."""
    if b"\\u" not in body:
        return body
    return _SURROGATES.sub(lambda m: rb"\ufffd" if len(m[0]) == 6 else m[0], body)


def is_rfc3339(text: str) -> bool:
    """RFC 3339 §5.6 with what msgspec leaves out: leap seconds (23:59:60 UTC) and the year 0000."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        return False
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    offset_h, offset_m = int(match[8] or 0), int(match[9] or 0)
    try:
        # 2000 stands in for 0000: both are leap years (RFC 3339 appendix C), datetime begins with 1.
        local = datetime(year or 2000, month, day, hour, minute, min(second, 59))
    except ValueError:
        return False
    if second > 60 or offset_h > 23 or offset_m > 59:
        return False
    if second == 60:
        offset = timedelta(hours=offset_h, minutes=offset_m)
        # Only the time of day is asked for, so a year at the edge of datetime's range must not matter.
        utc = local.replace(year=2000) + (offset if match[7] == "-" else -offset)
        return (utc.hour, utc.minute) == (23, 59)
    return True
