"""A bar on the terminal for commands that take their time; where there is no terminal, nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TextIO

_REDRAW_S: Final = 0.1
_WIDTH: Final = 24


class Progress:
    """Called with the bytes done and the bytes there are, as often as one likes."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._is_terminal = stream.isatty()
        self._started = clock()
        self._drawn_at = self._started
        self._is_drawn = False

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        now = self._clock()
        if not self._is_terminal or now - self._drawn_at < _REDRAW_S:
            return
        self._drawn_at, self._is_drawn = now, True
        # A segment that is being written may have grown since the total was taken.
        part = min(1.0, done_bytes / max(1, total_bytes))
        rate = done_bytes / (now - self._started)
        left_s = round(max(0, total_bytes - done_bytes) / rate) if rate else 0
        self._write(
            f"[{'#' * round(_WIDTH * part):.<{_WIDTH}}] {part:4.0%}  {done_bytes / 1e9:.2f} of "
            f"{total_bytes / 1e9:.2f} GB  {rate / 1e6:.0f} MB/s  {left_s // 60}:{left_s % 60:02} left"
        )

    def clear(self) -> None:
        """Leave the line to others."""
        if self._is_drawn:
            self._is_drawn = False
            self._write("")

    def _write(self, text: str) -> None:
        self._stream.write(f"\r{text}\x1b[K")
        self._stream.flush()
