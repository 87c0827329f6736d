"""Small segments for the tests, made by the real writer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ingestd.events import Batch
from ingestd.storage.disk import Disk
from ingestd.storage.fingerprints import message_ids
from ingestd.storage.open_segment import OpenSegment
from ingestd.storage.segment import OPEN_SUFFIX, open_directory, publish
from tests.support.disk import FaultyDisk

DATA = Path("/disk")
NAME = "20260102T030405.678Z-node-w0-000001"
FIRST_MS = 1_767_323_045_678
SEALED = DATA / "segments" / "date=2026-01-02" / "hour=03" / f"{NAME}.ndjson.zst"
OPEN = DATA / "open" / (NAME + OPEN_SUFFIX)


def lines(count: int, start: int = 0) -> bytes:
    """That many different NDJSON lines, each with its number as id."""
    return b"".join(b'{"event":"e","messageId":"%d"}\n' % n for n in range(start, start + count))


def ids(content: bytes) -> list[str]:
    """What a batch of these lines says of their ids; other lines than such have none."""
    return message_ids(content)


def batch(start: int, count: int = 1, received_ms: int = FIRST_MS) -> Batch:
    """A batch of lines that start at a number."""
    return Batch(lines(count, start), [str(n) for n in range(start, start + count)], received_ms)


def new_disk() -> FaultyDisk:
    """An empty disk with its open/ directory, all durable."""
    disk = FaultyDisk(DATA)
    disk.make_directory(open_directory(DATA))
    return disk


class Sample(OpenSegment):
    """An open segment that gets to its place without a sealer."""

    def __init__(self, disk: Disk, data_dir: Path, name: str, zstd_level: int) -> None:
        super().__init__(disk, data_dir, name, zstd_level)
        self.publish = partial(publish, disk, data_dir)

    def seal(self) -> Path:
        """Finish it and move the file to its place."""
        return self.publish(self.finish(), self.name)


def write(disk: Disk, data_dir: Path, commits: Sequence[bytes], name: str = NAME) -> Sample:
    """An open segment with these commits, each synced."""
    segment = Sample(disk, data_dir, name, zstd_level=3)
    for number, content in enumerate(commits):
        at = FIRST_MS + 1000 * number
        segment.commit(content, ids(content), at, at + 7, sync=True)
    return segment


def open_bytes(commits: Sequence[bytes]) -> bytes:
    """The bytes of an open segment, without the room behind them."""
    disk = new_disk()
    size = write(disk, DATA, commits).size
    return disk.read(OPEN)[:size]


def roomy_bytes(commits: Sequence[bytes]) -> bytes:
    """The bytes of an open segment of several commits, and the room behind them."""
    disk = new_disk()
    size = write(disk, DATA, commits).size
    data = disk.read(OPEN)
    assert len(data) > size
    return data


def sealed_bytes(commits: Sequence[bytes]) -> bytes:
    """The bytes of a sealed segment."""
    disk = new_disk()
    return disk.read(write(disk, DATA, commits).seal())


def put(disk: Disk, path: Path, data: bytes) -> None:
    """Make a file with these bytes, durably."""
    disk.make_directory(path.parent)
    disk.replace_file(path, data)


def disk_with(data: bytes, path: Path = OPEN) -> FaultyDisk:
    """A disk with these bytes in an open segment."""
    disk = new_disk()
    put(disk, path, data)
    return disk


def tree(disk: Disk, data_dir: Path = DATA) -> dict[str, bytes]:
    """Every file below the directory, by its path."""
    return {str(path.relative_to(data_dir)): disk.read(path) for path in disk.list(data_dir, "*", deep=True)}
