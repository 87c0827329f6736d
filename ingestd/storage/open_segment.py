"""The segment that is being written: one commit after the other, then index and footer, then never again."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import zstandard

from ingestd.errors import StorageError
from ingestd.storage import fingerprints
from ingestd.storage.disk import Disk
from ingestd.storage.index import Index
from ingestd.storage.segment import OPEN_SUFFIX, Chain, open_directory


class OpenSegment:
    """The open segment of one worker. Not thread-safe: the flusher owns it."""

    def __init__(self, disk: Disk, data_dir: Path, name: str, zstd_level: int) -> None:
        """Create the file, durably. Raises StorageError."""
        self.name = name
        self.chain = Chain()
        self._fingerprints = bytearray()
        self._disk = disk
        self._compressor = zstandard.ZstdCompressor(
            level=zstd_level, write_checksum=True, write_content_size=True
        )
        self._path = open_directory(data_dir) / (name + OPEN_SUFFIX)
        self._fd = disk.create(self._path)
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
        found = fingerprints.of_ids(message_ids)
        frame = self._compressor.compress(lines)
        trailer = self.chain.trailer(frame, len(lines), len(message_ids), first_ms, last_ms)
        write = self._disk.write_through if sync else self._disk.write
        started_ns = time.monotonic_ns()
        write(self._fd, frame + trailer)
        took_ns = time.monotonic_ns() - started_ns
        self.chain.append(trailer)
        self._fingerprints += found
        return took_ns

    def finish(self) -> Path:
        """Write index and footer, and make all durable; nobody writes to it any more. Raises StorageError."""
        self._disk.write(self._fd, Index(bytes(self._fingerprints)).frame() + self.chain.footer())
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
