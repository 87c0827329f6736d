"""The sealer on its own thread: what it is given gets to its place, whatever the disk does meanwhile."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path
from queue import Queue
from random import Random
from typing import Any

import pytest

from ingestd.config import Settings
from ingestd.storage import packing, reader
from ingestd.storage import sealer as sealer_module
from ingestd.storage.recovery import recover_all
from ingestd.storage.sealer import Sealer
from ingestd.storage.segment import walk
from tests.storage.samples import DATA, NAME, SEALED, lines, new_disk, put, tree, write
from tests.support.disk import FaultyDisk, PowerCut

TINY = [lines(1, n) for n in range(40)]
PATIENCE_S = 60.0


def sealer(disk: FaultyDisk, **settings: Any) -> Sealer:
    return Sealer(Settings(data_dir=str(DATA), **settings), disk)


def finish(disk: FaultyDisk, commits: list[bytes], name: str = NAME) -> tuple[Path, int, int]:
    """A finished segment as the flusher hands it over."""
    segment = write(disk, DATA, commits, name)
    return segment.finish(), len(commits), sum(map(len, commits))


def stored(disk: FaultyDisk) -> bytes:
    def wrong(text: str) -> None:
        raise AssertionError(text)

    return b"".join(reader.cat(disk, [DATA], follow=False, problem=wrong))


def test_a_segment_of_tiny_frames_appears_packed_and_one_of_large_frames_as_it_is() -> None:
    disk = new_disk()
    other = NAME.replace("000001", "000002")
    large = [lines(3000), lines(3000, 3000)]
    one = sealer(disk)
    one.take_finished(*finish(disk, TINY))
    one.take_finished(*finish(disk, large, other))
    one.start()
    one.stop()
    assert (one.segments_sealed, one.segments_packed) == (2, 1)
    assert len(walk(disk.read(SEALED)).chain.commits) == 1
    assert len(walk(disk.read(SEALED.with_name(f"{other}.ndjson.zst"))).chain.commits) == 2
    assert disk.list(DATA / "open", "*") == []
    assert stored(disk) == b"".join(TINY + large) == stored(disk.crash())


@pytest.mark.parametrize("call", ["read", "create", "write", "fdatasync", "mkdir", "link", "fsync", "unlink"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_what_fails_once_is_sealed_at_the_next_try(
    call: str, nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealer_module, "_RETRY_S", 0.0)
    monkeypatch.setattr(sealer_module, "_LOOK_S", 0.001)
    disk = new_disk()
    one = sealer(disk)
    job = finish(disk, TINY)
    disk.fail(call, nth=nth)
    one.take_finished(*job)
    gone: Queue[str] = Queue()
    disk.on_call = lambda called, name: gone.put(name) if called == "statvfs" else None
    one.start()
    for _ in range(3):
        gone.get(timeout=PATIENCE_S)
    one.stop()
    disk.mend()
    assert stored(disk) == b"".join(TINY)
    assert disk.list(DATA / "open", "*") == []
    after = disk.crash()
    recover_all(after, DATA)
    assert stored(after) == b"".join(TINY)


def test_what_fails_to_the_end_is_whole_for_the_next_start(caplog: pytest.LogCaptureFixture) -> None:
    disk = new_disk()
    one = sealer(disk)
    one.take_finished(*finish(disk, TINY))
    disk.fail("mkdir", error=errno.ENOSPC, once=False)
    one.start()
    one.stop()
    assert "stays behind, the next start will see to it" in caplog.text
    assert caplog.text.count("cannot be sealed yet") == 1
    assert stored(disk) == b"".join(TINY)
    disk.mend()
    recover_all(disk, DATA)
    assert list(tree(disk)) == [str(SEALED.relative_to(DATA))]
    assert stored(disk) == b"".join(TINY)


def test_a_finished_segment_whose_packed_form_is_sealed_already_is_not_quarantined() -> None:
    disk = new_disk()
    path, *_ = finish(disk, TINY)
    packed = packing.pack(disk, path)
    assert packed is not None
    put(disk, SEALED, disk.read(packed))
    (done,) = recover_all(disk, DATA)
    assert (done.action, done.events) == ("recovered", 40)
    assert list(tree(disk)) == [str(SEALED.relative_to(DATA))]
    assert stored(disk) == b"".join(TINY)


def test_another_segment_of_the_same_name_is_not_overwritten() -> None:
    disk = new_disk()
    path, *_ = finish(disk, TINY)
    finish_other = new_disk()
    other, *_ = finish(finish_other, [lines(40, 100)])
    put(disk, SEALED, finish_other.read(other))
    one = sealer(disk)
    one.take_finished(path, 40, sum(map(len, TINY)))
    one.start()
    one.stop()
    assert walk(disk.read(SEALED)).chain.events == 40
    (kept,) = disk.list(DATA / "quarantine", "*")
    assert walk(disk.read(kept)).chain.events == 40


def test_a_bug_does_not_end_the_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    disk = new_disk()
    one = sealer(disk)
    with monkeypatch.context() as patch:
        patch.setattr(packing, "pack", bug)
        one.take_finished(*finish(disk, TINY))
        one.start()
        one.stop()
    assert "ZeroDivisionError: a bug" in caplog.text
    assert stored(disk) == b"".join(TINY)


FEW = TINY[:8]


def sealing() -> tuple[FaultyDisk, Sealer]:
    """A sealer that has been handed a segment which will be packed."""
    disk = new_disk()
    one = sealer(disk)
    one.take_finished(*finish(disk, FEW))
    return disk, one


def ends(disk: FaultyDisk, seed: int) -> list[FaultyDisk]:
    """What the next process may find if this one ends now: after power cuts, and killed."""
    return [disk.crash(), *(disk.crash(Random(seed + n)) for n in range(3)), disk.copy()]


def ends_of_sealing() -> list[FaultyDisk]:
    """The same for every call of packing and publishing; what looks the same twice, once."""
    disk, one = sealing()
    before = len(disk.calls)
    one.step(0.0)
    calls = len(disk.calls) - before
    assert (one.segments_packed, calls > 20) == (1, True)
    found = {}
    for cut in range(calls + 1):
        disk, one = sealing()
        disk.cut_after, disk.cut_rng = cut, Random(cut)
        with suppress(PowerCut):
            one.step(0.0)
        for end in ends(disk, 10 * cut):
            found[str((tree(end), tree(end.crash())))] = end
    return list(found.values())


def test_a_crash_at_any_call_of_packing_and_publishing_and_of_the_recovery_after_it_changes_nothing() -> None:
    forms = set()
    for found in ends_of_sealing():
        undisturbed = found.copy()
        recover_all(undisturbed, DATA)
        for cut in range(len(undisturbed.calls) + 1):
            disk = found.copy()
            disk.cut_after, disk.cut_rng = cut, Random(cut)
            with suppress(PowerCut):
                recover_all(disk, DATA)
            for after in ends(disk, 10 * cut):
                recover_all(after, DATA)
                assert list(tree(after)) == [str(SEALED.relative_to(DATA))]
                assert stored(after) == stored(after.crash()) == b"".join(FEW)
                forms.add(len(walk(after.read(SEALED)).chain.commits))
    # Whichever form had been published first.
    assert forms == {1, len(FEW)}


def test_expired_segments_go() -> None:
    disk = new_disk()
    put(disk, SEALED, bytes(100))
    one = sealer(disk, retain_age_s=3600)
    one.start()
    one.stop()
    assert one.segments_expired == 1
    assert tree(disk) == {}
