"""The ring: its bounds, its order, and that nothing is lost between two threads that sleep and wake."""

from __future__ import annotations

import linecache
import sys
import threading
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd import ring as ring_module
from ingestd.events import Batch
from ingestd.ring import Ring

PATIENCE_S = 60.0
"""Only a lost wake-up takes this long."""


def batch(size: int, number: int = 0) -> Batch:
    """A batch with that many bytes of lines."""
    return Batch(b"x" * size, [str(number)], number)


def test_batches_come_out_in_the_order_they_went_in() -> None:
    ring = Ring(10, 1000)
    batches = [batch(1, n) for n in range(10)]
    assert all(ring.push(one) for one in batches)
    assert ring.pop(1000) == batches
    assert ring.pop(1000) == []


def test_it_takes_so_many_batches_and_no_more_until_some_are_released() -> None:
    ring = Ring(3, 1000)
    assert [ring.push(batch(1)) for _ in range(4)] == [True, True, True, False]
    popped = ring.pop(1000)
    assert not ring.push(batch(1)), "popped is not yet on disk"
    ring.release(popped[:1])
    assert [ring.push(batch(1)) for _ in range(2)] == [True, False]


def test_it_takes_so_many_bytes_and_no_more_until_some_are_released() -> None:
    ring = Ring(100, 10)
    assert [ring.push(batch(size)) for size in (6, 4, 1)] == [True, True, False]
    popped = ring.pop(1000)
    assert not ring.push(batch(1))
    ring.release(popped[:1])
    assert [ring.push(batch(size)) for size in (7, 6, 1)] == [False, True, False]


def test_an_empty_ring_takes_a_batch_of_any_size_and_then_no_other() -> None:
    ring = Ring(100, 10)
    assert ring.push(batch(1000))
    assert not ring.push(batch(1))
    ring.release(ring.pop(1))
    assert ring.push(batch(1000))


def test_a_refused_batch_changes_nothing() -> None:
    ring = Ring(1, 10)
    first = batch(5)
    assert ring.push(first)
    assert not ring.push(batch(1))
    assert (ring.batches, ring.bytes) == (1, 5)
    assert ring.pop(100) == [first]


def test_pop_takes_up_to_the_bytes_asked_for_and_at_least_one_batch() -> None:
    ring = Ring(100, 1000)
    sizes = [50, 5, 5, 1, 20]
    for size in sizes:
        ring.push(batch(size))
    assert [[len(one.lines) for one in ring.pop(10)] for _ in range(4)] == [[50], [5, 5], [1], [20]]


def test_a_popped_batch_is_no_longer_held() -> None:
    ring = Ring(4, 100)
    ring.push(batch(1))
    ring.release(ring.pop(10))
    assert set(ring._slots) == {None}


@given(
    st.integers(1, 5),
    st.integers(1, 40),
    st.lists(
        st.one_of(
            st.tuples(st.just("push"), st.integers(0, 20)),
            st.tuples(st.just("pop"), st.integers(0, 30)),
            st.tuples(st.just("release"), st.integers(1, 5)),
        )
    ),
)
def test_it_does_what_a_plain_queue_with_two_sums_does(
    batches_max: int, bytes_max: int, actions: list[tuple[str, int]]
) -> None:
    ring = Ring(batches_max, bytes_max)
    queue: deque[Batch] = deque()
    popped: deque[Batch] = deque()
    for number, (action, value) in enumerate(actions):
        held = [*popped, *queue]
        if action == "push":
            one = batch(value, number)
            fits = len(held) < batches_max and (
                not held or sum(len(b.lines) for b in held) + value <= bytes_max
            )
            assert ring.push(one) is fits
            if fits:
                queue.append(one)
        elif action == "pop":
            expected: list[Batch] = []
            while queue and (not expected or sum(len(b.lines) for b in [*expected, queue[0]]) <= value):
                expected.append(queue.popleft())
            assert ring.pop(value) == expected
            popped.extend(expected)
        else:
            ring.release([popped.popleft() for _ in range(min(value, len(popped)))])
        held = [*popped, *queue]
        assert (ring.batches, ring.bytes) == (len(held), sum(len(b.lines) for b in held))


def put(ring: Ring, one: Batch) -> bool:
    """A round of one batch."""
    fits = ring.push(one)
    ring.publish()
    return fits


def test_wait_goes_on_while_a_round_is_open() -> None:
    ring = Ring(4, 100)
    ring.push(batch(1))
    consumer = waiting(ring)
    consumer.join(0.05)
    assert consumer.is_alive()
    ring.publish()
    assert returns(consumer)


def waiting(ring: Ring) -> threading.Thread:
    """A consumer that waits on its own thread, longer than the test has patience."""
    thread = threading.Thread(target=ring.wait, args=(PATIENCE_S * 10,), daemon=True)
    thread.start()
    return thread


def returns(thread: threading.Thread) -> bool:
    """True unless it hangs."""
    thread.join(PATIENCE_S)
    return not thread.is_alive()


def test_wait_returns_when_something_is_there_already() -> None:
    ring = Ring(4, 100)
    put(ring, batch(1))
    assert returns(waiting(ring))


def test_wait_returns_when_it_was_woken_before() -> None:
    ring = Ring(4, 100)
    ring.wake()
    ring.wake()
    assert returns(waiting(ring))


def test_wait_returns_when_its_time_is_over() -> None:
    ring = Ring(4, 100)
    thread = threading.Thread(target=ring.wait, args=(0.001,), daemon=True)
    thread.start()
    assert returns(thread)
    assert ring.pop(1) == []


@pytest.mark.parametrize("waker", ["publish", "wake"])
def test_a_sleeping_consumer_is_woken(waker: str) -> None:
    ring = Ring(4, 100)
    consumer = waiting(ring)
    if waker == "publish":
        put(ring, batch(1))
    else:
        ring.wake()
    assert returns(consumer)


class Stepped:
    """A call on its own thread that stops before every line of ring.py until it is told to go on."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self._call = call
        self._free = False
        self.ended = False
        self.at_lock = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self._stopped.acquire(timeout=PATIENCE_S)

    def _run(self) -> None:
        sys.settrace(self._trace)
        try:
            self._call()
        finally:
            sys.settrace(None)
            self.ended = True
            self._stopped.release()

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename != ring_module.__file__:
            return None
        if event == "line" and not self._free:
            line = linecache.getline(ring_module.__file__, frame.f_lineno)
            self.at_lock = "acquire" in line
            self._stopped.release()
            self._go.acquire()
        return self._trace

    def step(self) -> None:
        """Run one line; not the one that may sleep."""
        if not self.ended and not self.at_lock:
            self._go.release()
            assert self._stopped.acquire(timeout=PATIENCE_S)

    def run(self) -> None:
        """Run on without stops."""
        self._free = True
        self._go.release()


@pytest.mark.parametrize("consumer_first", [True, False])
def test_no_interleaving_of_push_and_wait_leaves_the_consumer_asleep(consumer_first: bool) -> None:
    for consumer_lines in range(8):
        for producer_lines in range(14):
            ring = Ring(4, 100)
            consumer = Stepped(lambda ring=ring: ring.wait(PATIENCE_S * 10))  # type: ignore[misc]
            producer = Stepped(lambda ring=ring: put(ring, batch(1)))  # type: ignore[misc]
            turns = [(consumer, consumer_lines), (producer, producer_lines)]
            for stepped, count in turns if consumer_first else reversed(turns):
                for _ in range(count):
                    stepped.step()
            # The consumer goes as far as it comes alone, or to sleep, before the producer goes on.
            for _ in range(10):
                consumer.step()
            producer.run()
            assert returns(producer.thread)
            consumer.run()
            assert returns(consumer.thread), f"asleep after {consumer_lines} and {producer_lines} lines"


@pytest.mark.parametrize(("batches_max", "bytes_max"), [(1, 1000), (3, 1000), (64, 1000), (1000, 40)])
def test_between_two_threads_nothing_is_lost_doubled_or_reordered(batches_max: int, bytes_max: int) -> None:
    count = 20_000
    ring = Ring(batches_max, bytes_max)
    received: list[int] = []
    room = threading.Semaphore(0)
    too_much: list[int] = []

    def consume() -> None:
        while len(received) < count:
            batches = ring.pop(30)
            if not batches:
                # A lost wake-up would sleep longer than the test has patience.
                ring.wait(PATIENCE_S * 10)
                continue
            received.extend(one.received_ms for one in batches)
            ring.release(batches)
            room.release()

    consumer = threading.Thread(target=consume, daemon=True)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        consumer.start()
        for number in range(count):
            one = batch(1 + number % 7, number)
            while not put(ring, one):
                assert room.acquire(timeout=PATIENCE_S), "the consumer sleeps beside a full ring"
            if ring.batches > batches_max or ring.bytes > bytes_max:
                too_much.append(number)
        assert returns(consumer), "a wake-up was lost"
    finally:
        sys.setswitchinterval(interval)
    assert received == list(range(count))
    assert too_much == []
    assert (ring.batches, ring.bytes) == (0, 0)
