"""Segments one after the other: when one ends, what the next is called, and what can fail at that."""

from __future__ import annotations

import errno
import threading
from datetime import UTC, datetime, tzinfo
from random import Random

import pytest

from ingestd.storage import packing, rotation
from ingestd.storage.segment import OPEN_SUFFIX, walk
from tests.storage.running import PATIENCE_S, after_power_cut, sealed, started, stored
from tests.storage.samples import DATA, batch, lines, new_disk, tree
from tests.support.server import wait_until


def test_segments_rotate_by_size_and_none_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    # Packed, they would be smaller.
    monkeypatch.setattr(packing, "pays", lambda *_: False)
    disk = new_disk()
    running = started(disk, segment_bytes_max=1024)
    running.commit(*[batch(n) for n in range(60)])
    running.stop()
    *full, last = sealed(disk)
    assert len(full) > 1
    assert len(full) + 1 == running.sealer.segments_sealed
    for data in [*full, last]:
        found = walk(data)
        assert found.state == "sealed"
        assert found.chain.commits
    assert all(walk(data).chain.end >= 1024 > walk(data).chain.commits[-1].offset for data in full)
    assert stored(disk) == lines(60)


def test_a_segment_is_sealed_by_age_without_another_push() -> None:
    disk = new_disk()
    moved = threading.Event()
    disk.on_call = lambda call, _: moved.set() if call == "link" else None
    running = started(disk, segment_age_max_s=0.01)
    running.commit(batch(0))
    assert moved.wait(PATIENCE_S)
    running.commit(batch(1))
    running.stop()
    assert [walk(data).chain.events for data in sealed(disk)] == [1, 1]


def test_without_events_there_is_no_segment() -> None:
    disk = new_disk()
    running = started(disk, segment_age_max_s=0.001)
    running.stop()
    assert tree(disk) == {}
    assert "create" not in [call for call, _ in disk.calls]


@pytest.mark.parametrize("call", ["write", "fdatasync", "mkdir", "link", "fsync", "unlink"])
@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5])
def test_a_seal_that_fails_at_any_call_loses_nothing(call: str, nth: int) -> None:
    disk = new_disk()
    running = started(disk)
    running.commit(batch(0), batch(1))
    disk.fail(call, nth=nth, lies=call == "fdatasync")
    running.stop()
    disk.mend()
    for seed in range(3):
        assert after_power_cut(disk, Random(seed)) == lines(2)
    assert after_power_cut(disk) == lines(2)
    assert stored(disk) == lines(2)


def test_a_segment_stranded_on_a_full_disk_is_sealed_when_there_is_room_again() -> None:
    disk = new_disk()
    running = started(disk)
    running.commit(batch(0))
    disk.fail("write", error=errno.ENOSPC, once=False)
    assert "No space left" in str(running.commit(batch(1)))
    assert "No space left" in str(running.commit(batch(2)))
    # Those of the refused batches are empty, and go.
    wait_until(lambda: len(disk.list(DATA / "open", f"*{OPEN_SUFFIX}")) == 1, "one file is stranded")
    disk.mend()
    assert running.commit(batch(3)) is None
    running.stop()
    assert [name for name in tree(disk) if not name.startswith("segments/")] == []
    assert stored(disk) == lines(1) + lines(1, 3)


class _StoppedClock(datetime):
    """A machine that always boots into the same moment."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> _StoppedClock:
        return cls(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=tz or UTC)


def test_a_name_used_before_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "datetime", _StoppedClock)
    disk = new_disk()
    for start in range(3):
        running = started(disk)
        assert running.commit(batch(start)) is None
        running.stop()
    assert len(sealed(disk)) == 3
    assert stored(disk) == lines(3)


def test_a_file_left_open_does_not_fail_a_commit_of_the_same_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "datetime", _StoppedClock)
    disk = new_disk()
    killed = started(disk)
    killed.commit(batch(0))
    running = started(disk)
    assert running.commit(batch(1)) is None
    running.stop()
    killed.stop()
    assert stored(disk) == lines(2)
