"""The faulty disk itself: what it keeps, loses and refuses; test_disk.py compares it with the real one."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from random import Random

import pytest

from ingestd.errors import StorageError
from tests.support.disk import SECTOR, FaultyDisk, PowerCut

CALLS: dict[str, Callable[[FaultyDisk, int], object]] = {
    "create": lambda disk, _: disk.create(disk.root / "b"),
    "write": lambda disk, fd: disk.write(fd, b"1234"),
    "fdatasync": lambda disk, fd: disk.fdatasync(fd),
    "truncate": lambda disk, fd: disk.truncate(fd, 0),
    "rename": lambda disk, _: disk.rename(disk.root / "a", disk.root / "b"),
    "link": lambda disk, _: disk.link(disk.root / "a", disk.root / "b"),
    "unlink": lambda disk, _: disk.unlink(disk.root / "a"),
    "mkdir": lambda disk, _: disk.make_directory(disk.root / "b"),
    "rmdir": lambda disk, _: disk.remove_directory(disk.root / "d"),
    "fsync": lambda disk, _: disk.sync_directory(disk.root),
    "read": lambda disk, _: disk.read(disk.root / "a"),
    "list": lambda disk, _: disk.list(disk.root, "*"),
    "statvfs": lambda disk, _: disk.free(disk.root),
}
LOOKS: list[Callable[[FaultyDisk], object]] = [
    lambda disk: disk.exists(disk.root / "a"),
    lambda disk: disk.is_directory(disk.root),
    lambda disk: disk.size_and_time(disk.root / "a"),
]


def with_file() -> tuple[FaultyDisk, int]:
    """A disk with an empty directory and an open file, all durable."""
    disk = FaultyDisk()
    disk.make_directory(disk.root / "d")
    fd = disk.create(disk.root / "a")
    disk.sync_directory(disk.root)
    disk.write(fd, b"synced")
    disk.fdatasync(fd)
    return disk, fd


def shown(disk: FaultyDisk) -> dict[str, bytes]:
    return {
        str(path.relative_to(disk.root)): disk.read(path) for path in disk.list(disk.root, "*", deep=True)
    }


@pytest.mark.parametrize("call", CALLS)
def test_every_kind_of_call_can_fail_and_then_does_nothing(call: str) -> None:
    disk, fd = with_file()
    disk.fail(call, error=errno.EDQUOT)
    with pytest.raises(StorageError, match=rf"^{call} .*: Disk quota exceeded$"):
        CALLS[call](disk, fd)
    assert shown(disk) == {"a": b"synced12" if call == "write" else b"synced"}
    assert disk.is_sound
    CALLS[call](disk, fd)
    assert disk.failed == {call: 1}


@pytest.mark.parametrize("look", LOOKS)
def test_every_kind_of_stat_can_fail(look: Callable[[FaultyDisk], object]) -> None:
    disk, _ = with_file()
    disk.fail("stat")
    with pytest.raises(StorageError, match=r"^stat .*: Input/output error$"):
        look(disk)
    look(disk)


def test_a_failing_close_is_no_error_as_on_the_real_disk() -> None:
    disk, fd = with_file()
    disk.fail("close")
    disk.close(fd)
    assert (disk.failed, list(disk.open_files)) == ({"close": 1}, [])


def test_a_failed_write_leaves_any_part() -> None:
    left = set()
    for seed in range(60):
        disk, fd = with_file()
        disk.fail("write", error=errno.ENOSPC, rng=Random(seed))
        with pytest.raises(StorageError):
            disk.write(fd, b"1234")
        left.add(disk.read(disk.root / "a").removeprefix(b"synced"))
    assert left == {b"", b"1", b"12", b"123", b"1234"}


@pytest.mark.parametrize("has_dsync", [False, True])
@pytest.mark.parametrize("once", [True, False])
def test_a_short_write_is_continued_and_may_be_cut_in_between(has_dsync: bool, once: bool) -> None:
    left = set()
    for cut in range(12):
        disk = FaultyDisk(has_dsync=has_dsync)
        fd = disk.create(disk.root / "a")
        disk.sync_directory(disk.root)
        disk.shorten(once=once)
        disk.cut_after = cut
        with suppress(PowerCut):
            disk.write_through(fd, b"12345678", 0)
        left.add(disk.kill().read(disk.root / "a"))
        assert disk.crash().read(disk.root / "a") in (left | {b""})
    assert left == {b"", b"1234", b"12345678"} | (set() if once else {b"123456", b"1234567"})


def test_a_write_that_is_cut_leaves_any_part() -> None:
    left = set()
    for seed in range(60):
        disk, fd = with_file()
        disk.cut_after, disk.cut_rng = 0, Random(seed)
        for _ in range(2):
            with pytest.raises(PowerCut):
                disk.write(fd, b"1234")
        left.add(disk.kill().read(disk.root / "a").removeprefix(b"synced"))
        assert disk.crash().read(disk.root / "a") == b"synced"
    assert left == {b"", b"1", b"12", b"123", b"1234"}


def test_a_failed_sync_may_have_saved_some_sectors() -> None:
    first, second = b"x" * SECTOR, b"y" * SECTOR
    saved = set()
    for seed in range(60):
        disk = FaultyDisk()
        fd = disk.create(disk.root / "a")
        disk.sync_directory(disk.root)
        disk.write(fd, first + second)
        disk.fail("fdatasync", lies=True, rng=Random(seed))
        with pytest.raises(StorageError):
            disk.fdatasync(fd)
        disk.fdatasync(fd)
        saved.add(disk.crash(Random(seed)).read(disk.root / "a"))
        assert disk.read(disk.root / "a") == first + second
    assert {b"", first + bytes(SECTOR), first + second, bytes(SECTOR) + second} <= saved


def test_what_a_lying_sync_has_lost_shows_when_the_pages_are_evicted() -> None:
    disk, fd = with_file()
    disk.write(fd, b"lost")
    disk.evict()
    assert disk.read(disk.root / "a") == b"syncedlost"
    disk.fail("fdatasync", lies=True)
    with suppress(StorageError):
        disk.fdatasync(fd)
    disk.evict()
    assert disk.read(disk.root / "a") == b"synced" + bytes(4)


def test_what_is_written_back_survives_although_it_is_taken_back_then() -> None:
    found = set()
    for seed in range(60):
        disk, fd = with_file()
        disk.write(fd, b" and more")
        disk.close(disk.create(disk.root / "b"))
        disk.write_back(Random(seed))
        disk.truncate(fd, len(b"synced"))
        disk.unlink(disk.root / "b")
        assert shown(disk) == {"a": b"synced"}
        found.add(tuple(shown(disk.crash()).items()))
    assert {
        (("a", b"synced"),),
        (("a", b"synced"), ("b", b"")),
        (("a", b"synced and more"),),
        (("a", b"synced and more"), ("b", b"")),
    } <= found


def test_both_names_of_a_file_hold_the_same_after_a_power_cut() -> None:
    for seed in range(20):
        disk, fd = with_file()
        disk.write(fd, bytes(5 * SECTOR))
        disk.link(disk.root / "a", disk.root / "d" / "b")
        disk.sync_directory(disk.root / "d")
        after = disk.crash(Random(seed))
        assert after.read(after.root / "a") == after.read(after.root / "d" / "b")


def test_without_hard_links_a_rename_is_durable_in_one_step() -> None:
    for synced in ("d", ""):
        disk = FaultyDisk(has_links=False)
        disk.make_directory(disk.root / "d")
        disk.close(disk.create(disk.root / "a"))
        disk.sync_directory(disk.root)
        with pytest.raises(StorageError, match="Operation not permitted"):
            disk.link(disk.root / "a", disk.root / "d" / "a")
        disk.rename(disk.root / "a", disk.root / "d" / "a")
        assert list(shown(disk.crash())) == ["a"]
        disk.sync_directory(disk.root / synced)
        assert list(shown(disk.crash())) == ["d/a"]


def test_a_copy_has_both_copies_and_goes_its_own_way() -> None:
    disk, fd = with_file()
    disk.write(fd, b" and more")
    disk.close(disk.create(disk.root / "b"))
    disk.fail("read", once=False)
    other = disk.copy()
    assert shown(other) == {"a": b"synced and more", "b": b""}
    assert shown(other.crash()) == {"a": b"synced"}
    other.unlink(other.root / "a")
    other.sync_directory(other.root)
    disk.mend()
    assert shown(disk.crash()) == {"a": b"synced"}
    assert shown(other.crash()) == {"b": b""}


def test_rot_reaches_the_stable_copy() -> None:
    disk, _ = with_file()
    disk.rot(disk.root / "a", lambda data: data[:2] + b"X" + data[3:])
    assert disk.read(disk.root / "a") == disk.crash().read(disk.root / "a") == b"syXced"


def test_it_keeps_through_a_power_cut_what_was_synced_and_nothing_else() -> None:
    disk = FaultyDisk()
    disk.make_directory(disk.root / "d")
    fd = disk.create(disk.root / "d" / "kept")
    disk.write(fd, b"synced")
    disk.fdatasync(fd)
    disk.write(fd, b" and not")
    disk.sync_directory(disk.root / "d")
    disk.fdatasync(disk.create(disk.root / "d" / "entry never synced"))
    after = disk.crash()
    assert [path.name for path in after.list(after.root, "*", deep=True)] == ["kept"]
    assert after.read(after.root / "d" / "kept") == b"synced"


def test_it_can_lose_each_half_of_a_rename() -> None:
    def renamed(*synced: str) -> list[str]:
        disk = FaultyDisk()
        for name in ("old", "new"):
            disk.make_directory(disk.root / name)
        disk.close(disk.create(disk.root / "old" / "a"))
        disk.sync_directory(disk.root / "old")
        disk.rename(disk.root / "old" / "a", disk.root / "new" / "a")
        for name in synced:
            disk.sync_directory(disk.root / name)
        after = disk.crash()
        return sorted(str(path.relative_to(after.root)) for path in after.list(after.root, "*", deep=True))

    assert renamed() == ["old/a"]
    assert renamed("new") == ["new/a", "old/a"]
    assert renamed("new", "old") == ["new/a"]
    assert renamed("old") == []


def test_it_loses_a_failed_sync_for_good_and_says_otherwise() -> None:
    disk = FaultyDisk()
    fd = disk.create(disk.root / "a")
    disk.sync_directory(disk.root)
    disk.write(fd, b"synced")
    disk.fdatasync(fd)
    disk.write(fd, b"lost")
    disk.fail("fdatasync", lies=True)
    with pytest.raises(StorageError, match=r"^fdatasync segment: Input/output error$"):
        disk.fdatasync(fd)
    disk.fdatasync(fd)
    assert disk.read(disk.root / "a") == b"syncedlost"
    assert disk.crash(Random(1)).read(disk.root / "a") == b"synced"


def test_it_keeps_any_sectors_of_what_was_not_synced() -> None:
    disk = FaultyDisk()
    fd = disk.create(disk.root / "a")
    disk.sync_directory(disk.root)
    disk.write(fd, b"x" * 2 * SECTOR)
    crashed = {disk.crash(Random(seed)).read(disk.root / "a") for seed in range(50)}
    assert {b"", b"x" * 2 * SECTOR, bytes(SECTOR) + b"x" * SECTOR} <= crashed


@pytest.mark.parametrize("once", [True, False])
def test_it_fails_the_nth_call_once_or_for_ever(once: bool) -> None:
    disk = FaultyDisk()
    fd = disk.create(disk.root / "a")
    disk.fail("write", nth=2, error=errno.ENOSPC, once=once)
    disk.write(fd, b"1234")
    with pytest.raises(StorageError, match=r"^write 4 bytes: No space left on device$"):
        disk.write(fd, b"5678")
    assert disk.read(disk.root / "a") == b"123456"
    if once:
        disk.write(fd, b"9")
    else:
        with pytest.raises(StorageError):
            disk.write(fd, b"9")
