"""Counting where things happen: plain numbers of one process, which somebody else collects.

They are read from the same thread, or from another one that may see some older than others. So
that counting costs nearly nothing, the most frequent requests are counted a batch at a time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

OTHER_ROUTE: Final = "other"
"""For requests that are for no call that there is, or that ended before they said which."""

_MILLISECOND_NS: Final = 1_000_000
COMMIT_EVENTS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000)
COMMIT_BYTES: Final = tuple(1024 * 4**power for power in range(8))
"""From 1 KiB to 16 MiB; a commit has 8 MiB unless a single request has more."""
LATENCIES_NS: Final = tuple(
    int(number * _MILLISECOND_NS)
    for number in (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)
)
"""From what a good disk takes to what counts as stuck and more."""


class Histogram:
    """How many values came up to each of some bounds; whole numbers, in a unit small enough."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[int]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        """Of values up to each bound and above the one before it; the last are above all bounds."""
        self.sum = 0

    def observe(self, value: int) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Traffic:
    """What clients have sent to one listener of a worker, and how they were answered."""

    def __init__(self) -> None:
        self.connections = 0
        """Accepted ones."""
        self.received_bytes = 0
        self.answers: dict[tuple[str, int, str], int] = {}
        """By route, status and code of the error ("" if there is none), counted when they are decided:
        whether the client still gets them, nobody knows."""
        self.key_events: dict[str, int] = {}
        """Events that were answered 200, by the name of their key."""

    def answered(self, route: str, status: int, code: str = "", requests: int = 1) -> None:
        """The answer to so many requests is decided."""
        which = route, status, code
        self.answers[which] = self.answers.get(which, 0) + requests

    def stored(self, route: str, requests: int, key_name: str, events: int) -> None:
        """So many requests with so many events of one key are answered 200."""
        self.answered(route, 200, "", requests)
        self.key_events[key_name] = self.key_events.get(key_name, 0) + events
