"""cat: no line lost or twice while the writer goes on, seals and packs; what cannot be read is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from ingestd.storage.disk import Disk
from ingestd.storage.open_segment import OpenSegment
from ingestd.storage.recovery import recover
from ingestd.storage.segment import walk
from tests.storage.reads import COMMITS, NEXT, Follower, lying_bytes, read, sums, verified
from tests.storage.samples import (
    DATA,
    FIRST_MS,
    NAME,
    OPEN,
    SEALED,
    ids,
    lines,
    new_disk,
    open_bytes,
    put,
    sealed_bytes,
    write,
)
from tests.support.disk import FaultyDisk


def test_open_and_sealed_segments_are_read_oldest_first() -> None:
    disk = new_disk()
    write(disk, DATA, [lines(3, 8)], NEXT)
    write(disk, DATA, COMMITS).seal()
    assert read(disk) == (lines(11), [])


def test_a_file_is_read_by_its_path() -> None:
    disk = new_disk()
    write(disk, DATA, [lines(3, 8)], NEXT)
    write(disk, DATA, COMMITS).seal()
    assert read(disk, SEALED) == (lines(8), [])
    assert read(disk, OPEN.with_name(f"{NEXT}.ndjson.zst.open"), SEALED) == (lines(3, 8) + lines(8), [])


def test_following_shows_each_line_once_across_commits_and_seals(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = new_disk()

    def writing() -> Iterator[None]:
        at = 0
        for name in (NAME, NEXT):
            segment = write(disk, DATA, [], name)
            yield
            for count in (1, 3, 2):
                segment.commit(lines(count, at), ids(lines(count, at)), FIRST_MS, FIRST_MS, sync=True)
                at += count
                yield
            segment.commit(lines(1, at), ids(lines(1, at)), FIRST_MS, FIRST_MS, sync=True)
            at += 1
            segment.seal()
            yield
        yield

    follower = Follower(disk, monkeypatch)
    assert follower.follow(writing()) == lines(14)
    assert follower.wrong == []


@pytest.mark.parametrize("call", ["list", "read"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_segment_sealed_between_any_two_calls_of_the_reader_is_read_once(call: str, nth: int) -> None:
    disk = new_disk()
    segment = write(disk, DATA, COMMITS)
    write(disk, DATA, [lines(1, 8)], NEXT)
    seen = 0

    def seal(called: str, _: str) -> None:
        nonlocal seen
        seen += called == call
        if called == call and seen == nth:
            segment.seal()

    disk.on_call = seal
    assert read(disk) == (lines(9), [])


def test_a_commit_on_its_way_is_shown_when_it_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = new_disk()
    data = open_bytes(COMMITS)
    fd = disk.create(OPEN)

    def writing() -> Iterator[None]:
        for at in range(0, len(data), 7):
            disk.write(fd, data[at : at + 7])
            yield
        yield

    follower = Follower(disk, monkeypatch)
    assert follower.follow(writing()) == lines(8)
    assert follower.wrong == []


def test_a_segment_recovered_while_followed_is_shown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = new_disk()

    def writing() -> Iterator[None]:
        segment = write(disk, DATA, COMMITS)
        yield
        recover(disk, DATA, segment.abandon())
        yield
        yield

    follower = Follower(disk, monkeypatch)
    assert follower.follow(writing()) == lines(8)
    assert follower.wrong == []


def test_an_open_segment_that_vanishes_empty_does_not_end_the_reading() -> None:
    disk = new_disk()
    empty = write(disk, DATA, [])
    write(disk, DATA, [lines(1)], NEXT)

    def vanish(call: str, name: str) -> None:
        if call == "read" and name == OPEN.name and disk.exists(OPEN):
            disk.unlink(empty.abandon())

    disk.on_call = vanish
    assert read(disk) == (lines(1), [])


def remove_at_read(disk: FaultyDisk, path: Path) -> None:
    """Let a consumer remove the file after it was listed."""

    def remove(call: str, name: str) -> None:
        if (call, name) == ("read", path.name):
            disk.unlink(path)

    disk.on_call = remove


def test_a_sealed_segment_that_a_consumer_removes_does_not_end_the_reading() -> None:
    disk = new_disk()
    write(disk, DATA, COMMITS).seal()
    write(disk, DATA, [lines(1)], NEXT).seal()
    remove_at_read(disk, SEALED)
    assert read(disk) == (lines(1), [])


def test_a_segment_that_cannot_be_read_is_named_and_the_others_are_shown() -> None:
    disk = new_disk()
    write(disk, DATA, COMMITS).seal()
    write(disk, DATA, [lines(1)], NEXT).seal()
    disk.fail("read", name=SEALED.name)
    shown, (wrong,) = read(disk)
    assert shown == lines(1)
    assert wrong == f"{SEALED}: read {SEALED}: Input/output error; what follows is not shown"


def test_a_damaged_segment_is_shown_up_to_its_damage_and_named() -> None:
    disk = new_disk()
    data = bytearray(sealed_bytes(COMMITS))
    data[walk(bytes(data)).chain.commits[1].offset + 9] ^= 1
    put(disk, SEALED, bytes(data))
    write(disk, DATA, [lines(1, 8)], NEXT)
    shown, (wrong,) = read(disk)
    assert shown == lines(2) + lines(1, 8)
    assert wrong.startswith(f"{SEALED}: the frame at byte ")


def test_a_problem_is_told_with_its_offset_in_the_file_also_when_following(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = new_disk()
    whole = open_bytes(COMMITS)
    second = walk(whole).chain.commits[1].offset
    fd = disk.create(OPEN)

    def writing() -> Iterator[None]:
        disk.write(fd, whole[:second])
        yield
        disk.write(fd, whole[second : second + 9] + b"\xff" + whole[second + 10 :])
        yield
        yield

    follower = Follower(disk, monkeypatch)
    assert follower.follow(writing()) == lines(2)
    (wrong,) = follower.wrong
    assert f"byte {second}" in wrong


def test_the_real_disk_is_read_the_same(tmp_path: Path) -> None:
    disk = Disk()
    disk.make_directory(tmp_path / "open")
    write(disk, tmp_path, COMMITS).seal()
    segment: OpenSegment = write(disk, tmp_path, [Random(1).randbytes(9).replace(b"\n", b"") + b"\n"], NEXT)
    assert read(disk, tmp_path)[0].startswith(lines(8))
    assert sums(verified(disk, tmp_path)[0]) == (2, 4, 9, 0)
    segment.abandon()


# -- many files --------------------------------------------------------------------------------


def test_a_segment_copied_to_another_hour_is_shown_where_it_stands() -> None:
    """As other readers of segments/ see it; `verify` calls it a problem."""
    disk = new_disk()
    write(disk, DATA, COMMITS).seal()
    put(disk, SEALED.parent.with_name("hour=04") / SEALED.name, sealed_bytes([lines(1, 8)]))
    assert read(disk) == (lines(9), [])


def test_a_directory_that_cannot_be_listed_is_named_once_and_the_other_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = new_disk()
    write(disk, DATA, COMMITS).seal()
    write(disk, DATA, [lines(1, 8)], NEXT)
    disk.fail("list", name="segments", once=False)

    def writing() -> Iterator[None]:
        yield
        disk.mend()
        yield
        yield

    follower = Follower(disk, monkeypatch)
    assert follower.follow(writing()) == lines(1, 8) + lines(8)
    (wrong,) = follower.wrong
    assert wrong == f"list {DATA / 'segments'}: Input/output error; what is in it is not shown"


def test_lines_after_a_frame_that_does_not_hold_what_it_should_are_not_shown() -> None:
    """Only a writer with a bug makes such a file. The other segments are shown."""
    disk = new_disk()
    put(disk, SEALED, lying_bytes([lines(1), lines(1, 1), lines(1, 2)], 1))
    write(disk, DATA, [lines(1, 3)], NEXT).seal()
    shown, (wrong,) = read(disk)
    assert shown == lines(1) + lines(1, 3)
    assert "does not hold what its trailer says; what follows is not shown" in wrong
