"""`verify`: the proof that what is stored is whole: frames, chains, footers, indexes, each line counted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from ingestd.errors import StorageError
from ingestd.storage import fingerprints
from ingestd.storage.disk import Disk
from ingestd.storage.reading import Gone, Group, Reading, home, in_order, is_open, segment_name
from ingestd.storage.recovery import LEFTOVERS
from ingestd.storage.segment import NAME, SUFFIX, TORN_SUFFIX, counted, open_directory

_SAME: Final = "the same lines"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was written."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth knowing that is as it should be, or was never promised."""

    path: str
    note: str

    def __str__(self) -> str:
        return f"{self.path}: note: {self.note}"


@dataclass(slots=True)
class Source:
    """What one worker of one node has written."""

    node: str
    worker: int | None
    """None, and no node, for files whose names do not tell."""
    segments: int = 0
    events: int = 0


@dataclass(slots=True)
class Verdict:
    """What `verify` found in a data directory; commits, events and their bytes are those that are good."""

    segments: int = 0
    sealed: int = 0
    open: int = 0
    commits: int = 0
    events: int = 0
    content_bytes: int = 0
    stored_bytes: int = 0
    torn_files: int = 0
    quarantined_files: int = 0
    sources: list[Source] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True if there is no problem."""
        return not self.problems


Say = Callable[[Problem | Note], None]
Progress = Callable[[int, int], None]


def verify(
    disk: Disk, data_dir: Path, say: Say = lambda _: None, progress: Progress = lambda _done, _total: None
) -> Verdict:
    """Check all segments below `data_dir`; `say` is told at once what is wrong or worth a note.

    `progress` is told the bytes done and the bytes there are.
    """
    return _Verification(disk, data_dir, say, progress).run()


@dataclass(slots=True)
class _Tally:
    """What was good of one segment, and what was wrong in the first commit that was not."""

    commits: int = 0
    events: int = 0
    content_bytes: int = 0
    fingerprints: bytearray = field(default_factory=bytearray)
    """Of the events in a sealed segment."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class _End:
    """Follows the groups of a segment; `error` if it could not be read to its end."""

    reading: Reading
    error: str = ""
    content_bytes: int = 0


class _Verification:
    def __init__(self, disk: Disk, data_dir: Path, say: Say, progress: Progress) -> None:
        self._disk = disk
        self._data_dir = data_dir
        self._say = say
        self._progress = progress
        self._verdict = Verdict()
        self._tallies: dict[Reading, _Tally] = {}

    def run(self) -> Verdict:
        paths = self._listed()
        total_bytes = sum(self._size(path) for path in paths)
        done_bytes = ended_bytes = 0
        for task, checked in in_order(self._tasks(paths), _checked):
            tally = self._tallies.setdefault(task.reading, _Tally())
            if isinstance(task, _End):
                self._conclude(task, tally)
                del self._tallies[task.reading]
                ended_bytes += task.reading.file_bytes
                done_bytes = ended_bytes
            else:
                done_bytes += task.commits[-1].end - task.commits[0].offset
                if not tally.error:
                    tally.commits += checked.commits
                    tally.events += checked.events
                    tally.content_bytes += checked.content_bytes
                    tally.fingerprints += checked.fingerprints
                    tally.error = checked.error
            self._progress(done_bytes, total_bytes)
        for path in self._list(self._data_dir / "quarantine"):
            self._verdict.quarantined_files += 1
            self._problem(path, "quarantined, its damage was found earlier")
        return self._verdict

    def _problem(self, path: Path, text: str) -> None:
        problem = Problem(_printable(path), _printable(text))
        self._verdict.problems.append(problem)
        self._say(problem)

    def _note(self, path: Path, text: str) -> None:
        note = Note(_printable(path), _printable(text))
        self._verdict.notes.append(note)
        self._say(note)

    def _list(self, directory: Path, *, deep: bool = False) -> list[Path]:
        def unreadable(error: StorageError) -> None:
            self._problem(directory, str(error))

        return self._disk.list(directory, "*", deep=deep, unreadable=unreadable)

    def _size(self, path: Path) -> int:
        try:
            found = self._disk.size_and_time(path)
        except StorageError:
            return 0
        return 0 if found is None else found[0]

    def _listed(self) -> list[Path]:
        """The segments, oldest first; other files are noted."""
        # Open ones first: one that is sealed in between is then found twice, not missed.
        found = [path for path in self._list(open_directory(self._data_dir)) if self._is_segment(path, True)]
        for path in self._list(self._data_dir / "segments", deep=True):
            if self._is_segment(path, False):
                found.append(path)
        return sorted(found, key=lambda path: (path.name.removesuffix(".open"), str(path)))

    def _is_segment(self, path: Path, should_be_open: bool) -> bool:
        if any(fnmatchcase(path.name, pattern) for pattern in LEFTOVERS):
            return False
        if TORN_SUFFIX in path.name:
            self._verdict.torn_files += 1
            self._note(path, f"{self._size(path)} bytes that a crash tore off, kept by recovery")
        elif is_open(path) == should_be_open and (should_be_open or path.name.endswith(SUFFIX)):
            return True
        else:
            self._note(path, "not a file of ingestd")
        return False

    def _tasks(self, paths: list[Path]) -> Iterator[Group | _End]:
        sealed: dict[str, Path] = {}
        homes = {path for path in paths if not is_open(path)}
        for path in paths:
            if is_open(path):
                if home(path) in homes:
                    self._compare(path, home(path))
                    continue
            else:
                self._check_place(path, sealed)
            reading = Reading(path)
            try:
                yield from _whole(self._disk, reading)
            except Gone:
                if not reading.move():
                    continue
                # Sealed since it was listed, so all of it is checked in its new place.
                try:
                    yield from _whole(self._disk, Reading(reading.path))
                except Gone:
                    continue

    def _check_place(self, path: Path, sealed: dict[str, Path]) -> None:
        """A file in a place of its own is read by every tool that reads segments/."""
        first = sealed.setdefault(path.name, path)
        if first != path:
            with suppress(Gone):
                self._problem(
                    path, f"has the name of {first} and {self._lines(path, first)}; readers see both"
                )
        elif NAME.fullmatch(segment_name(path)) is None:
            self._note(path, "not the name of a segment")
        elif home(open_directory(self._data_dir) / f"{path.name}.open") != path:
            self._note(path, "not in the directory of its date and hour")

    def _compare(self, path: Path, sealed: Path) -> None:
        """While a segment is moved to its place it has two files, of the same lines."""
        with suppress(Gone):
            lines = self._lines(path, sealed)
            if lines != _SAME:
                self._problem(path, f"has the name of {sealed} and {lines}")

    def _lines(self, one: Path, other: Path) -> str:
        """How the lines of two files compare. Raises Gone if one of them is not there any more."""
        try:
            return _SAME if _digest(self._disk, one) == _digest(self._disk, other) else "other lines"
        except Gone:
            raise
        except StorageError as e:
            return f"lines that cannot be compared ({e})"

    def _conclude(self, end: _End, tally: _Tally) -> None:
        """Count a segment, and say what is wrong with it."""
        reading, found, verdict = end.reading, end.reading.found, self._verdict
        verdict.segments += 1
        verdict.open += reading.is_open
        verdict.sealed += not reading.is_open
        verdict.commits += tally.commits
        verdict.events += tally.events
        verdict.content_bytes += tally.content_bytes
        verdict.stored_bytes += reading.chain.end + reading.tail_bytes
        source = self._source(reading.path)
        source.segments += 1
        source.events += tally.events
        error = tally.error or end.error
        if error:
            self._problem(reading.path, error)
        elif reading.is_open and found.state == "torn":
            self._note(
                reading.path,
                f"{reading.tail_bytes} bytes after the last commit, on their way or torn by a crash",
            )
        elif found.state in ("torn", "damaged"):
            self._problem(reading.path, f"{found.state}: {found.problem}")
        elif not reading.is_open and found.state != "sealed":
            self._problem(reading.path, "the footer is missing")
        elif (
            not reading.is_open and found.index is not None and found.index.fingerprints != tally.fingerprints
        ):
            self._problem(reading.path, "the index does not say what the lines say")

    def _source(self, path: Path) -> Source:
        match = NAME.fullmatch(segment_name(path))
        node, worker = (match["node"], int(match["worker"])) if match else ("", None)
        for source in self._verdict.sources:
            if (source.node, source.worker) == (node, worker):
                return source
        self._verdict.sources.append(Source(_printable(node), worker))
        return self._verdict.sources[-1]


def _whole(disk: Disk, reading: Reading) -> Iterator[Group | _End]:
    """All groups of a segment and its end. Raises Gone."""
    error = ""
    try:
        yield from reading.groups(disk)
    except Gone:
        raise
    except StorageError as e:
        error = str(e)
    yield _End(reading, error)


def _checked(task: Group | _End) -> _Tally:
    """Decompress the commits of a group, count their lines and see what the index must say; on a thread."""
    tally = _Tally()
    if isinstance(task, _End):
        return tally
    try:
        for commit, lines in task.contents():
            counted(commit, lines)
            tally.commits += 1
            tally.events += commit.events
            tally.content_bytes += commit.content_bytes
            if not task.reading.is_open:
                tally.fingerprints += fingerprints.of_lines(lines)
    except StorageError as e:
        tally.error = str(e)
    return tally


def _digest(disk: Disk, path: Path) -> bytes:
    digest = hashlib.sha256()
    for group in Reading(path).groups(disk):
        for _, lines in group.contents():
            digest.update(lines)
    return digest.digest()


def _printable(text: str | Path) -> str:
    """Also of a file name that is not UTF-8."""
    return str(text).encode(errors="backslashreplace").decode()
