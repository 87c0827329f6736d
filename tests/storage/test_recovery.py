"""What recovery makes of whatever a crash can leave in DATA/open, and of crashes while it works."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.storage.disk import Disk
from ingestd.storage.recovery import Recovered, recover, recover_all
from ingestd.storage.segment import OPEN_SUFFIX, walk
from tests.storage.samples import (
    DATA,
    NAME,
    OPEN,
    SEALED,
    disk_with,
    lines,
    new_disk,
    open_bytes,
    put,
    sealed_bytes,
    tree,
    write,
)
from tests.support.disk import FaultyDisk, PowerCut

COMMITS = [lines(2), lines(30, 2), lines(1, 32)]
OTHER = [lines(1, 100)]
WHOLE = open_bytes(COMMITS)
TORN = OPEN.with_name(f"{NAME}.ndjson.zst.torn")
QUARANTINED = DATA / "quarantine" / OPEN.name
DAMAGED = WHOLE[:5] + b"\xff" + WHOLE[6:]


def names(*paths: Path) -> set[str]:
    """As `tree` names them."""
    return {str(path.relative_to(DATA)) for path in paths}


def test_a_file_cut_at_any_byte_keeps_its_whole_commits_and_its_tail_aside() -> None:
    ends = [0, *(commit.end for commit in walk(WHOLE).chain.commits)]
    for size in range(len(WHOLE) + 1):
        disk = disk_with(WHOLE[:size])
        (done,) = recover_all(disk, DATA)
        whole = sum(end <= size for end in ends[1:])
        tail = WHOLE[ends[whole] : size].rstrip(b"\0")
        assert tree(disk) == {
            **(
                {"segments/date=2026-01-02/hour=03/" + SEALED.name: sealed_bytes(COMMITS[:whole])}
                if whole
                else {}
            ),
            **({"open/" + TORN.name: tail} if tail else {}),
        }
        assert (done.action, done.commits) == ("recovered" if whole else "removed", whole)
        assert (done.events, done.in_doubt_bytes) == (sum(c.count(b"\n") for c in COMMITS[:whole]), len(tail))


def test_a_footer_cut_at_any_byte_costs_no_commit() -> None:
    sealed = sealed_bytes(COMMITS)
    for size in range(len(WHOLE), len(sealed) + 1):
        disk = disk_with(sealed[:size])
        recover_all(disk, DATA)
        assert disk.read(SEALED) == sealed
        assert disk.exists(TORN) == (len(WHOLE) < size < len(sealed))


def test_a_footer_of_which_any_part_was_not_written_costs_no_commit() -> None:
    sealed = sealed_bytes(COMMITS)
    for start in range(len(WHOLE), len(sealed)):
        for end in range(start + 1, len(sealed) + 1):
            found = walk(sealed[:start] + bytes(end - start) + sealed[end:])
            assert found.chain.end == len(WHOLE)
            assert found.state in (("open", "torn") if start == len(WHOLE) else ("torn", "sealed"))


@given(
    st.integers(1, 600),
    st.sampled_from([b"\xff", b"\0\xff", b"IGT1", b"\x28\xb5\x2f\xfd", b"IGFOOT1\n"]),
    st.booleans(),
)
def test_a_tail_of_garbage_is_moved_aside(size: int, filling: bytes, sealed: bool) -> None:
    tail = filling * size
    disk = disk_with((sealed_bytes(COMMITS) if sealed else WHOLE) + tail)
    (done,) = recover_all(disk, DATA)
    assert (done.action, disk.read(SEALED)) == ("recovered", sealed_bytes(COMMITS))
    assert disk.read(TORN).endswith(tail)


@given(st.integers(0, 2**32))
def test_a_commit_torn_by_sectors_is_whole_or_moved_aside_but_never_damage(seed: int) -> None:
    disk = new_disk()
    segment = write(disk, DATA, COMMITS)
    disk.fail("fdatasync")
    with pytest.raises(Exception, match=r"fdatasync"):
        # Larger than a few sectors, and random so that it stays so when compressed.
        segment.commit(Random(1).randbytes(3000).replace(b"\n", b"") + b"\n", [""], 0, 0, sync=True)
    after = disk.crash(Random(seed))
    (done,) = recover_all(after, DATA)
    assert done.action == "recovered"
    assert done.commits in (3, 4)
    assert after.read(SEALED).startswith(WHOLE)


@pytest.mark.parametrize("flipped", [0, 5, 40, len(WHOLE) - 150])
def test_damage_in_the_middle_is_put_in_quarantine_untouched(flipped: int) -> None:
    data = bytearray(WHOLE)
    data[flipped] ^= 0xFF
    disk = disk_with(bytes(data))
    (done,) = recover_all(disk, DATA)
    assert done.action == "quarantined"
    assert done.in_doubt_bytes > 0
    assert " in doubt (commits " in str(done)
    assert tree(disk) == {f"quarantine/{OPEN.name}": bytes(data)}


def test_a_sealed_file_damaged_in_the_middle_is_put_in_quarantine() -> None:
    disk = disk_with(
        sealed_bytes(COMMITS[:1])[:60] + sealed_bytes(COMMITS)[60:][:10] + sealed_bytes(COMMITS)[80:]
    )
    assert [done.action for done in recover_all(disk, DATA)] == ["quarantined"]


def test_the_next_quarantined_file_of_a_name_does_not_take_the_place_of_the_first() -> None:
    disk = disk_with(DAMAGED)
    recover_all(disk, DATA)
    put(disk, OPEN, DAMAGED + b"x")
    recover_all(disk, DATA)
    assert sorted(tree(disk).values()) == sorted([DAMAGED, DAMAGED + b"x"])


def test_the_next_torn_tail_of_a_name_does_not_take_the_place_of_the_first() -> None:
    disk = disk_with(b"first tail")
    recover_all(disk, DATA)
    put(disk, OPEN, b"second tail")
    recover_all(disk, DATA)
    assert sorted(tree(disk).values()) == [b"first tail", b"second tail"]


@pytest.mark.parametrize("data", [open_bytes(COMMITS), sealed_bytes(COMMITS), WHOLE + b"torn"])
def test_another_segment_sealed_under_the_same_name_is_never_overwritten(data: bytes) -> None:
    disk = disk_with(data)
    put(disk, SEALED, sealed_bytes(OTHER))
    (done,) = recover_all(disk, DATA)
    assert (disk.read(SEALED), disk.read(QUARANTINED)) == (sealed_bytes(OTHER), data)
    assert done.action == "quarantined"
    assert done.problem == "another segment of this name has been sealed"


def test_a_segment_whose_sealed_copy_exists_already_is_just_removed() -> None:
    disk = disk_with(WHOLE)
    put(disk, SEALED, sealed_bytes(COMMITS))
    recover_all(disk, DATA)
    assert tree(disk).keys() == names(SEALED)


@pytest.mark.parametrize("kept", [1, 2])
def test_what_a_power_cut_took_from_the_open_file_is_in_its_sealed_copy(kept: int) -> None:
    # Recovered after a kill, when the kernel had it all and the disk had not.
    disk = disk_with(open_bytes(COMMITS[:kept]) + b"torn")
    put(disk, SEALED, sealed_bytes(COMMITS))
    (done,) = recover_all(disk, DATA)
    assert (done.action, done.in_doubt_bytes) == ("recovered", 4)
    assert tree(disk) == {
        str(SEALED.relative_to(DATA)): sealed_bytes(COMMITS),
        str(TORN.relative_to(DATA)): b"torn",
    }


@pytest.mark.parametrize("ends", [b"", b"torn"])
def test_a_refused_commit_that_a_power_cut_has_brought_back_does_not_put_the_others_in_doubt(
    ends: bytes,
) -> None:
    # It was cut off, the rest was sealed, and then the power went before the cut was durable.
    disk = disk_with(WHOLE + ends)
    put(disk, SEALED, sealed_bytes(COMMITS[:1]))
    (done,) = recover_all(disk, DATA)
    refused = WHOLE[walk(WHOLE).chain.commits[1].offset :] + ends
    assert (done.action, done.commits, done.in_doubt_bytes) == ("recovered", 1, len(refused))
    assert tree(disk) == {
        str(SEALED.relative_to(DATA)): sealed_bytes(COMMITS[:1]),
        str(TORN.relative_to(DATA)): refused,
    }


def test_an_empty_file_is_removed() -> None:
    disk = disk_with(b"")
    assert recover_all(disk, DATA) == [Recovered(OPEN, "removed")]
    assert tree(disk) == {}


def test_no_open_directory_is_nothing_to_do() -> None:
    assert recover_all(FaultyDisk(DATA), DATA) == []


def test_foreign_files_are_left_alone_and_do_not_stop_the_start() -> None:
    disk = disk_with(WHOLE)
    foreign = DATA / "open" / "notes.ndjson.zst.open"
    put(disk, foreign, b"mine")
    put(disk, DATA / "open" / "README", b"also mine")
    done = {recovered.path.name.removesuffix(OPEN_SUFFIX): recovered for recovered in recover_all(disk, DATA)}
    assert {name: recovered.action for name, recovered in done.items()} == {
        NAME: "recovered",
        "notes": "left in place",
    }
    assert "is not the name of a segment" in str(done["notes"])
    assert tree(disk).keys() == names(SEALED, foreign, DATA / "open" / "README")


def test_a_file_that_cannot_be_read_is_reported_and_the_others_are_recovered() -> None:
    disk = disk_with(WHOLE)
    bad = OPEN.with_name(OPEN.name.replace("w0", "w1"))
    put(disk, bad, WHOLE)
    disk.fail("read", name=bad.name, once=False)
    assert [done.action for done in recover_all(disk, DATA)] == ["recovered", "left in place"]
    assert tree_names(disk) == names(SEALED, bad)


def tree_names(disk: FaultyDisk) -> set[str]:
    """Without reading."""
    return {str(path.relative_to(DATA)) for path in disk.list(DATA, "*", deep=True)}


@pytest.mark.parametrize("data", [WHOLE, WHOLE + b"torn"])
def test_on_a_full_disk_the_segment_stays_and_no_half_copy_takes_up_room(data: bytes) -> None:
    disk = disk_with(data)
    disk.fail("write", error=errno.ENOSPC, once=False)
    (done,) = recover_all(disk, DATA)
    assert (done.action, done.problem.split(": ")[-1]) == ("left in place", "No space left on device")
    assert tree(disk) == {f"open/{OPEN.name}": data}
    disk.mend()
    recover_all(disk, DATA)
    assert disk.read(SEALED) == sealed_bytes(COMMITS)


def test_what_a_crash_left_half_made_is_cleared_away() -> None:
    disk = disk_with(b"half a copy", DATA / "open" / f"{NAME}.recovering")
    put(disk, DATA / "open" / f".{TORN.name}.4711.new", b"half a tail")
    put(disk, DATA / "open" / ".probe-w0.new", b"")
    assert recover_all(disk, DATA) == []
    assert tree(disk) == {}


def test_pages_that_a_failed_sync_lost_are_written_again_elsewhere() -> None:
    disk = new_disk()
    segment = write(disk, DATA, COMMITS)
    disk.fail("fdatasync", lies=True)
    with suppress(Exception):
        segment.seal()
    recover(disk, DATA, OPEN)
    after = disk.crash()
    assert tree(after) == {"segments/date=2026-01-02/hour=03/" + SEALED.name: sealed_bytes(COMMITS)}


def test_a_footer_that_a_failed_sync_lost_is_written_again_elsewhere() -> None:
    disk = new_disk()
    segment = write(disk, DATA, COMMITS)
    disk.fail("fdatasync", lies=True)
    disk.fail("truncate", nth=2)
    with suppress(Exception):
        segment.seal()
    recover(disk, DATA, segment.abandon())
    assert disk.crash().read(SEALED) == sealed_bytes(COMMITS)


SHAPES: dict[str, Callable[[], FaultyDisk]] = {
    "open": lambda: disk_with(WHOLE),
    "sealed": lambda: disk_with(sealed_bytes(COMMITS)),
    "torn": lambda: disk_with(WHOLE + b"torn"),
    "only a tail": lambda: disk_with(b"torn"),
    "damaged": lambda: disk_with(DAMAGED),
    "empty": lambda: disk_with(b""),
}


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_crash_at_any_call_of_recovery_is_mended_by_the_next(shape: str, seed: int | None) -> None:
    undisturbed = SHAPES[shape]()
    recover_all(undisturbed, DATA)
    calls = len(undisturbed.calls) - len(SHAPES[shape]().calls)
    assert calls > 3
    for cut in range(calls + 1):
        for power in (False, True):
            disk = SHAPES[shape]()
            disk.cut_after = cut
            with suppress(PowerCut):
                recover_all(disk, DATA)
            disk = disk.crash(None if seed is None else Random(seed + cut)) if power else disk.kill()
            recover_all(disk, DATA)
            assert tree(disk) == tree(undisturbed)
            assert tree(disk.crash()) == tree(undisturbed)


@pytest.mark.parametrize(
    "call", ["read", "list", "create", "write", "fdatasync", "fsync", "rename", "link", "unlink", "mkdir"]
)
@pytest.mark.parametrize("shape", SHAPES)
def test_any_failing_call_of_recovery_is_mended_by_the_next(shape: str, call: str) -> None:
    undisturbed = SHAPES[shape]()
    recover_all(undisturbed, DATA)
    for nth in range(1, 1 + sum(name == call for name, _ in undisturbed.calls)):
        disk = SHAPES[shape]()
        disk.fail(call, nth=nth)
        with suppress(Exception):
            recover_all(disk, DATA)
        disk.mend()
        recover_all(disk, DATA)
        assert tree(disk) == tree(undisturbed)


def test_recovery_of_what_is_recovered_does_nothing() -> None:
    disk = disk_with(WHOLE + b"torn")
    recover_all(disk, DATA)
    before = tree(disk)
    assert recover_all(disk, DATA) == []
    assert tree(disk) == before


def test_the_real_disk_comes_to_the_same(tmp_path: Path) -> None:
    def play(disk: Disk, root: Path) -> tuple[list[str], dict[str, bytes]]:
        for number, data in enumerate([WHOLE + b"torn", sealed_bytes(COMMITS), DAMAGED, b"", b"tail", WHOLE]):
            put(disk, root / "open" / OPEN.name.replace("000001", f"00000{number}"), data)
        return [str(done) for done in recover_all(disk, root)], tree(disk, root)

    assert play(Disk(), tmp_path) == play(FaultyDisk(DATA), DATA)
