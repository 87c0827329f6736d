"""When to send: how long to wait after a failure, and how long for what has been sent to be paid off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Final

_FIRST_S: Final = 0.5
_MOST_S: Final = 60.0


class Backoff:
    """Twice as long after each failure, up to a minute; a random half of it, so that shippers part."""

    def __init__(self, clock: Callable[[], float], random: Random) -> None:
        self._clock = clock
        self._random = random
        self.failures = 0
        """In a row."""
        self.until = 0.0
        """By the clock: when to try again."""

    def failed(self) -> float:
        """Once more; returns the seconds to wait."""
        most = min(_MOST_S, _FIRST_S * 2.0 ** min(self.failures, 10))
        wait_s = self._random.uniform(most / 2, most)
        self.failures += 1
        self.until = self._clock() + wait_s
        return wait_s

    def succeeded(self) -> None:
        """All is well."""
        self.failures, self.until = 0, 0.0


class Pace:
    """A bound on bytes a second: what is sent at once is paid off before anything else is sent."""

    def __init__(self, bytes_per_s: int, clock: Callable[[], float]) -> None:
        """0: there is no bound."""
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._free_at = 0.0

    async def take(self, size: int) -> None:
        """Wait until so many bytes may be sent."""
        if self._bytes_per_s:
            now = self._clock()
            start = max(now, self._free_at)
            self._free_at = start + size / self._bytes_per_s
            await asyncio.sleep(start - now)
