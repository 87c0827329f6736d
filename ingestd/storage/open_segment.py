"""The segment that is being written: one commit after the other, then index and footer, then never again."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import zstandard

from ingestd.errors import StorageError
from ingestd.storage import fingerprints
from ingestd.storage.disk import Disk
from ingestd.storage.index import Index
from ingestd.storage.segment import OPEN_SUFFIX, ROOM_HEAD_BYTES, Chain, open_directory, room_head

_ROOM_BYTES_MIN: Final = 64 * 1024
_ROOM_BYTES_MAX: Final = 1024 * 1024
_LARGE_BYTES: Final = 256 * 1024
"""A commit of this size takes as long to sync with room as without."""
UNINDEXED_BYTES_MAX: Final = 256 * 1024
"""Of lines whose ids wait for others, for the fingerprints of many are made in half the time."""


class OpenSegment:
    """The open segment of one worker. Not thread-safe: the flusher owns it."""

    def __init__(self, disk: Disk, data_dir: Path, name: str, zstd_level: int) -> None:
        """Create the file, durably. Raises StorageError."""
        self.name = name
        self.chain = Chain()
        self._fingerprints = bytearray()
        self._unindexed_ids: list[str] = []
        self._unindexed_bytes = 0
        self._disk = disk
        self._compressor = zstandard.ZstdCompressor(
            level=zstd_level, write_checksum=True, write_content_size=True
        )
        self._path = open_directory(data_dir) / (name + OPEN_SUFFIX)
        self._fd = disk.create(self._path)
        self._file_bytes = 0
        """Good commits and the room after them, if any has been made."""
        self._closed = False
        try:
            disk.sync_directory(self._path.parent)
        except StorageError:
            self._close()
            with suppress(StorageError):
                disk.unlink(self._path)
            raise

    @property
    def size(self) -> int:
        """Bytes of good commits."""
        return self.chain.end

    def commit(self, lines: bytes, message_ids: list[str], first_ms: int, last_ms: int, *, sync: bool) -> int:
        """Write one commit, and with `sync` return when it is on stable storage.

        `message_ids` are those of the lines. Returns how many nanoseconds the disk has taken. Raises
        StorageError; then the segment must be abandoned and not be used again.
        """
        self._unindexed_ids += message_ids
        self._unindexed_bytes += len(lines)
        if self._unindexed_bytes >= UNINDEXED_BYTES_MAX:
            self._index_ids()
        frame = self._compressor.compress(lines)
        trailer = self.chain.trailer(frame, len(lines), len(message_ids), first_ms, last_ms)
        data = frame + trailer
        started_ns = time.monotonic_ns()
        if sync:
            self._disk.write_through(self._fd, data + self._room(len(data)), self.size)
        else:
            self._disk.write(self._fd, data, self.size)
        took_ns = time.monotonic_ns() - started_ns
        self.chain.append(trailer)
        return took_ns

    def _index_ids(self) -> None:
        self._fingerprints += fingerprints.of_ids(self._unindexed_ids)
        self._unindexed_ids = []
        self._unindexed_bytes = 0

    def _room(self, size: int) -> bytes:
        """What is written behind a commit of this size: the head of the room that is left, or more room.

        A sync that finds neither size nor blocks of the file changed has no metadata to write. Measured
        with ext4 and 3.7 KB at a time: 46 µs of CPU and 120 µs in all, the making of room included,
        against 82 and 230. The first commit of a segment may be its only one; then the room grows
        with the segment.
        """
        end = self.size + size
        left = self._file_bytes - end
        if left >= ROOM_HEAD_BYTES:
            return room_head(left)
        if not self.size or (size >= _LARGE_BYTES and left <= 0):
            return b""
        room = min(_ROOM_BYTES_MAX, max(_ROOM_BYTES_MIN, self.size))
        self._file_bytes = end + room
        return room_head(room) + bytes(room - ROOM_HEAD_BYTES)

    def finish(self) -> Path:
        """Write index and footer, and make all durable; nobody writes to it any more. Raises StorageError."""
        if self._file_bytes > self.size:
            self._disk.truncate(self._fd, self.size)
        self._index_ids()
        ending = Index(bytes(self._fingerprints)).frame() + self.chain.footer()
        self._disk.write(self._fd, ending, self.size)
        self._disk.fdatasync(self._fd)
        self._close()
        return self._path

    def abandon(self) -> Path:
        """Give the file up where its last good commit ends; it is never synced again.

        Cutting keeps a batch that was answered 500 from being read back. If the disk refuses even
        that, recovery may find the batch whole: a 500 says 'not promised', not 'not there'.
        """
        if not self._closed:
            with suppress(StorageError):
                self._disk.truncate(self._fd, self.size)
            self._close()
        return self._path

    def _close(self) -> None:
        """Once only: afterwards the number may be a connection's."""
        self._closed = True
        self._disk.close(self._fd)
