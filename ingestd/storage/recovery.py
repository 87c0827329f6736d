"""What becomes of segments that were open when their process ended, or that a disk error cut short.

| found in DATA/open | done |
|--|--|
| whole commits, perhaps a torn tail | commits copied to a new file and sealed; tail kept as `.torn` |
| a whole footer | synced and moved to its sealed place |
| no whole commit | removed; its bytes, if any, stay as `.torn` |
| damage with commits after it | nothing is repaired: moved to DATA/quarantine, reported |

The good commits are copied, never synced in place: after a failed fsync the kernel may take lost
pages for clean ones. The original goes last, so a crash at any step is mended by the next run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ingestd.storage.disk import Disk
from ingestd.storage.segment import (
    OPEN_SUFFIX,
    TORN_SUFFIX,
    open_directory,
    publish,
    walk,
)

_COPY_SUFFIX = ".recovering"


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was done with one segment; `in_doubt_bytes` could not be read as whole commits."""

    name: str
    action: str
    commits: int
    events: int
    in_doubt_bytes: int
    problem: str

    def __str__(self) -> str:
        text = f"{self.name}: {self.action}, {self.commits} commits with {self.events} events kept"
        if self.in_doubt_bytes:
            text += f", {self.in_doubt_bytes} bytes in doubt after commit {self.commits - 1} ({self.problem})"
        return text


def recover_all(disk: Disk, data_dir: Path) -> list[Recovered]:
    """Deal with everything in DATA/open; only while no worker writes there. Raises StorageError."""
    directory = open_directory(data_dir)
    for leftover in disk.list(directory, f"*{_COPY_SUFFIX}"):
        disk.unlink(leftover)
    return [recover(disk, data_dir, path) for path in disk.list(directory, f"*{OPEN_SUFFIX}")]


def recover(disk: Disk, data_dir: Path, path: Path) -> Recovered:
    """Deal with one segment that nobody writes to any more. Raises StorageError."""
    name = path.name.removesuffix(OPEN_SUFFIX)
    data = disk.read(path)
    found = walk(data)
    chain = found.chain
    tail = data[chain.end :] if found.state != "sealed" else b""

    def report(action: str) -> Recovered:
        return Recovered(name, action, len(chain.commits), chain.events, len(tail), found.problem)

    if found.state == "damaged":
        quarantine = data_dir / "quarantine"
        disk.make_directory(quarantine)
        disk.rename(path, quarantine / path.name)
        disk.sync_directory(quarantine)
        disk.sync_directory(path.parent)
        return report("quarantined")
    if found.state == "sealed":
        disk.sync_file(path)
        publish(disk, data_dir, path, name)
        return report("sealed")
    if tail:
        disk.replace_file(path.with_name(name + TORN_SUFFIX), tail)
    if chain.commits:
        copy = path.with_name(name + _COPY_SUFFIX)
        disk.unlink(copy)
        fd = disk.create(copy)
        try:
            disk.write(fd, data[: chain.end] + chain.footer())
            disk.fdatasync(fd)
        finally:
            disk.close(fd)
        publish(disk, data_dir, copy, name)
    disk.unlink(path)
    disk.sync_directory(path.parent)
    return report("recovered" if chain.commits else "removed")
