"""Room for the next commits, behind those of an open segment: made in time, never taken for anything else."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from ingestd.errors import StorageError
from ingestd.storage.recovery import recover_all
from ingestd.storage.segment import ROOM_HEAD_BYTES, room_head, walk
from tests.storage.samples import (
    DATA,
    OPEN,
    SEALED,
    disk_with,
    lines,
    new_disk,
    open_bytes,
    roomy_bytes,
    sealed_bytes,
    tree,
    write,
)
from tests.support.disk import FaultyDisk, PowerCut

COMMITS = [lines(1), lines(3, 1), lines(1, 4)]


def noise(size: int) -> bytes:
    """A line of about this size that stays so when it is compressed."""
    return Random(size).randbytes(size).replace(b"\n", b"") + b"\n"


def growths(commits: list[bytes], *, sync: bool = True) -> list[int]:
    """By how much the file has grown with each commit."""
    disk = new_disk()
    segment = write(disk, DATA, [])
    sizes = [0]
    for content in commits:
        segment.commit(content, ["m"], 0, 0, sync=sync)
        sizes.append(len(disk.read(OPEN)))
    return [after - before for before, after in pairwise(sizes)]


# -- how much ---------------------------------------------------------------------------------


def test_room_is_made_once_for_many_commits() -> None:
    first, second, *others = growths([lines(1)] * 300)
    assert first < 200
    assert second > 64 * 1024
    assert others == [0] * 298


def test_room_grows_with_the_segment_up_to_a_bound() -> None:
    grown = [size for size in growths([noise(20_000)] * 400) if size]
    assert grown[1] < 2 * 64 * 1024
    assert all(size < (1 << 20) + 30_000 for size in grown)
    assert grown[-1] > 1 << 20


def test_large_commits_and_those_that_are_not_synced_get_none() -> None:
    large = [noise(300_000)] * 4
    assert all(290_000 < size < 300_000 for size in growths(large))
    assert all(size < 200 for size in growths([lines(1)] * 4, sync=False))


def test_room_that_is_too_small_for_its_own_head_is_left_for_more() -> None:
    """Commits of all sizes end at each distance from the end of the room."""
    for size in range(200, 240):
        disk = new_disk()
        segment = write(disk, DATA, [lines(1)])
        while not segment.size or len(disk.read(OPEN)) < 140_000:
            segment.commit(noise(size), ["m"], 0, 0, sync=True)
            found = walk(disk.read(OPEN))
            assert (found.state, found.chain.end) == ("open", segment.size)


# -- what it is taken for -------------------------------------------------------------------------


def test_a_segment_with_room_is_open_and_all_of_it_is_there() -> None:
    found = walk(roomy_bytes(COMMITS))
    assert (found.state, len(found.chain.commits), found.chain.end) == ("open", 3, len(open_bytes(COMMITS)))


def test_any_zstd_reader_passes_over_it(tmp_path: Path) -> None:
    (tmp_path / "open.zst").write_bytes(roomy_bytes(COMMITS))
    command = [shutil.which("zstd") or "zstd", "-dcq", str(tmp_path / "open.zst")]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"".join(COMMITS)


def test_sealing_leaves_no_room() -> None:
    disk = new_disk()
    write(disk, DATA, COMMITS).seal()
    assert disk.read(SEALED)[: len(open_bytes(COMMITS))] == open_bytes(COMMITS)
    assert walk(disk.read(SEALED)).state == "sealed"
    assert disk.crash().read(SEALED) == disk.read(SEALED)


def test_recovery_leaves_no_room_and_no_torn_tail() -> None:
    whole = roomy_bytes(COMMITS)
    end = len(open_bytes(COMMITS))
    for size in (len(whole), len(whole) - 1, *range(end, end + 5), end + 8, end + 9):
        disk = disk_with(whole[:size])
        (done,) = recover_all(disk, DATA)
        assert (done.commits, done.in_doubt_bytes, done.problem) == (3, 0, "")
        assert list(tree(disk).values()) == [sealed_bytes(COMMITS)]


def test_a_footer_with_room_behind_it_is_no_damage() -> None:
    """The power has failed after the footer was written and before the file was cut."""
    for room in (b"\0", bytes(5000), room_head(5000) + bytes(5000 - ROOM_HEAD_BYTES)):
        disk = disk_with(sealed_bytes(COMMITS) + room)
        (done,) = recover_all(disk, DATA)
        assert (done.action, done.commits, done.in_doubt_bytes) == ("recovered", 3, 0)
        assert list(tree(disk).values()) == [sealed_bytes(COMMITS)]


@pytest.mark.parametrize("shown", range(9))
def test_a_torn_commit_before_any_part_of_a_head_is_a_torn_tail(shown: int) -> None:
    """The sector of its trailer was written, with so much of the head; one before it and one after it not."""
    whole = open_bytes(COMMITS)
    last = walk(whole).chain.commits[-1]
    head = room_head(5000)[:shown]
    torn = whole[: last.offset] + bytes(20) + whole[last.offset + 20 :] + head + bytes(5000 - shown)
    disk = disk_with(torn)
    (done,) = recover_all(disk, DATA)
    assert (done.action, done.commits) == ("recovered", 2)


def test_damage_before_room_is_damage() -> None:
    data = bytearray(roomy_bytes(COMMITS))
    data[10] ^= 1
    disk = disk_with(bytes(data))
    (done,) = recover_all(disk, DATA)
    assert (done.action, done.in_doubt) == ("quarantined", "commits 0 to 2, 5 events")
    assert list(tree(disk).values()) == [bytes(data)]


def test_room_in_the_middle_is_damage() -> None:
    whole = open_bytes(COMMITS)
    second = walk(whole).chain.commits[1]
    data = whole[: second.offset] + bytes(second.end - second.offset) + whole[second.end :]
    assert walk(data).state == "damaged"


# -- when it fails --------------------------------------------------------------------------------


def commit_after(disk: FaultyDisk, call: str) -> None:
    """Two commits in room, of which the second fails."""
    segment = write(disk, DATA, COMMITS)
    disk.fail(call, name="*.open")
    with pytest.raises(StorageError):
        segment.commit(noise(3000), ["m"], 0, 0, sync=True)
    segment.abandon()


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_commit_in_room_that_fails_is_cut_off_with_the_room(call: str) -> None:
    disk = new_disk()
    commit_after(disk, call)
    assert disk.read(OPEN) == open_bytes(COMMITS)


@pytest.mark.parametrize("call", ["write", "fdatasync"])
@pytest.mark.parametrize("seed", range(20))
def test_after_a_power_cut_all_that_was_acknowledged_is_there(call: str, seed: int) -> None:
    disk = new_disk()
    commit_after(disk, call)
    after = disk.crash(Random(seed))
    (done,) = recover_all(after, DATA)
    assert done.action == "recovered"
    assert done.commits in (3, 4)
    assert after.read(SEALED).startswith(open_bytes(COMMITS))


@pytest.mark.parametrize("seed", [None, *range(10)])
def test_a_power_cut_at_any_call_of_sealing_costs_no_commit(seed: int | None) -> None:
    for cut in range(8):
        disk = new_disk()
        segment = write(disk, DATA, COMMITS)
        disk.cut_after = cut
        with suppress(PowerCut):
            segment.finish()
        after = disk.crash(None if seed is None else Random(seed))
        (done,) = recover_all(after, DATA)
        assert (done.action, done.commits) == ("recovered", 3)
        assert after.read(SEALED) == sealed_bytes(COMMITS)
