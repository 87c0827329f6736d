"""Waiting: longer after each failure, apart from others, and as the bound on bytes says."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from ingestd.ship.pace import Backoff, Pace


def test_each_wait_is_up_to_twice_the_one_before_and_never_over_a_minute() -> None:
    now = [100.0]
    backoff = Backoff(lambda: now[0], Random(1))
    for failure in range(2000):
        most = min(60.0, 0.5 * 2 ** min(failure, 20))
        wait_s = backoff.failed()
        assert most / 2 <= wait_s <= most
        assert backoff.until == now[0] + wait_s
    assert backoff.failures == 2000
    backoff.succeeded()
    assert (backoff.failures, backoff.until) == (0, 0.0)
    assert backoff.failed() <= 0.5


def test_two_shippers_do_not_come_again_at_the_same_time() -> None:
    first, second = (Backoff(lambda: 0.0, Random(seed)) for seed in (1, 2))
    assert all(first.failed() != second.failed() for _ in range(20))


async def test_what_is_sent_is_paid_off_before_more_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [0.0], list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(asyncio, "sleep", sleep)
    pace = Pace(1000, lambda: now[0])
    for size in (500, 2000, 100):
        await pace.take(size)
    assert slept == [0.0, 0.5, 2.0]
    now[0] = 100.0
    # An idle time is not saved up.
    await pace.take(1000)
    await pace.take(1000)
    assert slept[3:] == [0.0, 1.0]


async def test_without_a_bound_nothing_waits() -> None:
    pace = Pace(0, lambda: pytest.fail("no clock is looked at"))
    await pace.take(1 << 60)
