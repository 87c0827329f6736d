"""The shape of a body: the names that its events have in common, in the sender's own order.

A sender's events are alike. Decoded as Structs that are made for their shape, they are validated and
shown to be plain in one go: what encodes back to the very same bytes has no name twice, no name that
the shape lacks and no white space. Then each line is spliced of the client's own bytes. Looked at
strictly, values are decoded as well, and the same is shown of the objects within them.

Measured, CPU per event of 400 bytes: 0.83 µs of 1,000, against 1.08 for the way that all others go
(decoded once typed and once as dicts, which are encoded again); strictly 1.7 µs of 100, against 3.6.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from ingestd import oddities
from ingestd.oddities import Timestamp

_REQUIRED: Final = frozenset(("event", "timestamp", "properties"))
_STAMPED: Final = frozenset(("receivedAt", "source"))
_NAMES_MAX: Final = 64
_NAMES_CHARS_MAX: Final = 2048
_SHAPES_MAX: Final = 64
"""A Struct made for a shape costs some 10 KB, and as much time as decoding 500 events."""
_BYTES_MIN: Final = 1500
"""Of two or three events it costs more to look at the names than it saves."""
_SAMPLES: Final = 8
_SAMPLED_MIN: Final = 4
"""One of so many, at least, is looked at for its names."""

_ABSENT: Final = Raw()
_encode = msgspec.json.Encoder().encode
_decode_raws = msgspec.json.Decoder(list[Raw]).decode
_decode_row = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_timestamps = msgspec.json.Decoder(list[Timestamp]).decode


def alike(body: bytes | bytearray, *, is_strict: bool) -> tuple[list[str | UnsetType], list[bytes]] | None:
    """The message ids of an array of valid events, and what stands between the braces of each event.

    Strictly, no name stands twice within their values either, no number is out of range, nothing too deep.
    None if they are not alike, or one is odd or invalid: the other way tells. An id is UNSET where
    there is none; null or empty ones are odd.
    """
    if not body.startswith(b"[{") or b"\n" in body or b"\r" in body or len(body) < _BYTES_MIN:
        return None
    try:
        # What is skipped is not looked at by msgspec.
        body.decode()
        parts = bytes(memoryview(body)[2:-2]).split(b"},{")
        try:
            decode = _decoder(_names(parts), is_strict)
        except msgspec.DecodeError:
            # Objects in an array have been taken for events.
            parts = _exact_parts(body)
            decode = _decoder(_names(parts), is_strict)
        events: list[Any] = decode(body) if decode is not None else []
        if not events or _encode(events) != body:
            return None
        _decode_timestamps(_encode([event.timestamp for event in events]))
        message_ids = [event.messageId for event in events]
        if None in message_ids or "" in message_ids:
            return None
        # As encoded, `},{` stands between any two events; where it stands nowhere else, the parts are right.
        if len(parts) != len(events):
            parts = _exact_parts(body)
        if is_strict and (oddities.has_long_number(body) or oddities.may_be_deep(body, parts)):
            return None
        # Strictly, their type has been checked.
        if not is_strict and {memoryview(event.properties)[0] for event in events} != {ord("{")}:
            return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return message_ids, parts


def _exact_parts(body: bytes | bytearray) -> list[bytes]:
    return [bytes(memoryview(raw)[1:-1]) for raw in _decode_raws(body)]


def _names(parts: list[bytes]) -> tuple[str, ...]:
    """The names of some of these events, each after the one that it follows; none if one has white space.

    Raises DecodeError.
    """
    names: list[str] = []
    for part in parts[:: max(_SAMPLED_MIN, len(parts) // _SAMPLES)]:
        event = b"{%b}" % part
        row = _decode_row(event)
        if _encode(row) != event or len(row) > _NAMES_MAX:
            return ()
        at = 0
        for name in row:
            if name not in names:
                names.insert(at, name)
            at = names.index(name) + 1
    return tuple(names)


@lru_cache(_SHAPES_MAX)
def _decoder(names: tuple[str, ...], is_strict: bool) -> Any:
    """What decodes an array of events of this shape; None if there can be none."""
    if (
        not set(names) >= _REQUIRED
        or not _STAMPED.isdisjoint(names)
        or len(names) > _NAMES_MAX
        or sum(map(len, names)) > _NAMES_CHARS_MAX
    ):
        return None
    types = {"event": str, "timestamp": Raw, "properties": dict[str, Any] if is_strict else Raw}
    fields: list[Any] = []
    spelled: dict[str, str] = {}
    for i, name in enumerate(names):
        if name in types:
            fields.append((name, types[name]))
        elif name != "messageId":
            fields.append((f"member_{i}", Any, UNSET) if is_strict else (f"member_{i}", Raw, _ABSENT))
            spelled[f"member_{i}"] = name
        else:
            fields.append((name, str | UnsetType | None, UNSET))
    if "messageId" not in names:
        fields.append(("messageId", UnsetType, UNSET))
    try:
        shape = msgspec.defstruct(
            "Alike", fields, rename=spelled, kw_only=True, gc=False,
            forbid_unknown_fields=True, omit_defaults=True,
        )  # fmt: skip
    except ValueError:
        # A name that has to be escaped.
        return None
    return msgspec.json.Decoder(list[shape]).decode  # type: ignore[valid-type]
