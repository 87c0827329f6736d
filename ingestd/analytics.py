"""The calls of Segment's HTTP tracking API, read as events of the contract.

What its documentation and its SDKs send (`{"batch": [...], "sentAt": ...}`, or one object for a call of
its own) becomes an array of the contract's events, which then goes the way of all others. A message is
kept as sent, with these differences, after which every line has the same shape:

| member | what becomes of it |
|--|--|
| `type` | in a batch required; of a call of its own it is the call's name |
| `event` | but for `track` the type, where there is none |
| `properties` | `{}` where there are none: traits stay in `traits` |
| `originalTimestamp` | the `timestamp` as sent |
| `timestamp` | that time by the server's clock: `receivedAt` - (`sentAt` - `originalTimestamp`) |
| `sentAt`, `context`, `integrations` | the batch's where the message has none of its own |
| `writeKey` | dropped: it is a secret |

A message without any timestamp has that of its receipt. Limits are those that Segment documents: 500 KB
a request, 32 KB a message, 2,500 messages.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from ingestd import oddities
from ingestd.errors import invalid_event
from ingestd.oddities import Timestamp
from ingestd.places import invalid

TYPES: Final = ("track", "identify", "page", "screen", "group", "alias")
BATCH: Final = "batch"
CALLS: Final = (BATCH, *(name for name in TYPES if name != "track"))
"""A path of its own each; /v1/track is the contract's."""

BODY_BYTES_MAX: Final = 500 * 1024
MESSAGE_BYTES_MAX: Final = 32 * 1024
MESSAGES_MAX: Final = 2500
EVENTS_BYTES_MAX: Final = 10 * 1024 * 1024
"""Of all messages of a batch, with what it says once for each of them."""

_ABSENT: Final = Raw()
_NULL: Final = b"null"
_SPELLED: Final = {b'"%b"' % name.encode(): name for name in TYPES}
_SHARED: Final = ("sentAt", "context", "integrations")

_encode = msgspec.json.Encoder().encode
_decode_row = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_time = msgspec.json.Decoder(Timestamp).decode
_decode_text = msgspec.json.Decoder(str).decode


class _Batch(Struct, gc=False):
    batch: Annotated[list[Raw], Meta(min_length=1, max_length=MESSAGES_MAX)]


_decode_batch = msgspec.json.Decoder(_Batch).decode


def as_array(body: bytes | bytearray, call: str, received_ms: int) -> bytes:
    """The messages of one of CALLS as an array of the contract's events.

    Raises Rejection (400) that names the place; what the contract asks of an event is not looked at.
    """
    if len(body) > BODY_BYTES_MAX:
        raise invalid_event("too_large", f"{len(body)} bytes: a call may have {BODY_BYTES_MAX} at most")
    try:
        body.decode()
        body = oddities.without_lone_surrogates(body)
        whole = _decode_row(body)
        if call == BATCH:
            rows = [_message(raw, i) for i, raw in enumerate(_decode_batch(body).batch)]
        else:
            rows = [_sized(whole, len(body), "$")]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise invalid(e) from None
    received = datetime.fromtimestamp(received_ms / 1000, UTC)
    size = len(body)
    for i, row in enumerate(rows):
        place = sent_place = "$"
        if call != BATCH:
            row["type"] = Raw(b'"%b"' % call.encode())
        else:
            place = f"$.batch[{i}]"
            sent_place = place if "sentAt" in row else "$"
            for name in _SHARED:
                if name in whole and name not in row:
                    row[name] = whole[name]
                    size += len(memoryview(whole[name]))
            if size > EVENTS_BYTES_MAX:
                raise invalid_event(
                    "too_large", f"with what they share, messages may have {EVENTS_BYTES_MAX} bytes in all"
                )
            if bytes(row.get("type", _ABSENT)) not in _SPELLED:
                raise invalid_event("invalid_event", f"{place}.type: expected one of {', '.join(TYPES)}")
        sent_at = None if _is_none(row, "sentAt") else _time(row["sentAt"], f"{sent_place}.sentAt")
        _complete(row, place, received, sent_at)
    return _encode(rows)


def _message(raw: Raw, index: int) -> dict[str, Raw]:
    """A message of a batch. Raises Rejection."""
    place = f"$.batch[{index}]"
    try:
        row = _decode_row(raw)
    except msgspec.ValidationError:
        raise invalid_event("invalid_event", f"{place}: expected `object`") from None
    return _sized(row, len(memoryview(raw)), place)


def _sized(row: dict[str, Raw], size: int, place: str) -> dict[str, Raw]:
    if size > MESSAGE_BYTES_MAX:
        raise invalid_event(
            "too_large", f"{place}: {size} bytes: a message may have {MESSAGE_BYTES_MAX} at most"
        )
    return row


def _complete(row: dict[str, Any], place: str, received: datetime, sent_at: datetime | None) -> None:
    """Give the message what the table above says. Raises Rejection."""
    row.pop("writeKey", None)
    if bytes(row["type"]) != b'"track"' and _is_none(row, "event"):
        row["event"] = row["type"]
    if _is_none(row, "properties"):
        row["properties"] = Raw(b"{}")
    told = [name for name in ("originalTimestamp", "timestamp") if not _is_none(row, name)]
    times = [_time(row[name], f"{place}.{name}") for name in told]
    if not told:
        row["timestamp"] = Raw(_spelled(received))
        return
    row["timestamp"] = row["originalTimestamp"] = row[told[0]]
    if sent_at is not None and times[0] is not None:
        with suppress(OverflowError):
            row["timestamp"] = Raw(_spelled(received - (sent_at - times[0])))


def _time(value: Raw, place: str) -> datetime | None:
    """None for a leap second, which cannot be reckoned with. Raises Rejection."""
    try:
        return _decode_time(value)
    except msgspec.DecodeError:
        with suppress(msgspec.DecodeError):
            if oddities.is_rfc3339(_decode_text(value)):
                return None
        raise invalid_event("invalid_event", f"{place}: {oddities.NO_TIMESTAMP}") from None


def _is_none(row: dict[str, Any], name: str) -> bool:
    return name not in row or bytes(row[name]) == _NULL


def _spelled(time: datetime) -> bytes:
    return b'"%b"' % time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()
