"""What flusher, sealer and recovery count is what they have done."""

from __future__ import annotations

import pytest

from ingestd.storage.recovery import ACTIONS, Recoveries, recover_all
from ingestd.storage.segment import TORN_SUFFIX, open_directory, walk
from tests.storage.running import Running, started
from tests.storage.samples import DATA, NAME, OPEN, batch, lines, new_disk, open_bytes, put, tree
from tests.storage.test_sealer import TINY, finish, sealer


@pytest.mark.parametrize("ack", ["fsync", "write"])
def test_commits_are_counted_with_their_sizes_and_what_the_disk_took(ack: str) -> None:
    disk = new_disk()
    running = started(disk, ack=ack)
    running.commit(batch(0), batch(1, 3), batch(4, 30))
    flusher = running.flusher
    (data,) = tree(disk).values()
    assert flusher.stored_bytes == walk(data).chain.end
    running.stop()
    assert (sum(flusher.commit_events.counts), flusher.commit_events.sum) == (3, 34)
    assert flusher.commit_events.counts[:6] == [1, 0, 1, 0, 0, 1]
    assert flusher.commit_bytes.sum == len(lines(34))
    assert sum(flusher.commit_bytes.counts) == sum(flusher.commit_ns.counts) == 3
    assert sum(flusher.sync_ns.counts) == (3 if ack == "fsync" else 0)
    assert flusher.sync_ns.sum <= flusher.commit_ns.sum
    assert (flusher.commits_failed, flusher.events_failed) == (0, 0)


def test_a_failed_commit_is_counted_as_such_and_nowhere_else() -> None:
    disk = new_disk()
    running = started(disk)
    running.commit(batch(0))
    disk.fail("fdatasync")
    assert running.commit(batch(1, 5)) is not None
    running.stop()
    flusher = running.flusher
    assert (flusher.commits, flusher.commits_failed, flusher.events_failed) == (1, 1, 5)
    assert (sum(flusher.commit_ns.counts), flusher.commit_events.sum) == (1, 1)
    assert running.sealer.recoveries.files["recovered"] == 1
    assert running.sealer.recoveries.events == 1


def test_what_waits_to_be_sealed_and_what_the_disk_refuses_is_counted() -> None:
    disk = new_disk()
    one = sealer(disk)
    one.take_finished(*finish(disk, TINY))
    assert (one.files_waiting, one.files_refused, one.refusals) == (1, 0, 0)
    disk.fail("link")
    one.step(0)
    assert (one.files_waiting, one.files_refused, one.refusals) == (1, 1, 1)
    one.start()
    one.stop()
    assert (one.files_waiting, one.files_refused, one.refusals) == (0, 0, 1)


def test_recovery_is_counted_by_what_was_done() -> None:
    disk, counts = new_disk(), Recoveries()
    commits = [lines(3), lines(3, 3), lines(3, 6)]
    data = open_bytes(commits)
    middle = walk(data).chain.commits[1].offset
    directory = open_directory(DATA)
    whole, damaged, empty, foreign = (OPEN.name.replace("000001", f"00000{n}") for n in range(2, 6))
    put(disk, directory / whole, data + b"torn")
    put(disk, directory / damaged, data[:middle] + b"X" * 20 + data[middle + 20 :])
    put(disk, directory / empty, b"")
    put(disk, directory / foreign.replace(NAME[:8], "nonsense"), data)
    for recovered in recover_all(disk, DATA):
        counts.add(recovered)
    assert counts.files == dict(zip(ACTIONS, [1, 1, 1, 1], strict=True))
    assert counts.events == 9 + 3
    torn = [name for name in tree(disk) if name.endswith(TORN_SUFFIX)]
    assert len(torn) == 1
    assert counts.in_doubt_bytes == len(b"torn") + len(data) - middle


def test_nothing_happened_is_nothing_counted() -> None:
    running = Running(new_disk())
    running.start()
    running.stop()
    assert (running.flusher.commits, running.flusher.stored_bytes, running.sealer.refusals) == (0, 0, 0)
