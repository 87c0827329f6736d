"""The shipper's work: look for sealed segments, deliver each, mark it, and try again what has failed.

Nothing here must be remembered. That a segment is delivered is told by its marker; one that was
delivered and has none, for the shipper was killed in between, is found to be there already.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from ingestd.errors import StorageError
from ingestd.ship.delivery import Delivered, Delivery, DestinationError, Segment
from ingestd.ship.pace import Backoff
from ingestd.storage.disk import Disk
from ingestd.storage.reading import Gone
from ingestd.storage.repeats import Seen
from ingestd.storage.segment import NAME, SUFFIX
from ingestd.storage.shipped import Markers, mark

log = logging.getLogger("ingestd.ship")

_LOOK_S: Final = 1.0
_LOOK_PART: Final = 20
"""Looking through very many segments takes no more than this part of the time."""
_PRUNE_S: Final = 3600.0
"""Markers of segments that are gone are removed so seldom: another shipper, too, sees by them that what is
gone was delivered."""
_ROUND: Final = 64
"""Segments that are delivered before those that failed have their turn again."""
_ONCE_TRIES: Final = 5


@dataclass(slots=True)
class Waiting:
    """A sealed segment that is not delivered."""

    segment: Segment
    size: int
    written: float
    """When it was written, in seconds since 1970."""
    backoff: Backoff
    problem: str = ""


@dataclass(slots=True)
class Tally:
    """Counts since the start."""

    segments_delivered: int = 0
    segments_found: int = 0
    """Of these: those that were there already, after a lost answer or by another shipper."""
    bytes_delivered: int = 0
    events_sent: int = 0
    """Of these segments, to a log."""
    events_dropped: int = 0
    """Repeats that were left out."""
    retries: int = 0
    segments_gone: int = 0


class Shipper:
    """Delivers the sealed segments of one data directory to one destination."""

    def __init__(
        self,
        disk: Disk,
        data_dir: Path,
        delivery: Delivery,
        markers: Markers,
        *,
        stopping: asyncio.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        say: Callable[..., None] = log.log,
    ) -> None:
        """`say` logs. Only the age of segments is told by the `wall` clock, which may be set."""
        self.tally = Tally()
        self.behind: dict[str, Waiting] = {}
        """By their marks; replaced, not changed, by a look."""
        self.seen: Seen | None = None
        """What is remembered of deliveries, to leave out repeats."""
        self.problem = ""
        """What keeps the destination from taking anything."""
        self.stopping = stopping or asyncio.Event()
        self._disk = disk
        self._data_dir = data_dir
        self._delivery = delivery
        self._markers = markers
        self._clock = clock
        self._wall = wall
        self._say = say
        self._random = Random()
        self._backoff = Backoff(clock, self._random)
        self._delivered: set[str] = set()
        """Marks of segments that are here and have a marker."""
        self._strange: set[str] = set()
        self._look_problem = ""
        self._prune_at = 0.0

    @property
    def bytes_behind(self) -> int:
        """Bytes of what is not delivered."""
        return sum(waiting.size for waiting in self.behind.values())

    @property
    def lag_s(self) -> float:
        """The age of the oldest segment that is not delivered; 0 if all are."""
        oldest = min((waiting.written for waiting in self.behind.values()), default=math.inf)
        # The clock may have been set back since.
        return max(0.0, self._wall() - oldest)

    def begin(self, url: str) -> None:
        """Make the markers' directory, and take up what it tells. Raises StorageError."""
        self._delivered = self._markers.begin(url)

    async def run(self) -> None:
        """Deliver what is sealed, until `stopping`."""
        while not self.stopping.is_set():
            started = self._clock()
            try:
                await self.look()
                self._look_problem = ""
            except StorageError as e:
                if str(e) != self._look_problem:
                    self._look_problem = str(e)
                    self._say(logging.ERROR, "cannot look for segments: %s", e)
            now = self._clock()
            next_look = now + max(_LOOK_S, _LOOK_PART * (now - started))
            while not self.stopping.is_set():
                due_in_s, look_in_s = self._due_in_s(math.inf), next_look - self._clock()
                await self._rest(min(due_in_s, look_in_s))
                if due_in_s >= look_in_s:
                    break
                await self._round(math.inf)

    async def run_once(self) -> bool:
        """Deliver what is sealed now; True if all of it is there. Raises StorageError."""
        await self.look()
        while not self.stopping.is_set():
            due_in_s = self._due_in_s(_ONCE_TRIES)
            if due_in_s == math.inf or self._backoff.failures >= _ONCE_TRIES:
                break
            await self._rest(due_in_s)
            await self._round(_ONCE_TRIES)
        return not self.behind and not self.tally.segments_gone

    async def look(self) -> None:
        """See what is sealed and not delivered. Raises StorageError."""
        self.behind = await asyncio.to_thread(self._looked)
        if not self.behind:
            # Nothing waits for it: how it is, nobody knows.
            self.problem = ""

    def _looked(self) -> dict[str, Waiting]:
        found: dict[str, Waiting] = {}
        for path in self._disk.list(self._data_dir / "segments", f"*{SUFFIX}", deep=True):
            if not NAME.fullmatch(path.name.removesuffix(SUFFIX)):
                self._ignore(path)
            elif told := self._disk.size_and_time(path):
                segment = Segment(path, mark(path, *told))
                found[segment.mark] = Waiting(segment, *told, Backoff(self._clock, self._random))
        if self._clock() >= self._prune_at:
            self._prune_at = self._clock() + _PRUNE_S
            for one in {*self._delivered, *self._markers.cursors()} - found.keys():
                self._markers.remove(one)
                self._delivered.discard(one)
        for one in self.behind.keys() - found.keys():
            self._gone(self.behind[one].segment)
        behind: dict[str, Waiting] = {}
        for one in found.keys() - self._delivered:
            waiting = self.behind.get(one)
            if waiting is None and self._markers.has(one):
                self._delivered.add(one)
            else:
                behind[one] = waiting or found[one]
        return behind

    def _ignore(self, path: Path) -> None:
        if path.name not in self._strange:
            self._strange.add(path.name)
            self._say(logging.WARNING, "%s has not the name of a segment: it is not delivered", path)

    def _due_in_s(self, tries_max: float) -> float:
        """Until something may be delivered; infinite if nothing waits that has not been tried so often."""
        times = [w.backoff.until for w in self.behind.values() if w.backoff.failures < tries_max]
        return max(0.0, max(self._backoff.until, min(times)) - self._clock()) if times else math.inf

    async def _rest(self, seconds: float) -> None:
        """Wait, but not beyond the stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)

    async def _round(self, tries_max: float) -> None:
        """Deliver what is due: what is under way, then the oldest; those that failed after all others."""
        now = self._clock()
        due = [m for m, w in self.behind.items() if w.backoff.until <= now and w.backoff.failures < tries_max]
        first = {one: place for place, one in enumerate(self._delivery.underway)}
        due.sort(key=lambda one: (first.get(one, math.inf), self.behind[one].backoff.failures, one))
        queue = deque(due[:_ROUND])
        # A destination that fails is asked with one at a time.
        lanes = 1 if self._backoff.failures else self._delivery.lanes
        await asyncio.gather(*(self._lane(queue) for _ in range(lanes)))

    async def _lane(self, queue: deque[str]) -> None:
        while queue and self._backoff.until <= self._clock() and not self.stopping.is_set():
            await self._deliver(queue.popleft())

    async def _deliver(self, one: str) -> None:
        """The segment of this mark."""
        waiting = self.behind[one]
        segment = waiting.segment
        try:
            # Another shipper may have delivered it meanwhile.
            if not await asyncio.to_thread(self._markers.has, one):
                delivered = await self._delivery.deliver(segment)
                if delivered is None:
                    return
                await asyncio.to_thread(self._markers.put, one, self._told(delivered))
                self._count(segment, delivered)
        except Gone:
            del self.behind[one]
            self._gone(segment)
        except DestinationError as e:
            self.tally.retries += 1
            if self._delivery.lanes > 1:
                # Where order counts, the same one is next.
                waiting.backoff.failed()
            wait_s = self._backoff.failed()
            if str(e) != self.problem:
                self.problem = str(e)
                self._say(logging.ERROR, "cannot deliver: %s; next try in %.1f s", e, wait_s)
        except StorageError as e:
            self.tally.retries += 1
            waiting.backoff.failed()
            if str(e) != waiting.problem:
                waiting.problem = str(e)
                self._say(logging.ERROR, "%s is not delivered: %s", segment.name, e)
        else:
            del self.behind[one]
            self._delivered.add(one)

    def _told(self, delivered: Delivered) -> bytes:
        """What the marker says, for people."""
        at = datetime.fromtimestamp(self._wall(), UTC).isoformat(timespec="seconds")
        return msgspec.json.encode({**delivered.told, "confirmed": at}) + b"\n"

    def _count(self, segment: Segment, delivered: Delivered) -> None:
        self.tally.segments_delivered += 1
        self.tally.segments_found += not delivered.is_new
        self.tally.bytes_delivered += delivered.size
        self.tally.events_sent += delivered.events
        self.tally.events_dropped += delivered.dropped
        self._backoff.succeeded()
        if self.problem:
            self.problem = ""
            self._say(logging.INFO, "delivers again")
        self._say(logging.DEBUG, "%s %s", "delivered" if delivered.is_new else "found there", segment.name)

    def _gone(self, segment: Segment) -> None:
        """It was here, and was not delivered by this shipper."""
        if not self._markers.has(segment.mark):
            with suppress(StorageError):
                # Left behind, it is pruned later.
                self._markers.remove(segment.mark)
            self.tally.segments_gone += 1
            self._say(logging.ERROR, "%s was deleted before it was delivered", segment.path.name)
