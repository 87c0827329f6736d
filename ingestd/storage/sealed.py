"""A sealed segment read from its end: footer and index first, then the frames that are asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from msgspec.structs import replace

from ingestd.errors import StorageError
from ingestd.storage import endings, index
from ingestd.storage import footer as footers
from ingestd.storage.disk import Disk
from ingestd.storage.index import Index
from ingestd.storage.reading import Gone, read
from ingestd.storage.segment import (
    TRAILER_SIZE,
    Chain,
    Commit,
    content,
    counted,
    trailers,
)


class Ranges:
    """How the events of a segment are parted, into frames or into commits."""

    def __init__(self, events: Sequence[int]) -> None:
        self._starts = [0, *accumulate(events)]

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> range:
        """The numbers of the events of a part."""
        return range(self._starts[number], self._starts[number + 1])

    def of(self, event: int) -> int:
        """The part that has this event."""
        return bisect_right(self._starts, event) - 1


class Sealed:
    """One file; it does not change any more."""

    def __init__(self, disk: Disk, path: Path) -> None:
        """Raises StorageError, and Gone if there is no such file."""
        self.path = path
        self._disk = disk
        self.index: Index | None = None
        """None: it was sealed before there was one, or it cannot be read. Then nothing else is known."""
        found = disk.size_and_time(path)
        if found is None:
            raise Gone(f"{path} is gone")
        end, _ = found
        footer = endings.read(self._read, end, footers.MARK)
        if footer is None:
            return
        frames = footers.frames_of(footer)
        events = [events for _, events in frames]
        self.frames = self.commits = Ranges(events)
        end -= len(footer) + endings.OVERHEAD
        payload = endings.read(self._read, end, index.MARK)
        found_index = None if payload is None else Index.parsed(payload)
        if payload is None or found_index is None or not found_index.fits(events):
            return
        self.index = found_index
        if found_index.commits:
            self.commits = Ranges(found_index.commits)
        self._offsets = [*(offset for offset, _ in frames), end - len(payload) - endings.OVERHEAD]

    def lines(self, frame: int) -> list[bytes]:
        """The lines of a frame, without their ends. Raises StorageError."""
        start, end = self._offsets[frame : frame + 2]
        data = self._read(start, end - start)
        commit = self._commit(data, start)
        return counted(commit, content(data, commit, start)).split(b"\n")[:-1]

    def _commit(self, data: bytes, offset: int) -> Commit:
        for end, _, _ in trailers(data, max(0, len(data) - TRAILER_SIZE)):
            commit = replace(Chain().append(data[end - TRAILER_SIZE : end]), offset=offset)
            if commit.end == offset + len(data) == offset + end:
                return commit
        raise StorageError(f"no whole commit at byte {offset}")

    def _read(self, offset: int, size: int) -> bytes:
        return read(self._disk, self.path, offset, size)
