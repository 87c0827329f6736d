"""The transport without a socket."""

from __future__ import annotations

import asyncio
from typing import Final

PEERNAME: Final = ("192.0.2.1", 5555)
_HIGH_WATER_BYTES: Final = 64 * 1024


class MockTransport(asyncio.Transport):
    """Keeps what is written. While `client_reads` is False it piles up and writing is paused."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__({"peername": PEERNAME})
        self.received = bytearray()
        self.unread = bytearray()
        self.client_reads = True
        self.reading = True
        self.eof_written = False
        self.closing = False
        self.aborted = False
        self._protocol = protocol
        self._writing_paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.eof_written:
            raise RuntimeError("Cannot call write() after write_eof()")
        assert not self.closing, "write after close"
        if self.client_reads:
            self.received += data
            return
        self.unread += data
        if len(self.unread) > _HIGH_WATER_BYTES and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()

    def read_on(self) -> None:
        """The client reads all that has piled up, and goes on reading."""
        self.client_reads = True
        self.received += self.unread
        self.unread.clear()
        if self._writing_paused:
            self._writing_paused = False
            self._protocol.resume_writing()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_reading(self) -> bool:
        return self.reading and not self.closing

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof_written = True

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True
        self.unread.clear()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The limit is the same here; `read_on` resumes when all is read, as low=0 asks for."""
        assert (high, low) == (_HIGH_WATER_BYTES, 0)

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return len(self.unread)
