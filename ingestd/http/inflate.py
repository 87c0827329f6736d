"""Streaming gunzip with a running count: output never passes the limit by more than one buffer.

isal inflates 2.4x faster than zlib (measured: 0.35 against 0.84 µs per 400-byte event) behind the
same interface; where its wheel is missing, zlib does the work.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ingestd.errors import Rejection, invalid_event, too_large


class Inflater(NamedTuple):
    """A module with zlib's interface: how it makes a decompressor, and what that raises."""

    decompressobj: Callable[..., Any]
    error: type[Exception]


ZLIB: Final = Inflater(zlib.decompressobj, zlib.error)
ISAL: Inflater | None
try:
    from isal import isal_zlib

    # Its type stubs take the exception for an instance of itself.
    _isal_zlib: Any = isal_zlib
    ISAL = Inflater(_isal_zlib.decompressobj, _isal_zlib.IsalError)
except ImportError:
    ISAL = None
FASTEST: Final = ISAL or ZLIB

BUFFER_BYTES: Final = 1024 * 1024
_PIECE_BYTES: Final = 16 * 1024
_GZIP_WBITS: Final = 31
_FLAGS_AT: Final = 3


def compressed_bytes_max(limit_bytes: int) -> int:
    """The most that a gzip body of `limit_bytes` may weigh itself.

    Stored blocks make gzip larger than what it holds by less than 1/1000 (RFC 1951 §3.2.4); without
    this bound, empty members and empty blocks would be read without end and never inflate to a byte.
    """
    return limit_bytes + limit_bytes // 1000 + 1024


class Gunzip:
    """One gzip body of one or more members (RFC 1952 §2.2)."""

    __slots__ = ("_fed_bytes", "_header", "_inflater", "_limit_bytes", "_member", "_output", "inflated_bytes")

    def __init__(self, limit_bytes: int, inflater: Inflater = FASTEST) -> None:
        self._limit_bytes = limit_bytes
        self._inflater = inflater
        self._fed_bytes = 0
        self.inflated_bytes = 0
        self._output = bytearray()
        self._header = b""
        """The first bytes of a member of which too few have come to begin."""
        self._member: Any = None

    def feed(self, data: bytes) -> int:
        """Inflate a piece of the body; returns the bytes it became. Raises Rejection (400, 413)."""
        before = self.inflated_bytes
        self._fed_bytes += len(data)
        if self._fed_bytes > compressed_bytes_max(self._limit_bytes):
            raise too_large(self._limit_bytes)
        try:
            # In pieces, because what follows a member is copied: a crowd of tiny members would be
            # copied once for each of them.
            for at in range(0, len(data), _PIECE_BYTES):
                self._inflate(data[at : at + _PIECE_BYTES])
        except (self._inflater.error, ZLIB.error) as e:
            raise _invalid_gzip(str(e)) from None
        return self.inflated_bytes - before

    def _inflate(self, data: bytes) -> None:
        while data:
            if self._member is None or self._member.eof:
                data = self._begin(data)
                if not data:
                    return
            room = self._limit_bytes - self.inflated_bytes
            part = self._member.decompress(data, min(room + 1, BUFFER_BYTES))
            self.inflated_bytes += len(part)
            if self.inflated_bytes > self._limit_bytes:
                raise too_large(self._limit_bytes)
            self._output += part
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail

    def _begin(self, data: bytes) -> bytes:
        """Begin a member once its flags are there; returns what to feed to it.

        isal refuses some headers with optional fields when they come in pieces, and accepts reserved
        flags (found by fuzzing); they are rare, so zlib reads them.
        """
        self._header += data
        if len(self._header) <= _FLAGS_AT:
            return b""
        data, self._header = self._header, b""
        inflater = self._inflater if data[_FLAGS_AT] == 0 else ZLIB
        self._member = inflater.decompressobj(wbits=_GZIP_WBITS)
        return data

    def finish(self) -> bytearray:
        """The whole inflated body. Raises Rejection (400) if the stream is not at an end."""
        if self._header or self._member is None or not self._member.eof:
            raise _invalid_gzip("the stream ends before its end")
        return self._output


def _invalid_gzip(detail: str) -> Rejection:
    return invalid_event("invalid_gzip", f"body: not valid gzip: {detail}")
