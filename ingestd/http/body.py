"""The body of one request while it arrives: inflated if need be, counted, never beyond its limit.

Pieces are gathered in one buffer: a list of them would let a client that sends single bytes cost
fifty times what it sends.
"""

from __future__ import annotations

from ingestd.errors import too_large
from ingestd.http.inflate import Gunzip


class Body:
    """Bytes in, the whole inflated body out."""

    __slots__ = ("_buffer", "_gunzip", "_limit_bytes", "charged_bytes", "wire_bytes")

    def __init__(self, limit_bytes: int, *, is_gzip: bool) -> None:
        self._limit_bytes = limit_bytes
        self._gunzip = Gunzip(limit_bytes) if is_gzip else None
        self._buffer: bytes | bytearray = b""
        self.wire_bytes = 0
        """As sent, without chunk framing."""
        self.charged_bytes = 0
        """What the budget holds for it."""

    @property
    def size(self) -> int:
        """Bytes held, inflated."""
        return self.wire_bytes if self._gunzip is None else self._gunzip.inflated_bytes

    def feed(self, data: bytes) -> None:
        """Take the next piece. Raises Rejection (400, 413)."""
        self.wire_bytes += len(data)
        if self._gunzip is not None:
            self._gunzip.feed(data)
        elif self.wire_bytes > self._limit_bytes:
            raise too_large(self._limit_bytes)
        elif not self._buffer:
            self._buffer = data
        else:
            if isinstance(self._buffer, bytes):
                self._buffer = bytearray(self._buffer)
            self._buffer += data

    def finish(self) -> bytes | bytearray:
        """The whole body. Raises Rejection (400) if a gzip stream is not at its end."""
        return self._buffer if self._gunzip is None else self._gunzip.finish()
