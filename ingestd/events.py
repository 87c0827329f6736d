"""From the bytes of a body to a Batch: validated, ids made, one NDJSON line per event.

The fast way reads the body twice and builds no values: once typed, to validate what the
contract names (`properties` is checked to be an object, its contents are skipped), and once
into `dict[str, Raw]` of each event's own top level. That second reading is what makes a name
stand once in a line (the last value wins, as in JSON.parse) and lets the stamps take the place
of a client's own `receivedAt` and `source`; the values are the client's bytes, never re-spelled.
Everything odd (lone surrogates, leap seconds, repeated names deeper down) goes through
`oddities`, which costs the rest nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from ingestd import oddities
from ingestd.errors import Rejection, StorageError, invalid_event

Ack = Callable[["StorageError | None"], None]


class _Object(Struct):
    """An object whose members are skipped, not decoded."""


class Event(Struct, gc=False):
    """What the contract names of an event; other fields are kept without being read."""

    event: str
    properties: _Object
    timestamp: oddities.Timestamp
    messageId: str | None = None


class LooseEvent(Struct, gc=False):
    """An Event whose timestamp is judged by `oddities.is_rfc3339`: the slow way, for leap seconds."""

    event: str
    properties: _Object
    timestamp: str
    messageId: str | None = None


class Batch:
    """The events of one request on their way to disk; `ack` is called once, on the loop."""

    __slots__ = ("ack", "events", "lines", "message_ids", "received_ms")

    def __init__(self, lines: bytes, message_ids: list[str], received_ms: int) -> None:
        self.lines = lines
        self.message_ids = message_ids
        self.events = len(message_ids)
        self.received_ms = received_ms
        self.ack: Ack | None = None


class _Form:
    """The decoders for one kind of body: one event, or an array of events."""

    __slots__ = ("is_array", "loose", "rows", "typed")

    def __init__(self, is_array: bool) -> None:
        def decoder(item: Any) -> msgspec.json.Decoder[Any]:
            return msgspec.json.Decoder(Annotated[list[item], Meta(min_length=1)] if is_array else item)

        self.is_array = is_array
        self.typed = decoder(Event)
        self.loose = decoder(LooseEvent)
        self.rows = decoder(dict[str, Raw])


ONE: Final = _Form(is_array=False)
MANY: Final = _Form(is_array=True)

_encoder = msgspec.json.Encoder()
_NEWLINES_TO_SPACES: Final = bytes(0x20 if c in b"\r\n" else c for c in range(256))


class Stamper:
    """Makes Batches for one key: holds the bytes of its `source` and of the current `receivedAt`."""

    __slots__ = ("_received_at", "_received_ms", "_source", "_strict_bytes_max")

    def __init__(self, source: str, strict_bytes_max: int) -> None:
        self._source = Raw(_encoder.encode(source))
        self._strict_bytes_max = strict_bytes_max
        self._received_ms = -1
        self._received_at = Raw()

    def batch(self, body: bytes, form: _Form) -> Batch:
        """Validate `body` (the whole, inflated) and make its lines. Raises Rejection (400)."""
        received_ms = time.time_ns() // 1_000_000
        if received_ms != self._received_ms:
            self._received_ms = received_ms
            self._received_at = Raw(b'"%s"' % rfc3339_ms(received_ms))
        body, events = _validated(body, form, self._strict_bytes_max)
        rows = form.rows.decode(body)
        if not form.is_array:
            rows = [rows]
        message_ids = [event.messageId or "" for event in events]
        if not all(message_ids):
            _make_ids(message_ids, rows, received_ms)
        received_at, source = self._received_at, self._source
        for row in rows:
            row["receivedAt"] = received_at
            row["source"] = source
        return Batch(_encoder.encode_lines(rows), message_ids, received_ms)


def _validated(body: bytes, form: _Form, strict_bytes_max: int) -> tuple[bytes, list[Event]]:
    """The body, mended where it is odd, and its events. Raises Rejection (400)."""
    try:
        # msgspec skips strings it need not decode without looking at their bytes.
        body.decode()
        if b"\n" in body or b"\r" in body:
            # A raw line break cannot stand inside a JSON string, so each is white space.
            body = body.translate(_NEWLINES_TO_SPACES)
        try:
            events = form.typed.decode(body)
        except msgspec.DecodeError as e:
            body, events = _decoded_oddly(body, form, e)
        if len(body) <= strict_bytes_max and not oddities.is_plain(body):
            body = oddities.resolved(body)
    except UnicodeDecodeError as e:
        raise invalid_event("invalid_utf8", f"byte {e.start}: not valid UTF-8") from None
    except msgspec.ValidationError as e:
        raise invalid_event("invalid_event", _place_first(str(e))) from None
    except msgspec.DecodeError as e:
        raise invalid_event("invalid_json", str(e)) from None
    except RecursionError:
        raise oddities.too_deep() from None
    return body, events if form.is_array else [events]


def _decoded_oddly(body: bytes, form: _Form, error: msgspec.DecodeError) -> tuple[bytes, Any]:
    """A second chance for what msgspec refuses and the contract allows; else `error` stands."""
    mended = oddities.without_lone_surrogates(body)
    if mended != body:
        try:
            return mended, form.typed.decode(mended)
        except msgspec.ValidationError as e:
            error = e
    if "RFC3339" not in str(error):
        raise error
    events = form.loose.decode(mended)
    for i, event in enumerate(events if form.is_array else [events]):
        if not oddities.is_rfc3339(event.timestamp):
            place = f"$[{i}].timestamp" if form.is_array else "$.timestamp"
            raise invalid_event(
                "invalid_event",
                f"{place}: expected an RFC 3339 date-time with an offset, as 2025-10-29T22:00:00.778Z",
            )
    return mended, events


def _place_first(message: str) -> str:
    """msgspec's 'Expected … - at `$[3].event`' as '$[3].event: expected …'."""
    what, _, place = message.rpartition(" - at ")
    if not what:
        return f"$: {message[:1].lower()}{message[1:]}"
    what = what.replace("`datetime`", "an RFC 3339 date-time").replace(
        "RFC3339 encoded datetime", "RFC 3339 date-time"
    )
    return f"{place.strip('`')}: {what[:1].lower()}{what[1:]}"


def _make_ids(message_ids: list[str], rows: list[dict[str, Raw]], now_ms: int) -> None:
    """Fill the gaps with UUIDv7s, in the answer and in the lines."""
    missing = [i for i, message_id in enumerate(message_ids) if not message_id]
    for i, made in zip(missing, uuid7s(len(missing), now_ms), strict=True):
        message_ids[i] = made
        rows[i]["messageId"] = Raw(b'"%s"' % made.encode())


def uuid7s(count: int, now_ms: int) -> list[str]:
    """That many UUIDv7s (RFC 9562 §5.7) of this millisecond, from one call for random bytes."""
    random = os.urandom(10 * count)
    made = []
    for i in range(0, 10 * count, 10):
        bits = int.from_bytes(random[i : i + 10], "big")
        value = now_ms << 80 | 7 << 76 | (bits >> 62 & 0xFFF) << 64 | 2 << 62 | bits & 0x3FFF_FFFF_FFFF_FFFF
        h = f"{value:032x}"
        made.append(f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}")
    return made


def rfc3339_ms(ms: int) -> bytes:
    """Milliseconds since 1970 as b'2025-10-29T22:00:00.778Z'."""
    seconds, rest = divmod(ms, 1000)
    return b"%s.%03dZ" % (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode(), rest)


__all__ = ["MANY", "ONE", "Ack", "Batch", "Rejection", "Stamper", "rfc3339_ms", "uuid7s"]
