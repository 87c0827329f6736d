"""A bounded ring between one producer (the loop) and one consumer (the flusher), without a lock.

What makes it safe is CPython's global interpreter lock: one thread at a time runs bytecode, so each
load and store of a list item or an attribute is whole, and threads see them in program order. A
free-threaded build promises less and is not supported. Each counter has one writer: `_pushed…` the
producer, `_popped…` and `_released…` the consumer. A slot is written before the counter that
publishes it, and emptied before the counter that frees it.

Rounds and sleep: a push opens a round, which the producer ends with `publish` when it has nothing
more to push at once; the consumer had better not pop before. The consumer raises `_sleeping`, looks
if there is something and no round is open, and if not waits on a lock used as a binary semaphore; the
producer ends the round, then looks at `_sleeping`. One of the two always sees the other, so a wake-up
is never lost, and a busy consumer is never woken.

Popped batches count until they are released, after their commit: the bounds hold for everything
that is in memory and not yet on disk.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from ingestd.events import Batch


class Ring:
    """Bounded in batches and in bytes of lines."""

    def __init__(self, batches_max: int, bytes_max: int) -> None:
        self._slots: list[Batch | None] = [None] * batches_max
        self._batches_max = batches_max
        self._bytes_max = bytes_max
        self._pushed = 0
        self._pushed_bytes = 0
        self._popped = 0
        self._released = 0
        self._released_bytes = 0
        self.is_gathering = False
        """True from a push, or `expect_more`, until `publish`: more may be about to come."""
        self._sleeping = False
        self._semaphore = threading.Lock()
        self._semaphore.acquire()

    @property
    def batches(self) -> int:
        """Batches pushed and not yet released."""
        return self._pushed - self._released

    @property
    def bytes(self) -> int:
        """Bytes of lines pushed and not yet released."""
        return self._pushed_bytes - self._released_bytes

    def push(self, batch: Batch) -> bool:
        """Producer: False if it is full. An empty ring takes a batch of any size.

        Whoever pushes calls `publish` when there is nothing more to push at once.
        """
        pushed, size = self._pushed, batch.size
        waiting = pushed - self._released
        if waiting >= self._batches_max or (
            waiting and self._pushed_bytes - self._released_bytes + size > self._bytes_max
        ):
            return False
        self._slots[pushed % self._batches_max] = batch
        self._pushed_bytes += size
        self.is_gathering = True
        self._pushed = pushed + 1
        return True

    def expect_more(self) -> None:
        """Consumer: a round is open, until the producer has ended one with `publish`.

        Both threads set the flag and only the producer takes it back, so whichever write comes last,
        the next `publish` ends the round.
        """
        self.is_gathering = True

    def pop(self, bytes_max: int) -> list[Batch]:
        """Consumer: what waits now, in order, up to `bytes_max` bytes of lines and at least one batch."""
        slots, size = self._slots, self._batches_max
        popped, end = self._popped, self._pushed
        batches: list[Batch] = []
        taken = 0
        while popped < end:
            batch = slots[popped % size]
            assert batch is not None
            taken += batch.size
            if taken > bytes_max and batches:
                break
            slots[popped % size] = None
            batches.append(batch)
            popped += 1
        self._popped = popped
        return batches

    def release(self, batches: list[Batch]) -> None:
        """Consumer: these popped batches have been dealt with; their room is free."""
        self._released_bytes += sum([batch.size for batch in batches])
        self._released += len(batches)

    def wait(self, timeout_s: float) -> None:
        """Consumer: until there is something and no round is open, `wake` is called, or time is over."""
        self._sleeping = True
        if self.is_gathering or self._pushed == self._popped:
            self._semaphore.acquire(timeout=timeout_s)
        self._sleeping = False

    def publish(self) -> None:
        """Producer: the round is over; a consumer that sleeps looks now."""
        self.is_gathering = False
        if self._sleeping:
            self.wake()

    def wake(self) -> None:
        """Any thread: the consumer does not sleep, or not again before it has looked."""
        self._sleeping = False
        # It may be released already and not yet taken; the consumer will look in any case.
        with suppress(RuntimeError):
            self._semaphore.release()
