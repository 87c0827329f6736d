"""The way of log lines to stderr: never longer than whoever reads stderr makes the server wait.

A pipe or a journal that nobody reads takes some lines and then no more, and whoever writes to it
stands still. So a server's lines wait for a thread of their own, up to a bound; beyond it they are
dropped and counted.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

WAITING_BYTES_MAX: Final = 1024 * 1024
"""Of lines that wait while stderr takes none."""
_WRITE_BYTES_MAX: Final = select.PIPE_BUF
"""A pipe takes so much in one piece: the lines of several processes do not tear each other."""
_FLUSH_S: Final = 2.0


class Writer:
    """Writes whole lines to a descriptor, in their order."""

    def __init__(self, fd: int, lost: Callable[[int], bytes], *, has_thread: bool) -> None:
        """`lost` makes the line about lines that were dropped. Without a thread each is written at once."""
        self._fd = fd
        self._lost_line = lost
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._lost = 0
        self._is_busy = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        if has_thread:
            self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
            self._thread.start()

    def put(self, line: bytes) -> None:
        """Take a line, which ends with its line break."""
        if self._thread is None:
            self._write(line)
            return
        with self._changed:
            if self._bytes + len(line) > WAITING_BYTES_MAX:
                self._lost += 1
                return
            self._lines.append(line)
            self._bytes += len(line)
            if not self._is_busy:
                self._is_busy = True
                self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all is written, but no longer than a reader deserves that has stopped reading."""
        if self._thread is not None:
            with self._changed:
                self._changed.wait_for(lambda: not self._is_busy, _FLUSH_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._lines:
                    self._is_busy = False
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: bool(self._lines))
                piece = self._take()
            self._write(piece)

    def _take(self) -> bytes:
        """Lines that may be written in one piece; after the last that waits, how many were lost."""
        piece = [self._lines.popleft()]
        size = len(piece[0])
        while self._lines and size + len(self._lines[0]) <= _WRITE_BYTES_MAX:
            piece.append(self._lines.popleft())
            size += len(piece[-1])
        self._bytes -= size
        if self._lost and not self._lines:
            piece.append(self._lost_line(self._lost))
            self._lost = 0
        return b"".join(piece)

    def _write(self, data: bytes) -> None:
        # Nobody can be told of an error here.
        with suppress(OSError):
            while data:
                try:
                    data = data[os.write(self._fd, data) :]
                except BlockingIOError:
                    # Whoever has started us shares a descriptor that does not block.
                    select.select([], [self._fd], [])
