"""Where a chunked body ends: the parser reads and checks it, but does not say at which byte."""

from __future__ import annotations

import re
from typing import Final

_DIGITS: Final = re.compile(rb"[0-9a-fA-F]*")
_CRLF_BYTES: Final = 2


class Chunks:
    """A walk along chunk headers (RFC 9112 §7.1), piece by piece as they are read.

    It checks nothing: for what the parser accepts it is right, and what the parser refuses has no end.
    """

    __slots__ = ("_in_trailers", "_is_header", "_left_bytes", "_line_is_empty", "_size")

    def __init__(self) -> None:
        self._left_bytes = 0
        """Of a chunk's data and the line break after it."""
        self._size = 0
        self._is_header = True
        """The digits of a chunk header go on."""
        self._line_is_empty = True
        self._in_trailers = False

    def walk(self, data: bytes, at: int) -> int:
        """Walk on from `at`; returns the offset after the body, or the size of `data` if it goes on."""
        size = len(data)
        while at < size:
            if self._left_bytes:
                step = min(self._left_bytes, size - at)
                self._left_bytes -= step
                at += step
                continue
            line_end = data.find(b"\n", at)
            line = data[at : size if line_end < 0 else line_end]
            at += len(line) + 1
            if self._in_trailers:
                self._line_is_empty = self._line_is_empty and not line.strip(b"\r")
            else:
                self._count(line)
            if line_end < 0:
                return size
            if self._end_line():
                return at
        return size

    def _count(self, line: bytes) -> None:
        """Take up the size that stands at the front of a chunk header."""
        match = _DIGITS.match(line)
        if self._is_header and match is not None and match[0]:
            self._size = self._size << 4 * len(match[0]) | int(match[0], 16)
        self._is_header = self._is_header and match is not None and match[0] == line

    def _end_line(self) -> bool:
        """A line has ended; True if that was the end of the body."""
        if self._in_trailers:
            is_end = self._line_is_empty
            self._line_is_empty = True
            return is_end
        self._left_bytes = self._size + _CRLF_BYTES if self._size else 0
        self._in_trailers = not self._size
        self._size = 0
        self._is_header = True
        return False
