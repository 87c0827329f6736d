"""Limits of keys: how much may pass in a second, all workers together, without a lock.

A limit is a bucket. It fills at its rate up to `burst_s` seconds' worth, and while there is anything in
it, what comes may pass and is taken out, whole. So a request larger than the burst can pass at
all; it leaves a debt, and nothing passes until that is paid.

All of it is one number, `full_at`: when the bucket would be full if nothing more passed. There is
something in it while `full_at - now < burst_s`, and taking n moves `max(full_at, now)` by n / rate.

The workers share memory in which each has a region that only it writes, with a slot for each limit:
a tag made of the key's digest and the limit (so workers that have read different keys.toml never
mix up two limits, and a changed limit begins full), how much this worker has let pass in all, and its
`full_at`.

To learn of the others' doings a worker looks at their slots before it decides, once for each time that
the clock shows. It takes the later of two, for either can only be too early:

- Its own `full_at` moved by what the others have let pass since the last look, as if all of that had
  passed right then. Of two that let something pass at the same moment each counts, if only a
  moment later: what is too much becomes a debt and is not forgotten. But where the bucket
  has been full since that look, what passed afterwards should move it further.
- The latest `full_at` of the others. They know when what they let pass has passed, but not of what
  passed here at the same moment. It is all that a worker knows that has just started.

Loads and stores of aligned 8 bytes are whole on the machines that CPython runs on. A count is written
before the `full_at` that it has moved, and every `full_at` is read before any count: so what has moved
one that is read shows in a count that is read after it, and nothing is taken for two (measured with
5 processes that did nothing but ask: 100.8 % of the limit passed, and 62 % in another order). Both
are read before the tag: if that is right, they belonged to it.
"""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
from collections.abc import Callable, Iterable
from typing import Final

from ingestd.errors import Rejection, rate_limited
from ingestd.keys import BURST_S, Key, number

log = logging.getLogger("ingestd.ratelimit")

REGION: Final = "limits"
"""What this memory is called among others that workers share; another layout needs another name."""
SLOTS: Final = 16_384
"""Of one worker; room for 9,000 limits at least, where 64 places are tried."""
_PROBES_MAX: Final = 64
_SLOT: Final = 3
_TAG, _PASSED, _FULL_AT = range(_SLOT)
_REGION_BYTES: Final = SLOTS * _SLOT * 8
_LIFE: Final = 1 << 48
"""A slot's count begins at a random multiple of this: who has seen it before knows a new beginning."""
_GRAIN_S: Final = 1e-6
"""What is in a bucket for less than this is a rounding error of sums of times."""


def memory_bytes(workers: int) -> int:
    """How much memory so many workers share. It begins as zeros; what is not used costs nothing."""
    return workers * _REGION_BYTES


class _Region:
    """The slots of one worker: open addressing by tag, 0 where a slot is free."""

    def __init__(self, memory: memoryview, worker: int) -> None:
        self._bytes = memory[worker * _REGION_BYTES : (worker + 1) * _REGION_BYTES]
        self.counts = self._bytes.cast("Q")
        self.times = self._bytes.cast("d")

    def find(self, tag: int) -> int | None:
        """Where the slot of this tag is, or would be; None if its places are all taken."""
        for step in range(_PROBES_MAX):
            at = (tag + step) % SLOTS * _SLOT
            if self.counts[at] in (tag, 0):
                return at
        return None

    def claim(self, tag: int) -> int | None:
        """The slot of this tag, made if there is none yet; None if there is no room for it."""
        at = self.find(tag)
        if at is not None and not self.counts[at]:
            self.counts[at + _PASSED] = secrets.randbits(15) * _LIFE
            self.times[at + _FULL_AT] = 0.0
            # Last: who finds the tag takes the rest for what belongs to it.
            self.counts[at] = tag
        return at

    def taken(self) -> int:
        """How many slots are not free."""
        return sum(map(bool, self.counts[::_SLOT]))

    def clear(self) -> None:
        """Free all slots."""
        self._bytes[:] = bytes(_REGION_BYTES)


class _Peer:
    """What another worker says of a limit."""

    __slots__ = ("_at", "_region", "_seen", "_tag")

    def __init__(self, region: _Region, tag: int) -> None:
        self._region = region
        self._tag = tag
        self._at = 0
        self._seen = 0

    def passed(self) -> int:
        """How much it has let pass since it was last asked, as far as can be told."""
        counts = self._region.counts
        count = counts[self._at + _PASSED]
        if counts[self._at] != self._tag:
            # It has no slot yet, or its slots have other places now.
            self._at = self._region.find(self._tag) or 0
            count = counts[self._at + _PASSED]
            if counts[self._at] != self._tag:
                return 0
        passed, self._seen = count - self._seen, count
        return passed if 0 <= passed < _LIFE else 0

    def full_at(self) -> float:
        """Its `full_at`; 0 while it has no slot."""
        full_at = self._region.times[self._at + _FULL_AT]
        return full_at if self._region.counts[self._at] == self._tag else 0.0


class Bucket:
    """One limit of one key, as one worker knows it."""

    __slots__ = (
        "_at", "_burst_s", "_clock", "_detail", "_full_at", "_looked_at", "_passed", "_peers", "_per_s",
        "_region", "tag",
    )  # fmt: skip

    def __init__(
        self, tag: int, detail: str, per_s: float, burst_s: float, clock: Callable[[], float]
    ) -> None:
        self.tag = tag
        self._detail = detail
        self._per_s = per_s
        self._burst_s = burst_s - _GRAIN_S
        self._clock = clock
        self._peers: list[_Peer] = []
        self._region: _Region | None = None
        self._at = 0
        self._passed = 0
        self._full_at = 0.0
        self._looked_at = -math.inf

    def share(self, region: _Region, at: int, peers: list[_Region]) -> None:
        """Go on with what the slots of all workers say, ours at `at`."""
        self._region = region
        self._at = at
        self._passed = region.counts[at + _PASSED]
        self._peers = [_Peer(peer, self.tag) for peer in peers]
        for peer in self._peers:
            # All that it has let pass before is in its `full_at`.
            peer.passed()
        self._full_at = max([region.times[at + _FULL_AT], *(peer.full_at() for peer in self._peers)])
        self._publish()

    def claim_again(self) -> None:
        """Our region has been cleared."""
        if self._region is None:
            return
        at = self._region.claim(self.tag)
        if at is None:
            self.leave()
            return
        self._at = at
        self._passed = self._region.counts[at + _PASSED]
        self._publish()

    def leave(self) -> None:
        """Whoever still uses this tells the others no more: the slot may be another limit's."""
        self._region = None

    def refusal(self) -> Rejection | None:
        """None if something may pass now, however large; else the 429 that says when."""
        return None if self.holds(1) else self.rejection()

    def rejection(self) -> Rejection:
        """The 429 that says when something may pass, for who has been told that nothing may now."""
        now = self._look()
        empty_s = self._full_at - now - self._burst_s
        return rate_limited(self._detail, max(1, math.floor(empty_s) + 1))

    def holds(self, count: int) -> bool:
        """True if so many may pass now, one after the other."""
        now = self._look()
        return self._full_at - now + (count - 1) / self._per_s < self._burst_s

    def take(self) -> bool:
        """Let one pass if it may."""
        now = self._look()
        if self._full_at - now >= self._burst_s:
            return False
        self.charge(1)
        return True

    def charge(self, count: int) -> None:
        """So many have passed, as they might when it was asked last."""
        self._passed += count
        self._full_at += count / self._per_s
        self._publish()

    def _look(self) -> float:
        """Take in what the other workers have let pass; returns the time."""
        now = self._clock()
        if now != self._looked_at:
            self._looked_at = now
            if self._peers:
                self._heed()
            if self._full_at < now:
                self._full_at = now
        return now

    def _heed(self) -> None:
        latest = max([peer.full_at() for peer in self._peers])
        passed = sum([peer.passed() for peer in self._peers])
        if passed or latest > self._full_at:
            self._full_at = max(self._full_at + passed / self._per_s, latest)
            self._publish()

    def _publish(self) -> None:
        if self._region is not None:
            self._region.counts[self._at + _PASSED] = self._passed
            self._region.times[self._at + _FULL_AT] = self._full_at


class RateLimits:
    """The limits of all keys, as one worker knows them."""

    def __init__(self, memory: memoryview, worker: int, workers: int, clock: Callable[[], float]) -> None:
        """`memory` has `memory_bytes(workers)`, the same for all; `clock` must be the same one for all."""
        if len(memory) < memory_bytes(workers):
            raise ValueError(f"{len(memory)} bytes are too few for the limits of {workers} workers")
        regions = [_Region(memory, number) for number in range(workers)]
        self._region = regions.pop(worker)
        self._peers = regions
        self._clock = clock
        self._buckets: dict[int, Bucket] = {}
        """Those in use, by tag."""

    @classmethod
    def alone(cls, clock: Callable[[], float]) -> RateLimits:
        """Of a worker that is the only one."""
        return cls(memoryview(bytearray(memory_bytes(1))), 0, 1, clock)

    def keep(self, keys: Iterable[Key]) -> None:
        """Only the limits of these keys are in use any more; those of others may lose their slots."""
        tags = {tag for key in keys for tag in (_tag(key, "events_per_s"), _tag(key, "requests_per_s"))}
        for tag in self._buckets.keys() - tags:
            self._buckets.pop(tag).leave()

    def events(self, key: Key) -> Bucket | None:
        """The limit on a key's events; None if there is none."""
        return self._bucket(key, "events_per_s", key.events_per_s)

    def requests(self, key: Key) -> Bucket | None:
        """The limit on a key's requests; None if there is none."""
        return self._bucket(key, "requests_per_s", key.requests_per_s)

    def _bucket(self, key: Key, name: str, per_s: float | None) -> Bucket | None:
        if per_s is None:
            return None
        burst_s = key.burst_s or BURST_S
        tag = _tag(key, name)
        bucket = self._buckets.get(tag)
        if bucket is None:
            detail = f"the limit of this key is used up: {name} = {number(per_s)}"
            bucket = Bucket(tag, detail, per_s, burst_s, self._clock)
            if not self._share(bucket):
                log.warning(
                    "key '%s': too many limits to share; each worker has its part of %s", key.name, name
                )
                bucket = Bucket(tag, detail, per_s / (1 + len(self._peers)), burst_s, self._clock)
            self._buckets[tag] = bucket
        return bucket

    def _share(self, bucket: Bucket) -> bool:
        """Give the bucket a slot; False if there is none."""
        at = self._region.claim(bucket.tag)
        if at is None and 2 * len(self._buckets) < self._region.taken():
            self._clean()
            at = self._region.claim(bucket.tag)
        if at is not None:
            bucket.share(self._region, at, self._peers)
        return at is not None

    def _clean(self) -> None:
        """Take the slots from limits that nobody uses any more. To the others it is a start anew."""
        self._region.clear()
        for bucket in self._buckets.values():
            bucket.claim_again()


def _tag(key: Key, name: str) -> int:
    """What stands for a limit of a key; never 0."""
    text = f"{key.sha256} {name} {getattr(key, name)} {key.burst_s}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) or 1
