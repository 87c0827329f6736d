"""The flusher on its own thread, between a real ring and a disk that fails where it is told to."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from queue import Queue
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.events import Batch
from ingestd.ring import Ring
from ingestd.storage import flusher as flusher_module
from ingestd.storage.disk import Disk
from ingestd.storage.flusher import smoothed
from ingestd.storage.segment import walk
from tests.storage.running import PATIENCE_S, Running, after_power_cut, put, sealed, started, stored
from tests.storage.samples import DATA, batch, lines, new_disk, tree


def test_what_waits_is_one_commit_with_one_acknowledgement_in_order() -> None:
    running = Running(new_disk())
    batches = [batch(n) for n in range(5)]
    for one in batches:
        put(running.ring, one)
    running.start()
    assert running.acks.get(timeout=PATIENCE_S) == (batches, None)
    running.stop()
    assert running.acks.empty()
    assert (running.flusher.commits, running.flusher.events_stored, running.sealer.segments_sealed) == (
        1,
        5,
        1,
    )
    assert stored(running.disk) == lines(5)


def test_a_commit_takes_up_to_the_bytes_that_are_set() -> None:
    running = Running(new_disk(), commit_bytes_max=2 * len(lines(1)))
    batches = [batch(n) for n in range(5)]
    for one in batches:
        put(running.ring, one)
    running.start()
    acknowledged = [running.acks.get(timeout=PATIENCE_S)[0] for _ in range(3)]
    running.stop()
    assert acknowledged == [batches[:2], batches[2:4], batches[4:]]


def test_with_ack_fsync_every_acknowledged_line_survives_a_power_cut_at_that_moment() -> None:
    disk = new_disk()
    running = Running(disk, segment_bytes_max=1000)
    survived: list[bytes] = []
    running.on_ack = lambda: survived.append(after_power_cut(disk))
    running.start()
    running.commit(*[batch(n) for n in range(50)])
    running.stop()
    assert survived == [lines(n + 1) for n in range(50)]
    assert running.sealer.segments_sealed > 1


@pytest.mark.parametrize("ack", ["write", "memory"])
def test_with_the_other_ack_levels_the_kernel_has_it_but_nothing_is_synced_before_the_seal(ack: str) -> None:
    disk = new_disk()
    running = started(disk, ack=ack)
    running.commit(batch(0), batch(1))
    assert stored(disk) == lines(2)
    assert after_power_cut(disk) == b""
    assert "fdatasync" not in [call for call, _ in disk.calls]
    running.stop()
    assert after_power_cut(disk) == lines(2)


@pytest.mark.parametrize("call", ["write", "fdatasync"])
@pytest.mark.parametrize("lies", [False, True])
def test_a_failed_commit_fails_all_that_wait_and_its_file_is_never_used_again(call: str, lies: bool) -> None:
    disk = new_disk()
    running = Running(disk)
    put(running.ring, batch(0))
    running.start()
    running.acks.get(timeout=PATIENCE_S)
    (path,) = disk.list(DATA / "open", "*")
    disk.fail(call, error=errno.EIO, lies=lies)
    waiting = [batch(100), batch(200, 3)]
    # Both must wait when the flusher looks, so the first commit of the two is held back.
    released = threading.Event()
    held = threading.Event()

    def hold(called: str, _: str) -> None:
        if called == call and not held.is_set():
            held.set()
            assert released.wait(PATIENCE_S)

    disk.on_call = hold
    put(running.ring, batch(300))
    assert held.wait(PATIENCE_S)
    for one in waiting:
        put(running.ring, one)
    released.set()
    _, error = running.acks.get(timeout=PATIENCE_S)
    assert str(error).endswith("Input/output error")
    failed_at = len(disk.calls)
    assert running.acks.get(timeout=PATIENCE_S) == (waiting, None)
    running.stop()
    assert not {("write", path.name), ("fdatasync", path.name)} & set(disk.calls[failed_at:])
    assert (running.flusher.events_stored, running.flusher.events_failed) == (5, 1)
    assert running.flusher.error is None
    assert stored(disk) == lines(1) + lines(1, 100) + lines(3, 200)
    assert after_power_cut(disk) == stored(disk)
    assert disk.list(DATA / "open", "*") == []


def test_every_batch_of_a_failed_commit_gets_the_error_once() -> None:
    disk = new_disk()
    disk.fail("fdatasync")
    running = Running(disk)
    batches = [batch(n) for n in range(7)]
    for one in batches:
        put(running.ring, one)
    running.start()
    done, error = running.acks.get(timeout=PATIENCE_S)
    running.stop()
    assert (done, str(error)) == (batches, "fdatasync segment: Input/output error")
    assert running.acks.empty()
    assert tree(disk) == {}


@pytest.mark.parametrize("call", ["create", "fsync"])
def test_a_segment_that_cannot_be_opened_fails_its_batches_and_leaves_nothing(call: str) -> None:
    disk = new_disk()
    disk.fail(call)
    running = started(disk)
    assert running.commit(batch(0)) is not None
    assert tree(disk) == {}
    assert running.commit(batch(1)) is None
    running.stop()
    assert stored(disk) == lines(1, 1)


def test_stop_commits_what_waits_and_seals() -> None:
    disk = new_disk()
    running = Running(disk)
    put(running.ring, batch(0))
    running.flusher.stop()
    running.start()
    running.stop()
    assert running.acks.get(timeout=PATIENCE_S)[1] is None
    assert [walk(data).state for data in sealed(disk.crash())] == ["sealed"]


def test_a_batch_pushed_just_before_stop_is_committed() -> None:
    class LateRing(Ring):
        """Everything arrives when the flusher has just seen an empty ring."""

        late = True

        def pop(self, bytes_max: int) -> list[Batch]:
            found = super().pop(bytes_max)
            if self.late:
                self.late = False
                assert self.push(batch(0))
                running.flusher.stop()
            return found

    running = Running(new_disk(), ring=LateRing(10, 1000))
    running.start()
    running.flusher.join()
    assert running.acks.get_nowait()[1] is None
    assert stored(running.disk) == lines(1)


@pytest.mark.parametrize("call", ["write", "fdatasync", "fsync", "mkdir", "link", "close"])
def test_a_bug_ends_neither_the_thread_nor_the_data(call: str, caplog: pytest.LogCaptureFixture) -> None:
    disk = new_disk()
    running = started(disk)
    running.commit(batch(0))
    broken = threading.Event()

    def bug(called: str, _: str) -> None:
        if called == call and not broken.is_set():
            broken.set()
            raise ZeroDivisionError("a bug")

    disk.on_call = bug
    if call in ("write", "fdatasync"):
        assert str(running.commit(batch(1))) == "a bug (ZeroDivisionError), see the log"
        assert running.commit(batch(2)) is None
    running.stop()
    assert "ZeroDivisionError: a bug" in caplog.text
    assert stored(disk).startswith(lines(1))
    assert after_power_cut(disk) == stored(disk)


def test_storage_that_works_again_shows_without_traffic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flusher_module, "_PROBE_S", 0.0)
    disk = new_disk()
    probed: Queue[str] = Queue()
    disk.on_call = lambda call, name: probed.put(call) if name == ".probe-w0.new" else None
    disk.fail("write", error=errno.ENOSPC, once=False)
    running = started(disk)
    assert running.commit(batch(0)) is not None
    assert "No space left" in str(running.flusher.error)
    disk.mend()
    # The last call of a probe that goes well.
    assert probed.get(timeout=PATIENCE_S) == "unlink"
    running.stop()
    assert running.flusher.error is None
    assert tree(disk) == {}


def test_a_disk_that_still_fails_is_still_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flusher_module, "_PROBE_S", 0.0)
    disk = new_disk()
    disk.fail("write", error=errno.ENOSPC, once=False)
    tried: Queue[None] = Queue()
    disk.on_call = lambda call, name: tried.put(None) if call == "write" and ".probe" in name else None
    running = started(disk)
    running.commit(batch(0))
    tried.get(timeout=PATIENCE_S)
    running.stop()
    assert "No space left" in str(running.flusher.error)


def test_the_index_holds_the_earliest_and_latest_time_of_a_commit_when_the_clock_is_set_back() -> None:
    disk = new_disk()
    running = Running(disk)
    for start, received_ms in enumerate((5000, 1000, 3000)):
        put(running.ring, batch(start, received_ms=received_ms))
    running.start()
    running.acks.get(timeout=PATIENCE_S)
    running.stop()
    (commit,) = walk(sealed(disk)[0]).chain.commits
    assert (commit.first_ms, commit.last_ms) == (1000, 5000)


def test_the_first_sample_is_the_rate_and_later_ones_move_it() -> None:
    assert smoothed(0.0, 100.0) == 100.0
    assert smoothed(100.0, 200.0) == pytest.approx(110.0)


def test_the_rate_is_known_after_one_commit() -> None:
    running = started(new_disk())
    assert running.flusher.bytes_per_s == 0
    running.commit(batch(0))
    running.stop()
    assert running.flusher.bytes_per_s > 0


FAULTS = st.one_of(
    st.none(),
    st.tuples(
        st.sampled_from(["write", "fdatasync", "create", "fsync", "link", "mkdir", "unlink"]),
        st.integers(1, 3),
        st.booleans(),
    ),
)


@given(st.lists(st.tuples(st.integers(1, 30), FAULTS), min_size=1, max_size=12), st.integers(0, 2**32))
def test_whatever_fails_what_was_acknowledged_is_there_once_and_what_was_refused_is_not(
    steps: list[tuple[int, tuple[str, int, bool] | None]], seed: int
) -> None:
    disk = new_disk()
    running = started(disk, segment_bytes_max=300)
    expected, start = b"", 0
    for count, fault in steps:
        if fault is not None:
            call, nth, lies = fault
            disk.fail(call, nth=nth, lies=lies and call == "fdatasync")
        if running.commit(batch(start, count)) is None:
            expected += lines(count, start)
        start += count
    running.stop()
    disk.mend()
    assert stored(disk) == expected
    assert after_power_cut(disk) == expected
    assert sorted(after_power_cut(disk, Random(seed)).splitlines()) == sorted(expected.splitlines())


def test_the_real_disk_keeps_the_same(tmp_path: Path) -> None:
    disk = Disk()
    disk.make_directory(tmp_path / "open")
    running = Running(disk, tmp_path, segment_bytes_max=1024).start()
    running.commit(*[batch(n) for n in range(60)])
    running.stop()
    assert stored(disk, tmp_path) == lines(60)
    assert running.sealer.segments_sealed > 1
    assert list((tmp_path / "open").iterdir()) == []
