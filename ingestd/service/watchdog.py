"""The watchdog is fed while every worker's loop and flusher advance; who alone stands still is killed.

systemd ends and starts everything if it is not fed in time, which mends what nothing else can, and cuts
every request in flight. So one worker of several that stands still is killed first, in time for its
successor to be fed for. A kill that does not help (a process that waits for a dead disk cannot be
killed), and a halt of all of them, are left to systemd.
"""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Sequence
from typing import Final, Protocol

from ingestd.service.scoreboard import FLUSHER_BEAT_MS, LOOP_BEAT_MS, Table
from ingestd.service.systemd import Notifier

log = logging.getLogger("ingestd.watchdog")

_LOOKS: Final = 6
"""In the time that systemd waits: two tell a halt from a hiccup, two are for the successor to start."""
_LOOK_S_MIN: Final = 1.5
"""An idle flusher goes round once a second, and the loop passes that on four times a second."""
_MISSES_MAX: Final = 2


class Watched(Protocol):
    """A worker as the watchdog sees it."""

    number: int
    is_ready: bool
    due_at: float
    """When one that is not ready must be, or must have ended."""

    def signal(self, number: int) -> None:
        """Send a signal to its process."""


class Watchdog:
    """Looks at the beats of all workers, `_LOOKS` times in the time that systemd waits."""

    def __init__(self, watchdog_s: float | None, table: Table, notifier: Notifier) -> None:
        self._look_s = max(_LOOK_S_MIN, watchdog_s / _LOOKS) if watchdog_s else math.inf
        self._rows = table
        self._notifier = notifier
        self._beats: dict[int, tuple[int, int]] = {}
        self._misses: dict[int, int] = {}
        self.look_at = math.inf
        """When to look next, by the monotonic clock."""
        self.problem = ""
        """Who stands still, in words; empty if nobody does."""

    def start(self, now: float) -> None:
        """The server is ready: from now on systemd waits."""
        self.look_at = now + self._look_s

    def look(self, now: float, workers: Sequence[Watched]) -> None:
        """If it is time: feed, or find out who stands still."""
        if now < self.look_at:
            return
        self.look_at = now + self._look_s
        still = {worker.number: why for worker in workers if (why := self._halt(worker, now))}
        if not still:
            self._notifier.feed()
        # A machine that was itself suspended wakes all of them within a look: one miss is no halt.
        halted = [worker for worker in workers if self._misses[worker.number] >= _MISSES_MAX]
        self._say(
            ", ".join(f"worker {w.number} {still[w.number]}" for w in halted),
            max((self._misses[w.number] for w in halted), default=0) * self._look_s,
        )
        if len(halted) < len(workers):
            for worker in halted:
                # One that is not ready is new already: another would fare no better.
                if worker.is_ready and self._misses[worker.number] == _MISSES_MAX:
                    log.error("worker %d is killed, so that another takes its place", worker.number)
                    worker.signal(signal.SIGKILL)

    def _halt(self, worker: Watched, now: float) -> str:
        """Why the worker misses this look; empty if it does not."""
        row = self._rows.row(worker.number)
        beats = row[LOOP_BEAT_MS], row[FLUSHER_BEAT_MS]
        before = self._beats.get(worker.number, (-1, -1))
        self._beats[worker.number] = beats
        if not worker.is_ready:
            why = "does not get ready" if now >= worker.due_at else ""
        elif beats[0] == before[0]:
            why = "stands still"
        else:
            why = "has a flusher that stands still" if beats[1] == before[1] else ""
        self._misses[worker.number] = self._misses.get(worker.number, 0) + 1 if why else 0
        return why

    def _say(self, who: str, since_s: float) -> None:
        if who and not self.problem:
            log.error("the watchdog is not fed: %s", who)
        elif self.problem and not who:
            log.warning("the watchdog is fed again")
        self.problem = f"{who} for {since_s:.0f} s" if who else ""
