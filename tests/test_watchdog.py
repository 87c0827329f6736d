"""When the watchdog is fed, and who is killed: on beats and a clock of the test's own."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ingestd.service.scoreboard import FLUSHER_BEAT_MS, LOOP_BEAT_MS, WORKER_FIELDS, Table
from ingestd.service.systemd import Notifier, watchdog_s
from ingestd.service.watchdog import Watchdog
from tests.support.manager import Manager

WATCHDOG_S = 60.0
LOOK_S = 10.0


@dataclass
class Worker:
    number: int
    is_ready: bool = True
    due_at: float = 0.0
    signals: list[int] = field(default_factory=list)

    def signal(self, number: int) -> None:
        self.signals.append(number)


class Watch:
    """A watchdog over workers that all beat before each look but those in `halted`."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.manager = Manager(str(folder / "notify"))
        self.workers = [Worker(number) for number in range(workers)]
        self.halted: set[tuple[int, str]] = set()
        self.now = 1000.0
        self.table = Table.lay_out(
            memoryview(bytearray(Table.bytes_for(WORKER_FIELDS, workers))), WORKER_FIELDS
        )
        self.notifier = Notifier({"NOTIFY_SOCKET": self.manager.address})
        self.watchdog = Watchdog(WATCHDOG_S, self.table, self.notifier)
        self.watchdog.start(self.now)

    def look(self) -> bool:
        """Let the time of a look pass; true if the watchdog was fed."""
        self.now += LOOK_S
        for worker in self.workers:
            for name in (LOOP_BEAT_MS, FLUSHER_BEAT_MS):
                if (worker.number, name) not in self.halted:
                    self.table.row(worker.number)[name] = int(self.now * 1000) - 1
        self.watchdog.look(self.now, self.workers)
        self.manager.told.clear()
        self.manager.rest()
        return self.manager.told == ["WATCHDOG=1"]

    def close(self) -> None:
        self.notifier.close()
        self.manager.close()

    @property
    def killed(self) -> list[int]:
        return [worker.number for worker in self.workers if worker.signals == [signal.SIGKILL]]


Over = Callable[[int], Watch]


@pytest.fixture
def over(tmp_path: Path) -> Iterator[Over]:
    """Makes a watch over so many workers."""
    with ExitStack() as closing:

        def make(workers: int) -> Watch:
            watch = Watch(tmp_path, workers)
            closing.callback(watch.close)
            return watch

        yield make


def test_it_is_fed_several_times_in_the_time_that_systemd_waits(over: Over) -> None:
    watch = over(3)
    assert all(watch.look() for _ in range(6))
    assert watch.now - 1000 <= WATCHDOG_S


@pytest.mark.parametrize("name", [LOOP_BEAT_MS, FLUSHER_BEAT_MS])
def test_one_that_stands_still_is_killed_once_and_its_successor_has_time_to_start(
    over: Over, name: str
) -> None:
    watch = over(3)
    assert watch.look()
    watch.halted = {(1, name)}
    assert not watch.look()
    assert watch.killed == []
    assert not watch.look()
    assert watch.killed == [1]
    watch.workers[1].is_ready, watch.workers[1].due_at = False, watch.now + 300
    assert watch.look()
    assert watch.watchdog.problem == ""


def test_a_kill_that_does_not_help_leaves_the_rest_to_systemd(over: Over) -> None:
    watch = over(3)
    watch.look()
    watch.halted = {(1, FLUSHER_BEAT_MS)}
    assert not any(watch.look() for _ in range(6))
    assert watch.killed == [1]
    assert "worker 1 has a flusher that stands still for 60 s" in watch.watchdog.problem


@pytest.mark.parametrize("workers", [1, 2])
def test_when_all_stand_still_none_is_killed_for_the_cause_is_elsewhere(over: Over, workers: int) -> None:
    watch = over(workers)
    watch.look()
    watch.halted = {(number, LOOP_BEAT_MS) for number in range(workers)}
    assert not any(watch.look() for _ in range(6))
    assert watch.killed == []
    watch.halted = set()
    assert watch.look()


def test_a_hiccup_is_no_halt(over: Over) -> None:
    watch = over(2)
    for _ in range(3):
        watch.halted = {(0, LOOP_BEAT_MS)}
        watch.look()
        watch.halted = set()
        assert watch.look()
    assert watch.killed == []


def test_one_that_never_gets_ready_starves_the_watchdog_and_is_not_killed_for_it(over: Over) -> None:
    watch = over(2)
    watch.look()
    watch.workers[0].is_ready, watch.workers[0].due_at = False, watch.now + 2.5 * LOOK_S
    watch.halted = {(0, LOOP_BEAT_MS)}
    assert [watch.look() for _ in range(5)] == [True, True, False, False, False]
    assert watch.killed == []
    assert "worker 0 does not get ready" in watch.watchdog.problem


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_the_time_of_the_watchdog_is_read_as_systemd_says_it(
    environ: dict[str, str], expected: float | None
) -> None:
    assert watchdog_s(environ) == expected


def test_without_systemd_it_never_looks() -> None:
    watchdog = Watchdog(None, Table(memoryview(bytearray(64))), Notifier({}))
    watchdog.start(0.0)
    watchdog.look(1e12, [Worker(0)])
