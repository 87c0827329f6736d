"""Reading segments of any size in bounded memory, on all cores: a few commits at a time, in order.

A segment is read in pieces, each walked on from where the one before ended. The frames are
decompressed on threads, for zstd lets go of the interpreter lock. Measured on 2 cores, GB of lines
a second: frames of 8 MiB 1.6 on one thread and 2.9 on two, as on two processes; frames of 24 KB 1.1,
1.4 and 2.1. Segments of tiny frames are packed when they are sealed, so processes would not pay.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

import zstandard

from ingestd.errors import Damaged, StorageError
from ingestd.storage.disk import Disk
from ingestd.storage.segment import (
    OPEN_SUFFIX,
    SUFFIX,
    Chain,
    Commit,
    Walk,
    content,
    counted,
    sealed_path,
    walk,
)

_PIECE_BYTES: Final = 8 * 1024 * 1024
"""What is read of a file at once, unless a commit is larger."""
_GROUP_BYTES: Final = 4 * 1024 * 1024
"""Lines that are decompressed at once, unless a commit has more: some milliseconds of work."""
_AHEAD_BYTES_MAX: Final = 64 * 1024 * 1024
"""Lines that may be held ready: work for all cores while the next piece is read and walked."""
_DOUBTS_MAX: Final = 3
"""How often damage in an open segment is looked at again before it is believed."""
_THREADS_MAX: Final = 8
"""Walking is one thread's work, and cannot keep more than these busy."""


class Gone(StorageError):
    """Not there any more: sealed, or removed by a consumer, or because it had no whole commit."""


@dataclass(frozen=True, slots=True)
class Group:
    """Commits that stand one after the other in a segment, and the bytes they stand in."""

    reading: Reading
    data: bytes
    base: int
    """The offset of `data` in the file."""
    commits: list[Commit]
    content_bytes: int
    skip: int = 0
    """So many bytes of the first commit's lines are not wanted."""

    @property
    def events(self) -> int:
        """Of all its commits."""
        return sum(commit.events for commit in self.commits)

    def contents(self) -> Iterator[tuple[Commit, bytes]]:
        """Each commit and its lines. Raises StorageError where they are not what the trailer says."""
        decompressor = zstandard.ZstdDecompressor()
        data, skip = memoryview(self.data), self.skip
        for commit in self.commits:
            lines = content(data, commit, self.base, decompressor)
            yield commit, lines[skip:] if skip else lines
            skip = 0


class Reading:
    """How far one segment has been read, wherever its file stands now."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.chain = Chain()
        self.shown_bytes = 0
        """Bytes of lines that need not be read again; its owner counts them."""
        self.found = Walk(self.chain, "open")
        """What the last walk found."""
        self.file_bytes = 0
        """The end of what has been looked at, good or not."""
        self.tail_bytes = 0
        """What of it stands behind the last commit and is not room for the next."""
        self._skip = 0
        self._has_moved = False

    @property
    def is_open(self) -> bool:
        """True if it is read where it is written."""
        return is_open(self.path)

    @property
    def may_grow(self) -> bool:
        """True if what follows the last commit may be a commit on its way."""
        return self.is_open and self.found.state in ("open", "torn")

    def groups(self, disk: Disk) -> Iterator[Group]:
        """What has been added since the last time; then `found` tells how it ends.

        Raises StorageError, and Gone if there is no such file any more.
        """
        size = _PIECE_BYTES
        doubts = 0
        while True:
            base, before = self.chain.end, len(self.chain.commits)
            data = read(disk, self.path, base, size)
            self.found = walk(data, self.chain)
            self.file_bytes = base + len(data)
            tail = b"" if self.found.state == "open" else data[self.chain.end - base :]
            self.tail_bytes = len(tail.rstrip(b"\0"))
            commits = self.chain.commits[before:]
            if self._has_moved and before and not commits and self.found.state != "sealed":
                self._start_again()
                continue
            self._has_moved = False
            yield from self._grouped(data, base, commits)
            if self.found.state == "damaged" and self.is_open and doubts < _DOUBTS_MAX:
                # The writer may have gone on while it was read: what is old before what is new is no damage.
                doubts = 0 if commits else doubts + 1
                continue
            if len(data) < size or (self.found.state == "damaged" and not commits):
                return
            # What the piece has cut through is at the beginning of the next, or is larger than a piece.
            size = _PIECE_BYTES if commits else 2 * size

    def move(self) -> bool:
        """Go on with the sealed file, after the open one is gone; False if there is no other."""
        before, self.path = self.path, home(self.path)
        self._has_moved = True
        return self.path != before

    def _start_again(self) -> None:
        """The sealed file does not go on as the open one did: its frames have been packed anew.

        Its lines are the same, and so their place tells where to go on.
        """
        self.chain = Chain()
        self._skip = self.shown_bytes
        self._has_moved = False

    def _grouped(self, data: bytes, base: int, commits: list[Commit]) -> Iterator[Group]:
        group: list[Commit] = []
        size = skip = 0
        for commit in commits:
            if self._skip >= commit.content_bytes:
                self._skip -= commit.content_bytes
                continue
            if group and size + commit.content_bytes > _GROUP_BYTES:
                yield Group(self, data, base, group, size, skip)
                group, size, skip = [], 0, 0
            if self._skip:
                skip, self._skip = self._skip, 0
            group.append(commit)
            size += commit.content_bytes
        if group:
            yield Group(self, data, base, group, size, skip)


def read(disk: Disk, path: Path, offset: int, size: int) -> bytes:
    """A part of a file. Raises StorageError, and Gone if there is no such file any more."""
    try:
        return disk.read(path, offset, size)
    except StorageError as e:
        if disk.exists(path):
            raise
        raise Gone(f"{path} is gone") from e


def whole(disk: Disk, path: Path) -> Iterator[tuple[Commit, bytes]]:
    """Each commit of a sealed segment and its lines, in bounded memory.

    Raises StorageError, Damaged, also at its end if it is not whole, and Gone.
    """
    reading = Reading(path)
    for group in reading.groups(disk):
        for commit, lines in group.contents():
            yield commit, counted(commit, lines)
    if problem := unsealed(reading.found):
        raise Damaged(f"{path} is damaged: {problem}")


def unsealed(found: Walk) -> str:
    """Why what was walked is not a whole sealed segment; "" if it is one."""
    return "" if found.state == "sealed" else found.problem or "its footer is missing"


def is_open(path: Path) -> bool:
    """True for the file of a segment that is being written, or waits to be sealed."""
    return path.name.endswith(OPEN_SUFFIX)


def segment_name(path: Path) -> str:
    """A segment's name, which its open and its sealed file share."""
    return path.name.removesuffix(".open").removesuffix(SUFFIX)


def home(path: Path) -> Path:
    """Where a segment is, or will be, once it is sealed: the same for its open and its sealed file."""
    if is_open(path):
        with suppress(StorageError):
            return sealed_path(path.parent.parent, segment_name(path))
    return path


class _Sized(Protocol):
    @property
    def content_bytes(self) -> int: ...


_Task = TypeVar("_Task", bound=_Sized)
_Result = TypeVar("_Result")


def in_order(
    tasks: Iterable[_Task], work: Callable[[_Task], _Result]
) -> Generator[tuple[_Task, _Result], None, None]:
    """Each task and what `work` made of it on a thread, in order; few enough at once to be held in memory."""
    threads = min(_THREADS_MAX, len(os.sched_getaffinity(0)))
    waiting: deque[tuple[_Task, Future[_Result]]] = deque()
    ahead_bytes = 0
    pool = ThreadPoolExecutor(threads, "reader")
    try:
        for task in tasks:
            while waiting and ahead_bytes + task.content_bytes > _AHEAD_BYTES_MAX:
                done, future = waiting.popleft()
                ahead_bytes -= done.content_bytes
                yield done, future.result()
            waiting.append((task, pool.submit(work, task)))
            ahead_bytes += task.content_bytes
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
