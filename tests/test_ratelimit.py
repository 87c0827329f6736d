"""Limits: what passes is what one bucket would let pass, however many workers share it."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd import ratelimit
from ingestd.keys import Key
from ingestd.ratelimit import Bucket, RateLimits, memory_bytes


def key(name: str = "a", **limits: float) -> Key:
    return Key(
        name=name,
        sha256=hashlib.sha256(name.encode()).hexdigest(),
        created=datetime(2026, 1, 1, tzinfo=UTC),
        public=False,
        **limits,
    )


@dataclass
class Workers:
    """Workers that share memory and a clock; each `limits[n]` is what one of them has.

    As long as the clock shows the same time, they look at each other once.
    """

    count: int = 1
    now: float = 5000.0
    limits: list[RateLimits] = field(init=False)

    def __post_init__(self) -> None:
        self.memory = memoryview(bytearray(memory_bytes(self.count)))
        self.limits = [self.start(number) for number in range(self.count)]

    def start(self, number: int) -> RateLimits:
        """A process of this worker that has just started."""
        return RateLimits(self.memory, number, self.count, lambda: self.now)

    def clear(self, number: int) -> None:
        """The memory of this worker as it was at the beginning."""
        size = memory_bytes(1)
        self.memory[number * size : (number + 1) * size] = bytes(size)

    def buckets(self, key: Key) -> list[Bucket]:
        """What each worker has for the events of this key."""
        return [events(limits, key) for limits in self.limits]


def events(limits: RateLimits, key: Key) -> Bucket:
    bucket = limits.events(key)
    assert bucket is not None
    return bucket


def ask(bucket: Bucket, count: int) -> int | None:
    """Let so many events of one request pass, if they may: None; else the seconds of Retry-After."""
    refusal = bucket.refusal()
    if refusal is not None:
        assert (refusal.status, refusal.code) == (429, "rate_limited")
        return int(refusal.headers.removeprefix(b"Retry-After: "))
    bucket.charge(count)
    return None


# -- one worker ------------------------------------------------------------------------------


def test_a_key_without_limits_has_no_buckets() -> None:
    [limits] = Workers().limits
    assert (limits.events(key()), limits.requests(key())) == (None, None)
    assert (limits.events(key(requests_per_s=1)), limits.requests(key(events_per_s=1))) == (None, None)


def test_a_burst_passes_and_then_the_rate() -> None:
    workers = Workers()
    [bucket] = workers.buckets(key(events_per_s=5, burst_s=2))
    assert [ask(bucket, 1) for _ in range(12)] == [None] * 10 + [1, 1]
    for _ in range(20):
        workers.now += 0.2
        assert [ask(bucket, 1) for _ in range(2)] == [None, 1]
    workers.now += 1000
    assert [ask(bucket, 1) for _ in range(11)] == [None] * 10 + [1]


def test_what_is_larger_than_the_burst_passes_whole_and_leaves_a_debt() -> None:
    workers = Workers()
    [bucket] = workers.buckets(key(events_per_s=10))
    assert ask(bucket, 100) is None
    assert ask(bucket, 1) == 10
    workers.now += 8.5
    assert ask(bucket, 1) == 1
    workers.now += 0.51
    assert ask(bucket, 1) is None


def test_a_limit_below_one_a_second_lets_one_pass_and_says_when_the_next_may() -> None:
    workers = Workers()
    [bucket] = workers.buckets(key(events_per_s=0.1))
    assert ask(bucket, 1) is None
    assert ask(bucket, 1) == 10
    workers.now += 9.5
    assert ask(bucket, 1) is None


@pytest.mark.parametrize("now", [0.0, 1e3, 1e7])
@pytest.mark.parametrize("per_s", [1, 3, 7, 1000, 100_000])
def test_a_burst_is_what_it_should_be_however_long_the_machine_is_up(per_s: int, now: float) -> None:
    """A float of so many seconds has steps of 2e-9: one ten-thousandth of a hundred-thousandth."""
    [bucket] = Workers(now=now).buckets(key(events_per_s=per_s))
    passed = sum(ask(bucket, 1) is None for _ in range(per_s + 10))
    assert passed == pytest.approx(per_s, rel=1e-4)
    assert passed == per_s or per_s == 100_000


def test_the_limits_on_events_and_on_requests_are_two() -> None:
    [limits] = Workers().limits
    both = key(events_per_s=2, requests_per_s=3)
    requests = limits.requests(both)
    assert requests is not None
    assert [ask(events(limits, both), 1) for _ in range(3)] == [None, None, 1]
    assert [requests.take() for _ in range(4)] == [True, True, True, False]


def test_as_many_single_ones_may_pass_as_would_pass_one_by_one() -> None:
    [limits] = Workers().limits
    bucket = events(limits, key(events_per_s=4, burst_s=1.6))
    for passed in range(7):
        assert [bucket.holds(count) for count in (1, 7 - passed, 8 - passed)] == [True, True, False]
        assert ask(bucket, 1) is None
    assert not bucket.holds(1)


@pytest.mark.parametrize("name", ["events_per_s", "requests_per_s"])
def test_a_refusal_names_the_limit(name: str) -> None:
    [limits] = Workers().limits
    limited = msgspec.structs.replace(key(), **{name: 2.5})
    bucket = limits.events(limited) or limits.requests(limited)
    assert bucket is not None
    assert ask(bucket, 1000) is None
    refusal = bucket.refusal()
    assert refusal is not None
    assert refusal.error == "Rate limit exceeded. Please retry later."
    assert refusal.detail == f"the limit of this key is used up: {name} = 2.5"


@given(
    st.floats(0.01, 1e6), st.floats(0.001, 100), st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 10)))
)
def test_who_waits_as_long_as_retry_after_says_passes_and_who_comes_a_second_earlier_does_not(
    per_s: float, burst_s: float, asked: list[tuple[int, float]]
) -> None:
    workers = Workers()
    [bucket] = workers.buckets(key(events_per_s=per_s, burst_s=burst_s))
    for count, pause_s in asked:
        wait_s = ask(bucket, count)
        if wait_s is not None:
            assert wait_s >= 1
            start = workers.now
            workers.now = max(start, start + wait_s - 1.001)
            assert bucket.refusal() is not None
            workers.now = start + wait_s
            assert ask(bucket, count) is None
        workers.now += pause_s


# -- several workers -------------------------------------------------------------------------

STEPS: Final = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 300), st.sampled_from([1e-6, 1e-6, 0.01, 0.3, 5.0])),
    max_size=200,
)
LIMITED: Final = st.builds(
    key, events_per_s=st.sampled_from([0.5, 10, 99.9, 5000]), burst_s=st.sampled_from([0.05, 1, 7])
)


@given(LIMITED, STEPS)
def test_all_workers_together_decide_as_one_bucket_would(
    limited: Key, steps: list[tuple[int, int, float]]
) -> None:
    several, alone = Workers(4), Workers()
    shared, [single] = several.buckets(limited), alone.buckets(limited)
    for worker, count, pause_s in steps:
        assert ask(shared[worker], count) == ask(single, count)
        several.now += pause_s
        alone.now += pause_s


@given(LIMITED, STEPS, st.data())
def test_workers_that_start_anew_forget_nothing_while_others_know_it(
    limited: Key, steps: list[tuple[int, int, float]], data: st.DataObject
) -> None:
    """Their memory may be kept or cleared; that of the last one to let something pass is kept here."""
    several, alone = Workers(4), Workers()
    [single] = alone.buckets(limited)
    buckets = several.buckets(limited)
    last = 0
    for worker, count, pause_s in steps:
        fate = data.draw(st.sampled_from(["lives", "lives", "restarts", "is cleared"]))
        if fate != "lives":
            if fate == "is cleared" and worker != last:
                several.clear(worker)
            several.limits[worker] = several.start(worker)
            buckets[worker] = events(several.limits[worker], limited)
        wait_s = ask(buckets[worker], count)
        assert wait_s == ask(single, count)
        last = worker if wait_s is None else last
        several.now += pause_s
        alone.now += pause_s


@given(
    count=st.integers(1, 5),
    per_s=st.integers(10, 200),
    burst_s=st.sampled_from([0.3, 1]),
    largest=st.sampled_from([1, 10, 60]),
    seed=st.integers(0, 1000),
)
def test_demand_above_the_limit_gets_the_limit_and_not_more(
    count: int, per_s: int, burst_s: float, largest: int, seed: int
) -> None:
    """Each worker decides and counts in two steps, between which the others do theirs."""
    random = Random(seed)
    workers = Workers(count)
    decided: dict[Bucket, int] = {}
    buckets = workers.buckets(key(events_per_s=per_s, burst_s=burst_s))
    start, passed = workers.now, 0
    for _ in range(1000):
        for bucket in random.sample(buckets, count):
            if bucket in decided:
                passed += decided[bucket]
                bucket.charge(decided.pop(bucket))
            elif bucket.refusal() is None:
                decided[bucket] = random.randint(1, largest)
        workers.now += random.uniform(0.0, 0.2 * count / per_s)
    allowed = per_s * (workers.now - start + burst_s)
    assert passed <= allowed + count * largest
    assert passed >= 0.97 * allowed - count * largest


@pytest.mark.parametrize("per_s", [20, 1000, 50_000])
@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize("tick_s", [0.001, 0.25])
def test_workers_that_are_each_within_the_limit_are_held_to_it_together(
    per_s: int, count: int, tick_s: float
) -> None:
    """All of them let pass at the same moment what each of them takes for the first."""
    workers = Workers(count)
    buckets = workers.buckets(key(events_per_s=per_s, burst_s=2))
    ticks, passed, due = int(20 / tick_s), 0, 0.0
    for _ in range(ticks):
        due += 1.5 * per_s * tick_s / count
        allowed = [bucket for bucket in buckets if int(due) and bucket.refusal() is None]
        for bucket in allowed:
            bucket.charge(int(due))
            passed += int(due)
        due -= int(due)
        workers.now += tick_s
    assert passed == pytest.approx(per_s * (20 + 2), rel=0.03)


def test_a_limit_that_has_changed_begins_full_and_one_that_has_not_goes_on() -> None:
    workers = Workers(2)
    before, after = key(events_per_s=5, requests_per_s=7), key(events_per_s=5, requests_per_s=8)
    first, second = workers.limits
    for bucket in (first.events(before), first.requests(before)):
        assert bucket is not None
        assert ask(bucket, 100) is None
    for limits in (first, second):
        assert ask(events(limits, after), 1) == 20
        requests = limits.requests(after)
        assert requests is not None
        assert requests.take()


def test_keys_do_not_mix_in_workers_that_have_met_them_in_another_order() -> None:
    workers = Workers(2)
    many = [key(f"k{i}", events_per_s=10) for i in range(300)]
    first = [events(workers.limits[0], one) for one in many]
    second = [events(workers.limits[1], one) for one in reversed(many)][::-1]
    for i, bucket in enumerate(first):
        assert ask(bucket, 10 * i + 10) is None
    for i, bucket in enumerate(second):
        assert ask(bucket, 1) == i + 1


# -- bounds ----------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for 8 limits."""
    monkeypatch.setattr(ratelimit, "SLOTS", 8)
    monkeypatch.setattr(ratelimit, "_REGION_BYTES", 8 * 24)
    monkeypatch.setattr(ratelimit, "_PROBES_MAX", 8)


@pytest.mark.usefixtures("small")
def test_limits_that_nobody_uses_give_their_room_to_new_ones() -> None:
    workers = Workers(2)
    kept = key("kept", events_per_s=10)
    first, second = workers.buckets(kept)
    assert ask(first, 100) is None
    assert ask(second, 1) == 10
    for i in range(100):
        new = key(f"k{i}", events_per_s=1)
        for limits in workers.limits:
            limits.keep([kept])
        assert ask(events(workers.limits[0], new), 50) is None
        assert ask(events(workers.limits[1], new), 1) == 50
        assert ask(second, 1) == 10
        assert ask(first, 1) == 10
    workers.now += 10
    assert ask(first, 100) is None
    assert ask(second, 1) == 10


@pytest.mark.usefixtures("small")
def test_a_slot_that_has_become_that_of_another_limit_is_not_taken_for_it() -> None:
    workers = Workers(2)
    limited = key(events_per_s=10)
    first, second = workers.buckets(limited)
    assert (ask(first, 5), ask(second, 5)) == (None, None)
    workers.clear(0)
    workers.limits[0] = workers.start(0)
    others = [events(workers.limits[0], key(f"k{i}", events_per_s=1000)) for i in range(8)]
    for _ in range(3):
        workers.now += 10
        assert all(ask(other, 5000) is None for other in others)
        assert ask(second, 10) is None


@pytest.mark.usefixtures("small")
def test_limits_for_which_there_is_no_room_are_split_evenly(caplog: pytest.LogCaptureFixture) -> None:
    workers = Workers(2)
    used = [workers.buckets(key(f"k{i}", events_per_s=1)) for i in range(8)]
    with caplog.at_level(logging.WARNING):
        first, second = workers.buckets(key("late", events_per_s=20))
    assert [record.getMessage() for record in caplog.records] == [
        "key 'late': too many limits to share; each worker has its part of events_per_s"
    ] * 2
    for bucket in (first, second):
        assert sum(ask(bucket, 1) is None for _ in range(50)) == 10
    assert all(ask(bucket, 1) is None for bucket, _ in used)


def test_memory_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match=r"too few for the limits of 3 workers"):
        RateLimits(memoryview(bytearray(memory_bytes(3) - 1)), 0, 3, lambda: 0.0)


def test_a_worker_has_one_bucket_for_a_limit_however_often_it_is_asked_for() -> None:
    [limits] = Workers().limits
    limited = key(events_per_s=3)
    assert limits.events(limited) is limits.events(limited)
