"""The bytes that the parser is reading: it hands over their meaning, and some things only they tell."""

from __future__ import annotations

from ingestd.http import guards
from ingestd.http.guards import Head


class Fed:
    """What was fed to the parser since the request began that it is reading now."""

    __slots__ = ("_begins_at", "_data", "line_bytes")

    def __init__(self) -> None:
        self._data = b""
        self._begins_at: int | None = 0
        self.line_bytes = 0
        """Of the line that is not finished yet."""

    def begin(self, data: bytes, begins_at: int | None) -> None:
        """`data` is read next; the next request begins in it, or after it, or nobody knows where."""
        self._data = data
        self._begins_at = begins_at
        self._count(data, 0)

    def go_on(self, data: bytes) -> None:
        """`data` continues the head that has begun."""
        self._data += data
        self._count(data, self.line_bytes)

    def forget(self) -> None:
        """No head is being read."""
        self._data = b""

    def _count(self, data: bytes, before: int) -> None:
        newline = data.rfind(b"\n")
        self.line_bytes = len(data) - newline - 1 + (before if newline < 0 else 0)

    def head(self, head: Head) -> bytes:
        """The bytes of the head that has just been read, or nothing if their place is not known.

        The parser takes other protocols, and white space in odd places, for HTTP, so the request line
        must stand in what was read as it has to. Raises Rejection (400).
        """
        at = self._begins_at
        line = b"%b %b HTTP/%b\r\n" % (head.method, head.target, head.version.encode())
        if at is None:
            if line not in self._data:
                raise guards.bad_request_line()
            return b""
        while self._data[at : at + 1] in (b"\r", b"\n"):
            at += 1
        if not self._data.startswith(line, at):
            raise guards.bad_request_line()
        ends_at = self._data.find(b"\r\n\r\n", at) + 4
        is_chunked = b"transfer-encoding" in head.headers
        self._begins_at = None if is_chunked else ends_at + (head.length or 0)
        return self._data[at:ends_at]
