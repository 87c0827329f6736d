"""A bounded ring between one producer (the loop) and one consumer (the flusher), without a lock.

What makes it safe, of CPython: loads and stores of list items and of int attributes are atomic
and seen by other threads in program order, under the GIL and, per object, in free-threaded builds.
Each counter has one writer: `_pushed…` the producer, `_popped…` and `_released…` the consumer. A
slot is written before the counter that publishes it, and emptied before the counter that frees it.

Sleeping: the consumer raises `is_sleeping`, looks once more, and only then waits on a lock used as
a binary semaphore; the producer publishes, then looks at `is_sleeping`, and if it is raised must call
`wake`, at once or a little later. One of the two always sees the other, so a wake-up is never lost,
and a busy consumer is never woken.

Popped batches count until they are released, after their commit: the bounds hold for everything
that is in memory and not yet on disk.
"""

from __future__ import annotations

import threading

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
        self.is_sleeping = False
        """True while the consumer waits to be woken; it may change at any moment."""
        self._wake = threading.Lock()
        self._wake.acquire()

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

        Whoever pushes looks at `is_sleeping` afterwards and calls `wake` if it is raised.
        """
        pushed, size = self._pushed, len(batch.lines)
        waiting = pushed - self._released
        if waiting >= self._batches_max or (
            waiting and self._pushed_bytes - self._released_bytes + size > self._bytes_max
        ):
            return False
        self._slots[pushed % self._batches_max] = batch
        self._pushed_bytes += size
        self._pushed = pushed + 1
        return True

    def pop(self, bytes_max: int) -> list[Batch]:
        """Consumer: what waits now, in order, up to `bytes_max` bytes of lines and at least one batch."""
        slots, size = self._slots, self._batches_max
        popped, end = self._popped, self._pushed
        batches: list[Batch] = []
        taken = 0
        while popped < end:
            batch = slots[popped % size]
            assert batch is not None
            taken += len(batch.lines)
            if taken > bytes_max and batches:
                break
            slots[popped % size] = None
            batches.append(batch)
            popped += 1
        self._popped = popped
        return batches

    def release(self, batches: list[Batch]) -> None:
        """Consumer: these popped batches have been dealt with; their room is free."""
        self._released_bytes += sum([len(batch.lines) for batch in batches])
        self._released += len(batches)

    def wait(self, timeout_s: float) -> None:
        """Consumer: sleep until something is pushed, `wake` is called, or the time is over."""
        self.is_sleeping = True
        if self._pushed == self._popped:
            self._wake.acquire(timeout=timeout_s)
        self.is_sleeping = False

    def wake(self) -> None:
        """Any thread: let the consumer look now."""
        self.is_sleeping = False
        try:
            self._wake.release()
        except RuntimeError:
            # Released already and not yet taken: the consumer will look in any case.
            return
