"""The limit of a key holds across real processes that do nothing but ask."""

from __future__ import annotations

import mmap
import multiprocessing
import time
from pathlib import Path
from typing import Final

import pytest

from ingestd.ratelimit import RateLimits, memory_bytes
from tests.support.server import wait_until
from tests.test_ratelimit import events, key

PER_S: Final = 2000
BURST_S: Final = 20
"""So long may this machine do something else: no bucket gets full meanwhile."""
LIMITED: Final = key(events_per_s=PER_S, burst_s=BURST_S)
ASKED, PASSED, FIRST_AT, LAST_AT, NUMBERS = range(5)


def _mapped(path: Path) -> memoryview:
    with path.open("r+b") as f:
        return memoryview(mmap.mmap(f.fileno(), 0))


def ask_and_ask(path: Path, worker: int, workers: int) -> None:
    """One worker: let pass what may until it is told to stop, and then until something may not."""
    memory = _mapped(path)
    told = memory[memory_bytes(workers) :].cast("d")
    mine = told[1 + worker * NUMBERS : 1 + (worker + 1) * NUMBERS]

    def clock() -> float:
        mine[LAST_AT] = now = time.monotonic()
        mine[FIRST_AT] = mine[FIRST_AT] or now
        return now

    bucket = events(RateLimits(memory[: memory_bytes(workers)], worker, workers, clock), LIMITED)
    while True:
        is_last = bool(told[0])
        if bucket.take():
            mine[PASSED] += 1
        elif is_last:
            break
        mine[ASKED] += 1


@pytest.mark.parametrize("workers", [2, 5])
def test_the_limit_holds_across_processes(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "memory"
    path.write_bytes(bytes(memory_bytes(workers) + 8 * (1 + workers * NUMBERS)))
    told = _mapped(path)[memory_bytes(workers) :].cast("d")
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=ask_and_ask, args=(path, n, workers)) for n in range(workers)]
    for process in processes:
        process.start()

    def numbers(which: int) -> list[float]:
        return [told[1 + n * NUMBERS + which] for n in range(workers)]

    wait_until(lambda: min(numbers(ASKED)) > 10_000, "all have asked")
    most = sum(numbers(PASSED)) + PER_S / 2
    wait_until(lambda: sum(numbers(PASSED)) > most, "more has passed")
    told[0] = 1
    for process in processes:
        process.join(20)
        assert process.exitcode == 0
    allowed = PER_S * (max(numbers(LAST_AT)) - min(numbers(FIRST_AT)) + BURST_S)
    assert sum(numbers(PASSED)) == pytest.approx(allowed, rel=0.01)
