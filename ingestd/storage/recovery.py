"""What becomes of segments that were open when their process ended, or that a disk error cut short.

| found in DATA/open | done |
|--|--|
| whole commits, perhaps a footer or a torn tail | copied to a new file and sealed; tail kept as `.torn` |
| commits that have been sealed already | removed; what was refused after them is a torn tail |
| no whole commit | removed; its bytes, if any, stay as `.torn` |
| damage with commits after it | nothing is repaired: moved to DATA/quarantine, reported |
| commits whose sealed name is another segment's | the same: nothing is overwritten |
| what cannot be read, or has a foreign name | left in place, reported |

The good commits are copied, never synced in place: after a failed fsync the kernel may take lost
pages for clean ones. The original goes last, so a crash at any step is mended by the next run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ingestd.errors import StorageError
from ingestd.storage import fingerprints
from ingestd.storage.disk import TEMPORARY_PATTERN, Disk
from ingestd.storage.index import Index
from ingestd.storage.packing import PACKING_SUFFIX
from ingestd.storage.segment import (
    OPEN_SUFFIX,
    TORN_SUFFIX,
    Chain,
    Commit,
    Walk,
    content,
    counted,
    footer_totals,
    open_directory,
    publish,
    sealed_path,
    trailers,
    walk,
)

_COPY_SUFFIX = ".recovering"
LEFTOVERS: Final = (f"*{_COPY_SUFFIX}", f"*{PACKING_SUFFIX}", TEMPORARY_PATTERN)
"""Half-made files in DATA/open, of a server that runs or was killed; the next start removes them."""
_RECOVERED = "recovered"
_REMOVED = "removed"
_QUARANTINED = "quarantined"
_LEFT = "left in place"
ACTIONS: Final = (_RECOVERED, _REMOVED, _QUARANTINED, _LEFT)
"""All that can be done with a file."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was done with one file in DATA/open; `in_doubt_bytes` could not be read as whole commits.

    `in_doubt` says what is known of these bytes: which commits, how many events.
    """

    path: Path
    action: str
    commits: int = 0
    events: int = 0
    in_doubt_bytes: int = 0
    in_doubt: str = ""
    problem: str = ""

    @property
    def is_left(self) -> bool:
        """True if nothing could be done yet."""
        return self.action == _LEFT

    def __str__(self) -> str:
        text = f"{self.path.name}: {self.action}, {self.commits} whole commits with {self.events} events"
        if self.in_doubt_bytes:
            text += f", {self.in_doubt_bytes} bytes after them in doubt"
        if self.in_doubt:
            text += f" ({self.in_doubt})"
        return f"{text}: {self.problem}" if self.problem else text


class Recoveries:
    """What has been recovered so far, in numbers."""

    def __init__(self) -> None:
        self.files = dict.fromkeys(ACTIONS, 0)
        """By what was done with them."""
        self.events = 0
        """In whole commits. Most of them had been counted as stored when they were written."""
        self.in_doubt_bytes = 0

    def add(self, recovered: Recovered) -> None:
        """Count one file."""
        self.files[recovered.action] += 1
        self.events += recovered.events
        self.in_doubt_bytes += recovered.in_doubt_bytes


def recover_all(
    disk: Disk, data_dir: Path, is_ours: Callable[[str], bool] = lambda _: True
) -> list[Recovered]:
    """Deal with the files in DATA/open whose names are ours; nobody may write to them any more.

    Raises StorageError.
    """
    directory = open_directory(data_dir)
    if not disk.is_directory(directory):
        return []
    # A run that was killed may not have come to this: what it removed must not come back.
    disk.sync_directory(directory)
    for pattern in LEFTOVERS:
        for leftover in disk.list(directory, pattern):
            if is_ours(leftover.name):
                disk.unlink(leftover)
    done = []
    for path in disk.list(directory, f"*{OPEN_SUFFIX}"):
        if not is_ours(path.name):
            continue
        try:
            done.append(recover(disk, data_dir, path))
        except StorageError as e:
            # One bad file must not keep the server from starting.
            done.append(Recovered(path, _LEFT, problem=str(e)))
    return done


def recover(disk: Disk, data_dir: Path, path: Path) -> Recovered:
    """Deal with one segment that nobody writes to any more. Raises StorageError."""
    name = path.name.removesuffix(OPEN_SUFFIX)
    target = sealed_path(data_dir, name)
    data = disk.read(path)
    found = walk(data)
    chain, commits = found.chain, found.chain.commits
    tail = data[chain.end :].rstrip(b"\0") if found.state in ("torn", "damaged") else b""
    in_doubt = _in_doubt(data, chain) if tail else ""

    def report(action: str, problem: str = found.problem) -> Recovered:
        events = sum(commit.events for commit in commits)
        return Recovered(path, action, len(commits), events, len(tail), in_doubt, problem)

    if found.state == "damaged":
        _quarantine(disk, data_dir, path, data)
        return report(_QUARANTINED)
    if commits and disk.exists(target):
        held = _held(disk.read(target), data, commits)
        if not held:
            _quarantine(disk, data_dir, path, data)
            return report(_QUARANTINED, "another segment of this name has been sealed")
        if held < len(commits):
            refused = sum(commit.events for commit in commits[held:])
            in_doubt = f"commits {held} to {len(commits) - 1}, {refused} events: refused, and cut off before"
            tail = data[commits[held].offset :].rstrip(b"\0")
            commits = commits[:held]
    if tail:
        disk.replace_file(_place(disk, path.with_name(name + TORN_SUFFIX), tail), tail)
    if commits:
        _seal(disk, data_dir, path, name, found, data)
    disk.unlink(path)
    disk.sync_directory(path.parent)
    return report(_RECOVERED if commits else _REMOVED)


def _in_doubt(data: bytes, chain: Chain) -> str:
    """What the trailers and the footer behind the good commits tell of what is not good."""
    first = len(chain.commits)
    told = footer_totals(data, chain.end)
    if told is not None and told[0] > first:
        return f"commits {first} to {told[0] - 1}, {told[1] - chain.events} events"
    later = {sequence: events for _, sequence, events in trailers(data, chain.end) if sequence >= first}
    if not later:
        return f"commit {first}, perhaps more"
    last, events = max(later), sum(later.values())
    if len(later) == last - first + 1:
        return f"commits {first} to {last}, {events} events"
    return f"commits {first} to {last}, {events} events in {len(later)} of them, the others not known"


def _seal(disk: Disk, data_dir: Path, path: Path, name: str, found: Walk, data: bytes) -> None:
    """Have the good commits of these bytes at their sealed place, durably."""
    target = sealed_path(data_dir, name)
    copy = path.with_name(name + _COPY_SUFFIX)
    if not disk.exists(target):
        chain = found.chain
        _write_whole(disk, copy, data[: chain.end] + _index(found, data) + chain.footer())
        publish(disk, data_dir, copy, name)
    else:
        # It got there before a crash or an error, but perhaps not durably.
        disk.make_directory(target.parent)
        disk.sync_directory(target.parent)
        disk.unlink(copy)
    disk.unlink(path.with_name(name + PACKING_SUFFIX))


def _index(found: Walk, data: bytes) -> bytes:
    """The frame of the index: as it was written, or else made of the lines."""
    if found.index is not None:
        return found.index.frame()
    try:
        parts = [fingerprints.of_lines(counted(c, content(data, c))) for c in found.chain.commits]
    except StorageError:
        # A commit is not what its trailer says, which `verify` tells; `find` reads all that can be read.
        return b""
    return Index(b"".join(parts)).frame()


def _held(sealed: bytes, data: bytes, commits: list[Commit]) -> int:
    """How many of these commits are in the sealed segment of the same name; 0: it is another segment.

    All, if it was made of this file: it may be the packed form, and hold more, if a power cut has
    taken from this file what the copy has kept. All but the last if those were refused and cut off,
    and the power cut has undone that.
    """
    found = walk(sealed)
    sealed_bytes = sum(commit.content_bytes for commit in found.chain.commits)
    held = held_bytes = 0
    while held < len(commits) and held_bytes + commits[held].content_bytes <= sealed_bytes:
        held_bytes += commits[held].content_bytes
        held += 1
    if found.state != "sealed" or (held < len(commits) and held_bytes < sealed_bytes):
        return 0
    try:
        ours = _digest(data, commits, held_bytes)
        return held if _digest(sealed, found.chain.commits, held_bytes) == ours else 0
    except StorageError:
        return 0


def _digest(data: bytes, commits: list[Commit], size: int) -> bytes:
    """Of the first `size` bytes of the lines. Raises StorageError if a frame is not what its trailer says."""
    digest = hashlib.sha256()
    for commit in commits:
        if size <= 0:
            break
        digest.update(counted(commit, content(data, commit))[:size])
        size -= commit.content_bytes
    return digest.digest()


def _write_whole(disk: Disk, path: Path, data: bytes) -> None:
    """Make a file with these bytes, durably, or none."""
    with disk.making(path) as fd:
        disk.write(fd, data)
        disk.fdatasync(fd)


def _quarantine(disk: Disk, data_dir: Path, path: Path, data: bytes) -> None:
    directory = data_dir / "quarantine"
    disk.make_directory(directory)
    place = _place(disk, directory / path.name, data)
    if not disk.exists(place):
        disk.move(path, place)
    else:
        disk.sync_directory(directory)
        disk.unlink(path)
        disk.sync_directory(path.parent)


def _place(disk: Disk, wanted: Path, data: bytes) -> Path:
    """Where to keep `data`: under the wanted name, or with a number if other bytes have that name."""
    path, number = wanted, 0
    while disk.exists(path) and disk.read(path) != data:
        number += 1
        path = wanted.with_name(f"{wanted.name}.{number}")
    return path
