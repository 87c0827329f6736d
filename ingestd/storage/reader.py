"""`cat`: the lines of segments, each once, while the server writes, seals and packs them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from ingestd.errors import StorageError
from ingestd.storage.disk import Disk
from ingestd.storage.reading import Gone, Group, Reading, home, in_order
from ingestd.storage.segment import OPEN_SUFFIX, SUFFIX, open_directory

_POLL_S = 0.2
Problem = Callable[[str], None]


def cat(disk: Disk, paths: list[Path], follow: bool, problem: Problem) -> Generator[bytes, None, None]:
    """The NDJSON of the segments, commit by commit; directories stand for all their segments.

    With `follow` it goes on for ever with what is added. `problem` is told of what cannot be read.
    """
    course = _Course(disk, paths, problem)
    while True:
        is_idle = True
        for task, (contents, error) in in_order(course.added(), _contents):
            if task.reading in course.failed:
                continue
            for lines in contents:
                is_idle = False
                yield lines
            if error:
                course.failed.add(task.reading)
                problem(f"{task.reading.path}: {error}; what follows is not shown")
        if not follow:
            return
        if is_idle:
            time.sleep(_POLL_S)


@dataclass(frozen=True, slots=True)
class _End:
    """Follows the groups of a segment that cannot be read on."""

    reading: Reading
    problem: str
    content_bytes: int = 0


class _Course:
    """What has been read of which segment, from one listing of the directories to the next."""

    def __init__(self, disk: Disk, paths: list[Path], problem: Problem) -> None:
        self.failed: set[Reading] = set()
        self._disk = disk
        self._paths = paths
        self._problem = problem
        self._told: set[str] = set()
        self._readings: dict[str, Reading] = {}
        self._ended: set[str] = set()

    def added(self) -> Iterator[Group | _End]:
        """List once, and read what has been added since the last time."""
        for path in self._expanded():
            # Not the name alone: a segment may have been copied to a second directory.
            key = os.path.abspath(home(path))
            if key in self._ended:
                continue
            reading = self._readings.setdefault(key, Reading(path))
            problem = ""
            try:
                yield from self._groups(reading)
            except Gone:
                pass
            except StorageError as e:
                problem = str(e)
            else:
                if reading.may_grow and reading not in self.failed:
                    continue
                if reading.found.state in ("torn", "damaged"):
                    problem = reading.found.problem
            self._ended.add(key)
            del self._readings[key]
            if problem:
                yield _End(reading, problem)

    def _groups(self, reading: Reading) -> Iterator[Group]:
        while True:
            try:
                for group in reading.groups(self._disk):
                    reading.shown_bytes += group.content_bytes - group.skip
                    yield group
                return
            except Gone:
                if not reading.move():
                    raise

    def _expanded(self) -> Iterator[Path]:
        for path in self._paths:
            if self._disk.is_directory(path):
                yield from segments(self._disk, path, self._unreadable)
            else:
                yield path

    def _unreadable(self, error: StorageError) -> None:
        """A directory; once, not at every look."""
        if str(error) not in self._told:
            self._told.add(str(error))
            self._problem(f"{error}; what is in it is not shown")


def _contents(task: Group | _End) -> tuple[list[bytes], str]:
    """The lines of each commit, up to the first that cannot be read, and why."""
    contents: list[bytes] = []
    if isinstance(task, _End):
        return contents, task.problem
    try:
        for _, lines in task.contents():
            contents.append(lines)
    except StorageError as e:
        return contents, str(e)
    return contents, ""


def segments(disk: Disk, data_dir: Path, unreadable: Callable[[StorageError], None]) -> list[Path]:
    """The sealed and open segments of a data directory, oldest first, each once."""
    # Open ones first: one that is sealed in between is then found twice, not missed.
    found = disk.list(open_directory(data_dir), f"*{OPEN_SUFFIX}", unreadable=unreadable)
    found += disk.list(data_dir / "segments", f"*{SUFFIX}", deep=True, unreadable=unreadable)
    return sorted({home(path): path for path in found}.values(), key=lambda path: path.name)
