"""What is delivered of a segment: its file, byte for byte, once it is certain that it stays as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ingestd.errors import Damaged, StorageError
from ingestd.storage.disk import Disk
from ingestd.storage.reading import Gone, Reading, unsealed
from ingestd.storage.segment import Commit, Walk, walk

PART_BYTES: Final = 8 * 1024 * 1024
"""Of what is too large to go at once. S3 wants 5 MiB at least, and 10,000 parts at most."""


@dataclass(frozen=True, slots=True)
class Content:
    """A sealed segment that was found whole."""

    disk: Disk
    path: Path
    size: int
    sha256: str
    data: bytes | None
    """All of it, if it is small enough to go at once."""

    def part(self, offset: int, size: int) -> bytes:
        """So many bytes from there on. Raises StorageError."""
        return self.disk.read(self.path, offset, size)


def load(disk: Disk, path: Path, at_once_bytes_max: int) -> Content:
    """Read and check a sealed segment. Raises StorageError, Damaged, and Gone."""
    with _durable(disk, path) as size:
        if size <= at_once_bytes_max:
            data = disk.read(path)
            _require_sealed(path, walk(data))
            return Content(disk, path, len(data), hashlib.sha256(data).hexdigest(), data)
        _require_sealed(path, _walked(disk, path))
        return Content(disk, path, *_digest(disk, path), data=None)


def commits(disk: Disk, path: Path) -> tuple[int, list[Commit]]:
    """Size and commits of a sealed segment, once it is found whole. Raises as `load` does."""
    with _durable(disk, path) as size:
        found = _walked(disk, path)
        _require_sealed(path, found)
        return size, found.chain.commits


@contextmanager
def _durable(disk: Disk, path: Path) -> Iterator[int]:
    """The file's size, when it is certain that it stays. Raises Gone in place of errors if it does not.

    Its directory is synced first: what is seen there may not be durable yet, and after a power cut
    the same events may be sealed in other frames. Delivered before, they would be there twice.
    """
    try:
        disk.sync_directory(path.parent)
        told = disk.size_and_time(path)
        if told is None:
            raise Gone(f"{path} is gone")
        yield told[0]
    except StorageError as e:
        if disk.exists(path):
            raise
        raise Gone(f"{path} is gone") from e


def _walked(disk: Disk, path: Path) -> Walk:
    """In bounded memory."""
    reading = Reading(path)
    for _ in reading.groups(disk):
        pass
    return reading.found


def _require_sealed(path: Path, found: Walk) -> None:
    if problem := unsealed(found):
        raise Damaged(f"{path} is damaged: {problem}; 'ingestd verify' tells more")


def _digest(disk: Disk, path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file that is too large to be held."""
    digest, size = hashlib.sha256(), 0
    while part := disk.read(path, size, PART_BYTES):
        digest.update(part)
        size += len(part)
    return size, digest.hexdigest()
