"""The bytes that the parser is reading: it hands over their meaning, and some things only they tell."""

from __future__ import annotations

from ingestd.http import guards
from ingestd.http.chunks import Chunks
from ingestd.http.guards import Head


class Fed:
    """What was fed to the parser since the request began that it is reading now."""

    __slots__ = ("_begins_at", "_chunks", "_data")

    def __init__(self) -> None:
        self._data = b""
        self._begins_at = 0
        """Where in `_data`, or how far after it, the next request begins."""
        self._chunks: Chunks | None = None
        """The way through a chunked body."""

    def begin(self, data: bytes, left_bytes: int | None) -> None:
        """`data` is read next; a body ends after `left_bytes`, or where its chunks say."""
        self._data = data
        if left_bytes is None:
            assert self._chunks is not None
            self._begins_at = self._chunks.walk(data, 0)
        else:
            self._begins_at = left_bytes

    def go_on(self, data: bytes) -> None:
        """`data` continues the head that has begun."""
        self._data += data

    @property
    def line_bytes(self) -> int:
        """Bytes of the line of this head that is not finished yet."""
        return len(self._data) - max(self._data.rfind(b"\n") + 1, self._begins_at)

    def is_head(self) -> bool:
        """True if the request that begins here is a HEAD."""
        return self._data.startswith(b"HEAD ", self._begins_at)

    def rest(self) -> bytes:
        """What came after the request that was just read."""
        return self._data[self._begins_at :]

    def forget(self) -> None:
        """No head is being read."""
        self._data = b""

    def head(self, head: Head) -> bytes:
        """The bytes of the head that has just been read.

        The parser takes other protocols, and white space in odd places, for HTTP, so the request line
        must stand in what was read as it has to. Raises Rejection (400).
        """
        at = self._begins_at
        line = b"%b %b HTTP/%b\r\n" % (head.method, head.target, head.version.encode())
        while self._data[at : at + 1] in (b"\r", b"\n"):
            at += 1
        if not self._data.startswith(line, at):
            raise guards.bad_request_line()
        ends_at = self._data.find(b"\r\n\r\n", at) + 4
        if b"transfer-encoding" in head.headers:
            self._chunks = Chunks()
            self._begins_at = self._chunks.walk(self._data, ends_at)
        else:
            self._begins_at = ends_at + (head.length or 0)
        return self._data[at:ends_at]
