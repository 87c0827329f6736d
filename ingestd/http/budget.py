"""The budget of bytes in flight: bodies that are being received, inflated, of all connections.

A small body passes while anything of the budget is left. A large one must fit into seven eighths
of it, whole where its length is known, or it waits its turn and is not read on: what has been
admitted with its length can be finished, and small requests pass beside a crowd of large ones.
What grows beyond the whole budget in spite of that is refused, and so is a body that waits if what
came with its head would leave small ones less than a sixteenth.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

SMALL_BYTES_MAX: Final = 64 * 1024


class Waiter(Protocol):
    """Someone who waits for room."""

    @property
    def wanted_bytes(self) -> int | None:
        """Bytes to be taken when there is room; None if it does not wait any more."""

    def granted(self) -> None:
        """Called once when `wanted_bytes` have been taken for it."""


class Budget:
    """Counts what is taken; nobody may hold more than was taken for it."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes = 0
        """Taken now."""
        self._bytes_max = bytes_max
        self._large_bytes_max = bytes_max - bytes_max // 8
        self._waiting_bytes_max = bytes_max - bytes_max // 16
        self._waiters: deque[Waiter] = deque()

    def has_room(self, size: int) -> bool:
        """True if a large body may take `size` bytes at once: they fit, and nobody waits before it."""
        return not self._waiters and self._fits(size)

    def _fits(self, size: int) -> bool:
        # Alone, a body of any size may pass: it would wait for ever otherwise.
        return self.bytes + size <= self._large_bytes_max or not self.bytes

    def take(self, size: int, *, waits: bool = False) -> bool:
        """Take, room or not; False if that is more than there is, for one that waits or for others."""
        self.bytes += size
        return self.bytes <= (self._waiting_bytes_max if waits else self._bytes_max)

    def give(self, size: int) -> None:
        """Give back; whoever has waited longest and fits gets it.

        Also to be called with 0 by one that waits no more: those behind it may fit.
        """
        self.bytes -= size
        while self._waiters:
            wanted = self._waiters[0].wanted_bytes
            if wanted is not None:
                if not self._fits(wanted):
                    return
                self.bytes += wanted
            waiter = self._waiters.popleft()
            if wanted is not None:
                waiter.granted()

    def wait(self, waiter: Waiter) -> None:
        """Queue up for `waiter.wanted_bytes`."""
        self._waiters.append(waiter)
