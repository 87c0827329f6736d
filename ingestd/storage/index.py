"""The index of a sealed segment: what `find` needs so that it reads few frames and not all.

segment.py has its format. It tells which events may have an id (`fingerprints`), and where the commits
that receipts name have come to, for packing puts many of them into one frame.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import zstandard

from ingestd.storage import endings, fingerprints
from ingestd.storage.frames import decompress

MAGIC: Final = 0x184D2A5F
MARK: Final = b"IGINDX1\n"
_HEAD: Final = struct.Struct("<III")


@dataclass(frozen=True, slots=True)
class Index:
    """The fingerprints of all events, in order, and how many events each commit had.

    No commits: each frame is one.
    """

    fingerprints: bytes
    commits: tuple[int, ...] = ()

    def fits(self, frames: Sequence[int]) -> bool:
        """True if it can be of these frames, each with so many events: none parts a commit."""
        ends = set(accumulate(frames))
        events = len(self.fingerprints) // fingerprints.SIZE
        return max(ends, default=0) == events and (not self.commits or ends <= set(accumulate(self.commits)))

    def frame(self) -> bytes:
        """Its skippable frame."""
        commits = struct.pack(f"<{len(self.commits)}I", *self.commits)
        packed = zstandard.ZstdCompressor(write_checksum=True).compress(commits)
        events = len(self.fingerprints) // fingerprints.SIZE
        payload = _HEAD.pack(events, len(self.commits), len(packed)) + packed + self.fingerprints
        return endings.wrapped(MAGIC, payload, MARK)

    @classmethod
    def parsed(cls, payload: bytes) -> Index | None:
        """Of the payload of such a frame; None if it contradicts itself."""
        if len(payload) < _HEAD.size:
            return None
        events, commits, packed_bytes = _HEAD.unpack_from(payload)
        packed_end = _HEAD.size + packed_bytes
        counts = decompress(payload[_HEAD.size : packed_end], 4 * commits)
        found = payload[packed_end:]
        if counts is None or len(found) != events * fingerprints.SIZE:
            return None
        return cls(found, struct.unpack(f"<{commits}I", counts))

    def events_like(self, message_id: str) -> Iterator[int]:
        """The numbers of the events, from 0, that have the fingerprint of this id."""
        wanted, size, found = fingerprints.of_id(message_id), fingerprints.SIZE, self.fingerprints
        at = found.find(wanted)
        while at >= 0:
            number, rest = divmod(at, size)
            if not rest:
                yield number
            at = found.find(wanted, at + 1)
