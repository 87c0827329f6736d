"""Delivery to a log, with a log that takes what it is told to and a disk that refuses: order, and cursors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from ingestd.config import Settings
from ingestd.errors import StorageError
from ingestd.eventlog.log import LogError, Lost, Message
from ingestd.eventlog.messages import Messages
from ingestd.ship.events import Events
from ingestd.ship.pace import Pace
from ingestd.ship.shipper import Shipper
from ingestd.storage.disk import Disk
from ingestd.storage.shipped import Markers
from tests.support.logs import lines_in_order
from tests.support.shipping import markers, stock


class KeptLog:
    """Keeps what it is sent; fails with each of its `errors` once, one a call of `settle`."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.errors: list[LogError] = []
        self._pending: list[Message] = []

    def put(self, messages: Sequence[Message]) -> None:
        self._pending += messages

    def settle(self, timeout_s: float) -> None:
        assert timeout_s > 0
        if self.errors:
            error = self.errors.pop(0)
            if error.is_lost:
                self._pending = []
            raise error
        self.values += [message.value for message in self._pending]
        self._pending = []

    def forget(self) -> None:
        self._pending = []

    def probe(self, timeout_s: float) -> None:
        """It is always there."""

    def close(self) -> None:
        """It holds nothing."""


class NoCursors(Disk):
    """Full, but for what is smaller than a cursor's file."""

    def replace_file(self, path: Path, data: bytes) -> None:
        if path.suffix == ".cursor":
            raise StorageError(f"write {path}: No space left on device")
        super().replace_file(path, data)


def shipper(data_dir: Path, log: KeptLog, disk: Disk | None = None) -> Shipper:
    """One of this process, to that log."""
    kept = Markers(disk or Disk(), data_dir, "log")
    kept.hold(shared=True)
    settings, stop = Settings(), asyncio.Event()
    messages = Messages(settings.message_key, settings.message_headers)
    delivery = Events(Disk(), log, "log", messages, kept, Pace(0, lambda: 0.0), 1, stop)
    made = Shipper(Disk(), data_dir, delivery, kept, stopping=stop)
    made.begin("log")
    return made


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shippers try again at once."""
    monkeypatch.setattr("ingestd.ship.pace._FIRST_S", 0.01)
    monkeypatch.setattr("ingestd.ship.events._GROUP_BYTES", 100)


@pytest.mark.parametrize("kind", [LogError, Lost])
async def test_a_log_that_fails_now_and_then_has_all_in_order_and_nothing_twice(
    kind: type[LogError], tmp_path: Path
) -> None:
    log = KeptLog()
    log.errors = [kind("no broker") for _ in range(4)]
    made = stock(tmp_path / "data", 3, commits=4)
    assert await shipper(tmp_path / "data", log).run_once()
    assert log.values == lines_in_order(tmp_path / "data")
    assert markers(tmp_path / "data") == made.keys()


async def test_a_disk_that_takes_no_cursor_changes_no_order_and_is_told_of_once(tmp_path: Path) -> None:
    log, told = KeptLog(), list[str]()
    stock(tmp_path / "data", 3, commits=4)
    made = shipper(tmp_path / "data", log, NoCursors())
    made._say = lambda _level, text, *arguments: told.append(text % arguments)
    assert await made.run_once()
    assert log.values == lines_in_order(tmp_path / "data")
    assert made.tally.retries == 0


@pytest.mark.parametrize(
    ("cursor", "told"), [("5", "it says 5 commits of 4"), ("x", "it should hold a number"), ("", "number")]
)
async def test_a_damaged_cursor_keeps_its_segment_here(cursor: str, told: str, tmp_path: Path) -> None:
    log, said = KeptLog(), list[str]()
    stock(tmp_path / "data", 2, commits=4)
    made = shipper(tmp_path / "data", log)
    made._say = lambda _level, text, *arguments: said.append(text % arguments)
    await made.look()
    mark = min(made.behind)
    path = tmp_path / "data" / "shipped" / "log" / f"{mark}.cursor"
    path.write_text(cursor)
    assert not await made.run_once()
    assert len(log.values) == 12
    assert len(markers(tmp_path / "data")) == 1
    assert any(told in line for line in said)
    path.unlink()
    assert await shipper(tmp_path / "data", log).run_once()
    assert sorted(log.values) == sorted(lines_in_order(tmp_path / "data"))


async def test_a_cursor_says_where_to_go_on(tmp_path: Path) -> None:
    log = KeptLog()
    stock(tmp_path / "data", 1, commits=4)
    made = shipper(tmp_path / "data", log)
    await made.look()
    (mark,) = made.behind
    made._markers.put_cursor(mark, 3)
    assert await made.run_once()
    assert log.values == lines_in_order(tmp_path / "data")[9:]


async def test_the_cursor_of_a_segment_that_is_gone_is_removed(tmp_path: Path) -> None:
    stock(tmp_path / "data", 1)
    made = shipper(tmp_path / "data", KeptLog())
    made._markers.put_cursor("20260102T030405.678Z-node-w0-000009-1-2", 3)
    await made.look()
    assert made._markers.cursors() == []
