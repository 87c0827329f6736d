"""Partial acceptance: valid events of an array are kept, and the invalid ones set aside as they were sent.

It is the slow way, gone only by requests that ask for it and only after the fast one has failed: the
array is validated in pieces, and a piece that fails in halves, down to the events that are to blame.
What is no array of JSON values has no events to tell apart, and is refused as ever. As sent means byte
for byte, but that half of a surrogate pair becomes U+FFFD here, too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from ingestd import ndjson, oddities, slices
from ingestd.errors import Rejection, invalid_event
from ingestd.events import Batch, Stamper, rfc3339_ms
from ingestd.forms import LINES, MANY, Form

INVALID_MAX: Final = 1000
"""Of one request. Each has its place in the answer and a line of its own; more of them is no slip."""
_PIECE_BYTES: Final = 32 * 1024
"""Small enough for the strict look of `oddities`, so what is found does not depend on the neighbours."""

_encoder = msgspec.json.Encoder()


class Invalid(Struct, gc=False):
    """An event that was set aside, as the answer tells of it."""

    index: int
    code: str
    detail: str


class _Kept(Struct, gc=False):
    """The line of such an event. It is text there, so that no reader can stumble over it."""

    receivedAt: str
    source: str
    code: str
    detail: str
    index: int
    event: str
    messageId: str | UnsetType = UNSET


class _Identified(Struct, gc=False):
    messageId: Any = None


_identified = msgspec.json.Decoder(_Identified).decode


class Sifted(Batch):
    """The valid events. In `quarantine` are the invalid ones, in `invalid` what the answer tells of them."""

    __slots__ = ("invalid", "quarantine")

    def __init__(self, valid: Batch, quarantine: Batch, invalid: Sequence[Invalid]) -> None:
        super().__init__(valid.lines, valid.message_ids, valid.received_ms)
        self.size += quarantine.size
        self.quarantine = quarantine
        self.invalid = invalid


def sifted(stamper: Stamper, body: bytes | bytearray, form: Form) -> Iterator[Batch | None]:
    """`Stamper.slices`, but invalid events are set aside: None after each slice, then the Batch.

    Raises Rejection (400) if there are no events to tell apart, too many are invalid, or all.
    """
    try:
        yield from stamper.slices(body, form)
        return
    except Rejection as e:
        first = e
    if form is LINES:
        body = ndjson.as_array(body)
    elif form is not MANY:
        raise first
    try:
        # Of half surrogate pairs only some are refused, by what stands behind them.
        raws = slices.split(oddities.without_lone_surrogates(body))
    except Rejection:
        raise first from None
    invalid: list[Invalid] = []
    for start, end in _pieces(raws):
        invalid += _judged(stamper, raws, start, end, len(invalid))
        yield None
    if len(invalid) == len(raws):
        raise _all_invalid(invalid)
    bad = {one.index for one in invalid}
    valid = b"[%b]" % b",".join([raw for i, raw in enumerate(raws) if i not in bad])
    for batch in stamper.slices(valid, MANY):
        yield None if batch is None else Sifted(batch, _quarantine(stamper.name, raws, invalid), invalid)


def _pieces(raws: list[Raw]) -> Iterator[tuple[int, int]]:
    start = size = 0
    for end, raw in enumerate(raws):
        size += len(memoryview(raw))
        if size > _PIECE_BYTES and end > start:
            yield start, end
            start, size = end, len(memoryview(raw))
    yield start, len(raws)


def _judged(stamper: Stamper, raws: list[Raw], start: int, end: int, before: int) -> list[Invalid]:
    """The invalid ones of a piece, in order. Raises Rejection if with those before they are too many."""
    found: list[Invalid] = []
    parts = [(start, end)]
    while parts:
        start, end = parts.pop()
        try:
            stamper.batch(b"[%b]" % b",".join(raws[start:end]), MANY)
        except Rejection as e:
            if end - start > 1:
                middle = (start + end) // 2
                parts += [(middle, end), (start, middle)]
                continue
            detail = (e.detail or e.error).replace("$[0]", f"$[{start}]", 1)
            found.append(Invalid(start, e.code, detail))
            if before + len(found) > INVALID_MAX:
                text = f"more than {INVALID_MAX} events are invalid, the last seen: {detail}"
                raise invalid_event("too_many_invalid", text, e.quoted) from None
    return found


def _all_invalid(invalid: list[Invalid]) -> Rejection:
    rejection = invalid_event(invalid[0].code, invalid[0].detail)
    rejection.invalid = invalid
    return rejection


def _quarantine(source: str, raws: list[Raw], invalid: list[Invalid]) -> Batch:
    """The lines that are kept of the invalid events."""
    received_ms = time.time_ns() // 1_000_000
    received_at = rfc3339_ms(received_ms).decode()
    lines = []
    for one in invalid:
        event = bytes(raws[one.index])
        kept = _Kept(received_at, source, one.code, one.detail, one.index, event.decode(), _message_id(event))
        lines.append(kept)
    message_ids = [line.messageId or "" for line in lines]
    return Batch(_encoder.encode_lines(lines), message_ids, received_ms)


def _message_id(event: bytes) -> str | UnsetType:
    """The id that it was to have, if it can be told."""
    try:
        message_id = _identified(event).messageId
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return UNSET
    return message_id if message_id and isinstance(message_id, str) else UNSET
