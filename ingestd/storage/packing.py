"""Packing: a finished segment of small frames becomes one of large frames with the same content.

A frame per commit costs compression where commits are small: measured on tracking events, 1.22 : 1
at one event a commit, 4.5 at 16, 5.6 at 64, and 6.1 at 256 or more. Where events repeat each other far
apart, as webhooks of 10 KB do, frames of 1 MiB cost a quarter still. So a segment is packed if its
frames hold few bytes, or if that pays for its beginning, and the result is kept if it is smaller by
a tenth. It takes a better level of compression than commits do, for nobody waits for it. The packed
segment has the same name, the same lines in the same order, and a trailer a frame as ever; where one
commit ended is told by its index, for receipts name commits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import zstandard

from ingestd.errors import StorageError
from ingestd.storage.disk import Disk
from ingestd.storage.index import Index
from ingestd.storage.reading import unsealed
from ingestd.storage.segment import OPEN_SUFFIX, Chain, Commit, Walk, content, counted, walk

PACKING_SUFFIX: Final = ".packing"

_TINY_BYTES: Final = 32 * 1024
"""Of frames that hold less on average nobody need ask."""
_PACKED_BYTES: Final = 4 * 1024 * 1024
"""What a packed frame holds: more than zstd looks back on, little enough for a reader in bounded memory."""
_LEVEL: Final = 3
_KEPT_PERCENT: Final = 90


def pays(disk: Disk, path: Path, commits: int, content_bytes: int) -> bool:
    """True if packing a finished segment of so many commits and bytes of lines is worth a try.

    Raises StorageError.
    """
    if commits < 2:
        return False
    return content_bytes < commits * _TINY_BYTES or _beginning_pays(disk, path)


def _beginning_pays(disk: Disk, path: Path) -> bool:
    data = disk.read(path, 0, _PACKED_BYTES)
    parts: list[bytes] = []
    size = stored = 0
    for commit in walk(data).chain.commits:
        size += commit.content_bytes
        if size > _PACKED_BYTES:
            break
        parts.append(content(data, commit))
        stored += commit.frame_bytes
    packed = zstandard.ZstdCompressor(level=_LEVEL).compress(b"".join(parts))
    return len(parts) > 1 and len(packed) * 100 <= stored * _KEPT_PERCENT


def pack(disk: Disk, path: Path) -> Path | None:
    """Write the packed form beside a finished segment, durably; None if that saves too little.

    Raises StorageError, also if the segment does not read back as it was written.
    """
    data = disk.read(path)
    found = walk(data)
    if problem := unsealed(found):
        raise StorageError(f"{path} does not read back: {problem}")
    packed = path.with_name(path.name.removesuffix(OPEN_SUFFIX) + PACKING_SUFFIX)
    with disk.making(packed) as fd:
        size = _write_packed(disk, fd, data, found)
        if size * 100 <= len(data) * _KEPT_PERCENT:
            disk.fdatasync(fd)
            return packed
    disk.unlink(packed)
    return None


class Packer:
    """Writes a segment of large frames, commit by commit."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        """`write` takes what comes next in its file."""
        self._write = write
        self._compressor = zstandard.ZstdCompressor(
            level=_LEVEL, write_checksum=True, write_content_size=True
        )
        self._chain = Chain()
        self._parts: list[bytes] = []
        """Of commits that will be one frame."""
        self._size = self._events = self._first_ms = self._last_ms = 0

    def add(self, lines: bytes, events: int, commit: Commit) -> None:
        """The lines of a commit, or those of them that stay."""
        if not lines:
            return
        if self._parts and self._size + len(lines) > _PACKED_BYTES:
            self._write_frame()
        if not self._parts:
            self._first_ms, self._last_ms = commit.first_ms, commit.last_ms
        self._parts.append(lines)
        self._size += len(lines)
        self._events += events
        # The clock may have been set back between two commits.
        self._first_ms = min(self._first_ms, commit.first_ms)
        self._last_ms = max(self._last_ms, commit.last_ms)

    def end(self, index: bytes = b"") -> int:
        """Write what is left, the index and the footer; returns the size of all. 0: nothing was added."""
        if self._parts:
            self._write_frame()
        if not self._chain.commits:
            return 0
        ending = index + self._chain.footer()
        self._write(ending)
        return self._chain.end + len(ending)

    def _write_frame(self) -> None:
        lines = b"".join(self._parts)
        frame = self._compressor.compress(lines)
        trailer = self._chain.trailer(frame, len(lines), self._events, self._first_ms, self._last_ms)
        self._write(frame + trailer)
        self._chain.append(trailer)
        self._parts = []
        self._size = self._events = 0


def _write_packed(disk: Disk, fd: int, data: bytes, found: Walk) -> int:
    """Write the frames, trailers, index and footer; returns their size."""
    commits = found.chain.commits
    packer = Packer(partial(disk.write, fd))
    for commit in commits:
        packer.add(counted(commit, content(data, commit)), commit.events, commit)
    index = b""
    if found.index is not None:
        acknowledged = found.index.commits or tuple(commit.events for commit in commits)
        index = Index(found.index.fingerprints, acknowledged).frame()
    return packer.end(index)
