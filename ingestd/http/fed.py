"""The bytes that the parser is reading: it hands over their meaning, and some things only they tell."""

from __future__ import annotations

import re

from ingestd.http import guards
from ingestd.http.guards import Head


class Fed:
    """What was fed to the parser since the request began that it is reading now."""

    __slots__ = ("_begins_at", "_data")

    def __init__(self) -> None:
        self._data = b""
        self._begins_at: int | None = 0

    def begin(self, data: bytes, begins_at: int | None) -> None:
        """`data` is read next; the next request begins in it, or after it, or nobody knows where."""
        self._data = data
        self._begins_at = begins_at

    def go_on(self, data: bytes) -> None:
        """`data` continues the head that has begun."""
        self._data += data

    @property
    def line_bytes(self) -> int:
        """Bytes of the line of this head that is not finished yet."""
        return len(self._data) - max(self._data.rfind(b"\n") + 1, self._begins_at or 0)

    def is_head(self) -> bool:
        """True if the request that begins here is a HEAD."""
        return self._begins_at is not None and self._data.startswith(b"HEAD ", self._begins_at)

    def forget(self) -> None:
        """No head is being read."""
        self._data = b""

    def head(self, head: Head) -> bytes:
        """The bytes of the head that has just been read, or nothing if their place is not known.

        The parser takes other protocols, and white space in odd places, for HTTP, so the request line
        must stand in what was read as it has to. Raises Rejection (400).
        """
        at = self._begins_at
        line = b"%b %b HTTP/%b\r\n" % (head.method, head.target, head.version.encode())
        if at is None:
            # Whatever looks like this line must be this line.
            alike = rb"%b +%b +[A-Z]+/%b\r\n" % (head.method, re.escape(head.target), head.version.encode())
            if set(re.findall(alike, self._data)) != {line}:
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
