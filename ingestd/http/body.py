"""The body of one request while it arrives: decompressed if need be, counted, never beyond its limit."""

from __future__ import annotations

from typing import Final

from ingestd.errors import too_large
from ingestd.http.decoder import Decoder

_SMALL_BYTES_MAX: Final = 4096


class Body:
    """Bytes in, the whole body out."""

    __slots__ = ("_decoder", "_limit_bytes", "_parts", "charged_bytes", "wire_bytes")

    def __init__(self, limit_bytes: int, coding: type[Decoder] | None) -> None:
        self._limit_bytes = limit_bytes
        self._decoder = coding(limit_bytes) if coding is not None else None
        self._parts: list[bytes | bytearray] = []
        self.wire_bytes = 0
        """As sent, without chunk framing."""
        self.charged_bytes = 0
        """What the budget holds for it."""

    @property
    def size(self) -> int:
        """Bytes held."""
        return self.wire_bytes if self._decoder is None else self._decoder.held_bytes

    def feed(self, data: bytes) -> None:
        """Take the next piece. Raises Rejection (400, 413)."""
        self.wire_bytes += len(data)
        if self._decoder is not None:
            self._decoder.feed(data)
        elif self.wire_bytes > self._limit_bytes:
            raise too_large(self._limit_bytes)
        elif len(data) > _SMALL_BYTES_MAX or not self._parts:
            self._parts.append(data)
        else:
            self._gather(data)

    def _gather(self, data: bytes) -> None:
        """Small pieces share a buffer: single bytes as parts would cost fifty times what they hold."""
        last = self._parts[-1]
        if not isinstance(last, bytearray):
            last = bytearray()
            self._parts.append(last)
        last += data

    def finish(self) -> bytes | bytearray:
        """The whole body. Raises Rejection (400) if a compressed one is not at its end."""
        if self._decoder is not None:
            return self._decoder.finish()
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
