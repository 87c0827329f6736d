"""What the ways to decompress a body share: a running count, so that output never passes the limit by
more than one buffer, and errors that say which coding they are about.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final

from ingestd.errors import Rejection, invalid_event, too_large

BUFFER_BYTES: Final = 1024 * 1024
_PIECE_BYTES: Final = 16 * 1024


def compressed_bytes_max(limit_bytes: int) -> int:
    """The most that a compressed body of `limit_bytes` may weigh itself.

    Stored blocks make a body larger than what it holds by less than 1/1000 (RFC 1951 §3.2.4, RFC 8878
    §3.1.1.2); without this bound, what is empty would be read without end and never inflate to a byte.
    """
    return limit_bytes + limit_bytes // 1000 + 1024


class Decoder(ABC):
    """One compressed body: bytes in, the whole out.

    It is made of streams (a member, a frame), each read by an object with the interface of zlib's
    decompressobj.
    """

    __slots__ = ("_fed_bytes", "_limit_bytes", "_output", "_stream", "inflated_bytes")

    name: ClassVar[str]
    """Of the coding, as errors say it."""
    errors: tuple[type[Exception], ...]
    """What a stream raises."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._fed_bytes = 0
        self.inflated_bytes = 0
        self._output = bytearray()
        self._stream: Any = None
        """The one that is read, or was read last."""

    @property
    def held_bytes(self) -> int:
        """What the budget is charged for: the memory that grows with the body."""
        return self.inflated_bytes

    def feed(self, data: bytes) -> int:
        """Decompress a piece of the body; returns the bytes it became. Raises Rejection (400, 413)."""
        before = self.inflated_bytes
        self._fed_bytes += len(data)
        if self._fed_bytes > compressed_bytes_max(self._limit_bytes):
            raise too_large(self._limit_bytes)
        try:
            # In pieces, because what follows a stream is copied: a crowd of tiny ones would be
            # copied once for each of them.
            for at in range(0, len(data), _PIECE_BYTES):
                self._decode(data[at : at + _PIECE_BYTES])
        except self.errors as e:
            raise self._invalid(self._explained(e)) from None
        return self.inflated_bytes - before

    def _decode(self, data: bytes) -> None:
        is_full = False
        while data or is_full:
            if self._stream is None or self._stream.eof:
                data = self._begin(data)
                if not data:
                    return
            stream = self._stream
            wanted_bytes = min(self._limit_bytes - self.inflated_bytes + 1, BUFFER_BYTES)
            part = stream.decompress(data, wanted_bytes)
            self.inflated_bytes += len(part)
            if self.inflated_bytes > self._limit_bytes:
                raise too_large(self._limit_bytes)
            self._output += part
            # It may hold back more than it was asked for, with all of its input taken.
            is_full = len(part) == wanted_bytes and not stream.eof
            data = self._rest()

    @abstractmethod
    def _begin(self, data: bytes) -> bytes:
        """Make the next stream; returns what to feed to it, nothing if it needs to see more first."""

    def _rest(self) -> bytes:
        """Input that the stream has not taken."""
        stream = self._stream
        return bytes(stream.unused_data if stream.eof else stream.unconsumed_tail)

    def _is_complete(self) -> bool:
        return self._stream is not None and bool(self._stream.eof)

    def finish(self) -> bytearray:
        """The whole inflated body. Raises Rejection (400) if the stream is not at an end."""
        if not self._is_complete():
            raise self._invalid("the stream ends before its end")
        return self._output

    def _explained(self, error: Exception) -> str:
        """The error in words."""
        return str(error)

    def _invalid(self, detail: str) -> Rejection:
        return invalid_event(f"invalid_{self.name}", f"body: not valid {self.name}: {detail}")
