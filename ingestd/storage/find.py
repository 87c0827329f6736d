"""`find`: where an event is, by the receipt of its answer or by its messageId.

Of a sealed segment only the index is read, and the few frames that may have the id. Of an open one, and
of one without an index, all is read. A file that recovery has put in quarantine is looked into as far
as it is whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Final

from ingestd.errors import StorageError
from ingestd.storage import fingerprints, reader
from ingestd.storage.disk import Disk
from ingestd.storage.index import Index
from ingestd.storage.reading import Gone, Group, Reading, home, in_order, is_open
from ingestd.storage.receipts import Receipt
from ingestd.storage.sealed import Sealed
from ingestd.storage.segment import OPEN_SUFFIX, SUFFIX, content, counted, open_directory, sealed_path

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:\-]+")
"""Ids of such characters can be spelled in JSON as they are, or with the escapes below."""
_ESCAPE: Final = re.compile(rb"\\u00[2-7]")

Problem = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Found:
    """An event, and where it stands."""

    path: Path
    segment: str
    line: int
    """In the segment, from 1, as `zstd -dc` shows it."""
    commit: int | None
    """As receipts name it; None if that is not known, in a segment that was sealed without an index."""
    event: bytes
    """Its line, without the end."""

    def has(self, message_id: str) -> bool:
        """True if it has this id."""
        return fingerprints.message_ids(self.event + b"\n") == [message_id]

    @property
    def receipt(self) -> str | None:
        """Of the request that has brought it, and of others that were committed with it."""
        return None if self.commit is None else str(Receipt(self.segment, self.commit))


class Search:
    """One search in some data directories. `problem` is told of what cannot be read."""

    def __init__(
        self,
        disk: Disk,
        data_dirs: list[Path],
        problem: Problem,
        progress: Progress = lambda _done, _total: None,
    ) -> None:
        self.segments_unindexed = 0
        """Sealed segments that had to be read as a whole."""
        self._disk = disk
        self._data_dirs = data_dirs
        self._problem = problem
        self._progress = progress
        self._done_bytes = 0
        self._total_bytes = 0

    # By receipt

    def files(self, segment: str) -> list[Path]:
        """The files of the segment of this name; none if it is not there."""
        found = []
        for data_dir in self._data_dirs:
            # The open file first: one that is sealed in between is then found twice, not missed.
            for path in (open_directory(data_dir) / (segment + OPEN_SUFFIX), sealed_path(data_dir, segment)):
                try:
                    found += [path] if self._disk.exists(path) else []
                except StorageError as e:
                    self._problem(str(e))
            found += self._quarantined(data_dir, segment)
        # For a moment a segment has both files, and of the sealed one less must be read.
        return sorted(found, key=is_open)

    def by_receipt(self, receipt: Receipt) -> Iterator[Found]:
        """The events of the commit that the receipt names, in order."""
        for path in self.files(receipt.segment):
            found = list(self._wherever(path, partial(self._in_commit, receipt)))
            if found:
                yield from found
                return

    def _in_commit(self, receipt: Receipt, path: Path) -> list[Found]:
        """The events of a commit; none if it is not in this file. Raises StorageError."""
        start, lines = (self._sealed_commit if _is_sealed(path) else self._open_commit)(path, receipt.commit)
        return [
            Found(path, receipt.segment, start + i, receipt.commit, line) for i, line in enumerate(lines, 1)
        ]

    def _sealed_commit(self, path: Path, number: int) -> tuple[int, list[bytes]]:
        """How many events stand before it, and its lines."""
        sealed = Sealed(self._disk, path)
        if sealed.index is None:
            raise StorageError("it was sealed without an index, so which commits it had is not known")
        if number >= len(sealed.commits):
            return 0, []
        events = sealed.commits[number]
        frame = sealed.frames.of(events.start)
        skipped = events.start - sealed.frames[frame].start
        return events.start, sealed.lines(frame)[skipped : skipped + len(events)]

    def _open_commit(self, path: Path, number: int) -> tuple[int, list[bytes]]:
        """The same of a segment whose frames are its commits."""
        reading, events = Reading(path), 0
        for group in reading.groups(self._disk):
            for commit in group.commits:
                if not number:
                    lines = counted(commit, content(group.data, commit, group.base))
                    return events, lines.split(b"\n")[:-1]
                events += commit.events
                number -= 1
        _expect_whole(reading)
        return 0, []

    # By messageId

    def by_message_id(self, message_id: str) -> Iterator[Found]:
        """All events with this id: oldest segments first, in order."""
        segments = [path for data_dir in self._data_dirs for path in self._segments(data_dir)]
        sizes = [self._size(path) for path in segments]
        self._done_bytes, self._total_bytes = 0, sum(sizes)
        for path, size in zip(segments, sizes, strict=True):
            done_bytes = self._done_bytes + size
            yield from self._wherever(path, partial(self._in_segment, message_id))
            self._done_bytes = done_bytes
            self._progress(done_bytes, self._total_bytes)

    def _wherever(self, path: Path, look: Callable[[Path], Iterable[Found]]) -> Iterator[Found]:
        """What is found in a segment, each event once, also if it is sealed meanwhile."""
        told: set[int] = set()
        for one in (path, home(path)):
            try:
                for found in look(one):
                    if found.line not in told:
                        told.add(found.line)
                        yield found
            except Gone:
                continue
            except StorageError as e:
                self._problem(f"{one}: {e}")
            return

    def _segments(self, data_dir: Path) -> list[Path]:
        return reader.segments(self._disk, data_dir, self._unreadable) + self._quarantined(data_dir)

    def _quarantined(self, data_dir: Path, segment: str = "*") -> list[Path]:
        directory = data_dir / "quarantine"
        return self._disk.list(directory, f"{segment}{OPEN_SUFFIX}*", unreadable=self._unreadable)

    def _unreadable(self, error: StorageError) -> None:
        self._problem(f"{error}; what is in it is not found")

    def _size(self, path: Path) -> int:
        with suppress(StorageError):
            found = self._disk.size_and_time(path)
            return 0 if found is None else found[0]
        return 0

    def _in_segment(self, message_id: str, path: Path) -> Iterator[Found]:
        """The events with this id. Raises StorageError."""
        name = path.name.partition(SUFFIX)[0]
        if _is_sealed(path):
            sealed = Sealed(self._disk, path)
            if sealed.index is not None:
                for event, line in _indexed(sealed, sealed.index, message_id):
                    yield Found(path, name, event + 1, sealed.commits.of(event), line)
                return
            self.segments_unindexed += 1
        reading, event, commit = Reading(path), 0, 0
        for group, matches in in_order(reading.groups(self._disk), partial(_matches, message_id)):
            for number, at, line in matches:
                known = None if _is_sealed(path) else commit + number
                yield Found(path, name, event + at + 1, known, line)
            event += group.events
            commit += len(group.commits)
            self._done_bytes += group.commits[-1].end - group.commits[0].offset
            self._progress(self._done_bytes, self._total_bytes)
        _expect_whole(reading)


def _is_sealed(path: Path) -> bool:
    """True for a file at its sealed place. In quarantine there are open ones."""
    return path.name.endswith(SUFFIX)


def _expect_whole(reading: Reading) -> None:
    """Raises StorageError if there is, or should be, more than could be read."""
    found = reading.found
    if found.state == "damaged" or (found.state != "sealed" and _is_sealed(reading.path)):
        raise StorageError(found.problem or "the footer is missing")


def _indexed(sealed: Sealed, index: Index, message_id: str) -> Iterator[tuple[int, bytes]]:
    """Events with this id, by their numbers in the segment, and their lines. Raises StorageError."""
    for frame, events in groupby(index.events_like(message_id), sealed.frames.of):
        lines, start = sealed.lines(frame), sealed.frames[frame].start
        for event in events:
            line = lines[event - start]
            if fingerprints.message_ids(line + b"\n") == [message_id]:
                yield event, line


def _matches(message_id: str, group: Group) -> list[tuple[int, int, bytes]]:
    """Events with this id: in which commit of the group, at which place in the group, the line.

    On a thread. Raises StorageError.
    """
    found = []
    events = 0
    for number, (commit, lines) in enumerate(group.contents()):
        counted(commit, lines)
        if _may_hold(lines, message_id):
            ids = fingerprints.message_ids(lines)
            at = [i for i, one in enumerate(ids) if one == message_id]
            rows = lines.split(b"\n") if at else []
            found += [(number, events + i, rows[i]) for i in at]
        events += commit.events
    return found


def _may_hold(lines: bytes, message_id: str) -> bool:
    """False if no line can have this id, however it is spelled."""
    if not _PLAIN.fullmatch(message_id):
        return True
    return message_id.encode() in lines or _ESCAPE.search(lines) is not None
