"""The footer of a sealed segment: where its frames stand, and sums; segment.py has the format."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ingestd.storage import endings

if TYPE_CHECKING:
    from ingestd.storage.segment import Commit

MAGIC: Final = 0x184D2A5E
MARK: Final = b"IGFOOT1\n"
_ENTRY: Final = struct.Struct("<QIQI")
_TOTALS: Final = struct.Struct("<IQQQ")
_FIXED: Final = _TOTALS.size + 32


def frame(commits: Sequence[Commit], digest: bytes) -> bytes:
    """Its skippable frame, for these commits and the SHA-256 of their trailers."""
    entries = [_ENTRY.pack(c.offset, c.events, c.first_ms, c.last_ms - c.first_ms) for c in commits]
    totals = _TOTALS.pack(
        len(commits),
        sum(c.events for c in commits),
        sum(c.content_bytes for c in commits),
        sum(c.frame_bytes for c in commits),
    )
    return endings.wrapped(MAGIC, b"".join([*entries, totals, digest]), MARK)


def totals_of(payload: bytes) -> tuple[int, int]:
    """Commits and events that it tells of; none if it is no payload of a footer."""
    if len(payload) < _FIXED:
        return 0, 0
    commits, events, _, _ = _TOTALS.unpack_from(payload, len(payload) - _FIXED)
    return commits, events


def frames_of(payload: bytes) -> list[tuple[int, int]]:
    """Offset and events of each frame."""
    entries = payload[: max(0, len(payload) - _FIXED) // _ENTRY.size * _ENTRY.size]
    return [(offset, events) for offset, events, _, _ in _ENTRY.iter_unpack(entries)]
