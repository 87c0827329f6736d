"""Reading back: no line lost or twice while the writer goes on, and every kind of damage found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ingestd.storage.disk import Disk
from ingestd.storage.reader import cat, verify
from ingestd.storage.recovery import recover
from ingestd.storage.segment import Chain, Segment, walk
from tests.storage.samples import (
    DATA,
    FIRST_MS,
    NAME,
    OPEN,
    SEALED,
    lines,
    new_disk,
    open_bytes,
    put,
    sealed_bytes,
    write,
)
from tests.support.disk import FaultyDisk

COMMITS = [lines(2), lines(5, 2), lines(1, 7)]
NEXT = NAME.replace("000001", "000002")


def read(disk: Disk, *paths: Path) -> tuple[bytes, list[str]]:
    """All lines, and what was wrong."""
    wrong: list[str] = []
    return b"".join(cat(disk, list(paths) or [DATA], follow=False, problem=wrong.append)), wrong


def verified(disk: Disk, data_dir: Path = DATA) -> tuple[tuple[int, int, int, int], list[str]]:
    """The verdict, and what was said."""
    said: list[str] = []
    verdict = verify(disk, data_dir, said.append)
    return (verdict.segments, verdict.commits, verdict.events, verdict.problems), said


class Follower:
    """cat -f beside a writer on one thread: whenever it would sleep, the next step of the writer is done."""

    def __init__(self, disk: FaultyDisk, monkeypatch: pytest.MonkeyPatch) -> None:
        self.disk = disk
        self.wrong: list[str] = []
        self._steps: Iterator[None] = iter(())
        monkeypatch.setattr(time, "sleep", self._sleep)

    def _sleep(self, _: float) -> None:
        next(self._steps)

    def follow(self, steps: Iterator[None]) -> bytes:
        """All that it prints until the writer has no more steps and everything has been read."""
        self._steps = steps
        shown = b""
        try:
            for content in cat(self.disk, [DATA], follow=True, problem=self.wrong.append):
                shown += content
        except RuntimeError as e:
            # A StopIteration of the steps, as it leaves a generator.
            if not isinstance(e.__cause__, StopIteration):
                raise
        return shown


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
                segment.commit(lines(count, at), count, FIRST_MS, FIRST_MS, sync=True)
                at += count
                yield
            segment.commit(lines(1, at), 1, FIRST_MS, FIRST_MS, sync=True)
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


def test_a_segment_that_has_both_its_names_is_verified_once() -> None:
    disk = new_disk()
    segment = write(disk, DATA, COMMITS)

    def seal(call: str, name: str) -> None:
        if (call, name) == ("list", "segments"):
            segment.seal()

    disk.on_call = seal
    assert verified(disk) == ((1, 3, 8, 0), [])


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


def test_a_sealed_segment_that_a_consumer_removes_does_not_end_the_reading() -> None:
    for run in (read, verified):
        disk = new_disk()
        write(disk, DATA, COMMITS).seal()
        write(disk, DATA, [lines(1)], NEXT).seal()

        def remove(call: str, name: str, disk: FaultyDisk = disk) -> None:
            if call == "read" and name == SEALED.name:
                disk.unlink(SEALED)

        disk.on_call = remove
        result, wrong = run(disk)
        assert result in (lines(1), (1, 1, 1, 0))
        assert wrong == []


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


def test_a_whole_directory_has_no_problems() -> None:
    disk = new_disk()
    write(disk, DATA, COMMITS).seal()
    write(disk, DATA, [lines(3)], NEXT)
    assert verified(disk) == ((2, 4, 11, 0), [])


def test_an_empty_directory_has_no_problems() -> None:
    assert verified(FaultyDisk(DATA)) == ((0, 0, 0, 0), [])


@given(st.integers(0), st.integers(1, 255))
def test_any_changed_byte_of_a_sealed_segment_is_found(position: int, flip: int) -> None:
    disk = new_disk()
    data = bytearray(sealed_bytes(COMMITS))
    data[position % len(data)] ^= flip
    put(disk, SEALED, bytes(data))
    (_, _, _, problems), said = verified(disk)
    assert problems == len(said) == 1


def test_a_sealed_segment_cut_at_any_byte_is_found() -> None:
    data = sealed_bytes(COMMITS)
    for size in range(len(data)):
        disk = new_disk()
        put(disk, SEALED, data[:size])
        assert verified(disk)[0][3] == 1


def _rewritten(change: Callable[[list[bytes]], None]) -> bytes:
    """A segment whose checksums are all right, by a writer with a bug."""
    frames = [zstandard.compress(content) for content in COMMITS]
    change(frames)
    chain, data = Chain(), b""
    for frame, content in zip(frames, COMMITS, strict=True):
        trailer = chain.trailer(frame, len(content), content.count(b"\n"), 0, 0)
        chain.append(trailer)
        data += frame + trailer
    return data + chain.footer()


WRONG: dict[str, Callable[[], tuple[Path, bytes]]] = {
    "the footer is missing": lambda: (SEALED, open_bytes(COMMITS)),
    "torn: no whole zstd frame at byte": lambda: (SEALED, open_bytes(COMMITS) + b"tail"),
    "the footer at byte": lambda: (SEALED, sealed_bytes(COMMITS) + sealed_bytes(COMMITS[:1])),
    "damaged: commit 1 at byte 0 stands where 0 should": lambda: (
        SEALED,
        sealed_bytes(COMMITS)[walk(sealed_bytes(COMMITS)).chain.commits[1].offset :],
    ),
    "damaged: no whole zstd frame at byte 0": lambda: (OPEN, b"x" + open_bytes(COMMITS)[1:]),
    "does not hold what its trailer says": lambda: (
        SEALED,
        _rewritten(lambda frames: frames.__setitem__(1, zstandard.compress(lines(1)))),
    ),
    "quarantined, its damage was found earlier": lambda: (DATA / "quarantine" / OPEN.name, b"x"),
}


@pytest.mark.parametrize("text", WRONG)
def test_each_kind_of_damage_is_found_and_named(text: str) -> None:
    disk = new_disk()
    path, data = WRONG[text]()
    put(disk, path, data)
    write(disk, DATA, [lines(4)], NEXT).seal()
    (segments, _, events, problems), said = verified(disk)
    assert (problems, len(said)) == (1, 1)
    assert said[0].startswith(f"{path}: ")
    assert text in said[0]
    assert events >= 4
    assert segments == 1 + (path.parent.name != "quarantine")


def test_a_torn_tail_of_an_open_segment_is_a_note_and_no_problem() -> None:
    disk = new_disk()
    put(disk, OPEN, open_bytes(COMMITS) + b"tail")
    totals, (said,) = verified(disk)
    assert totals == (1, 3, 8, 0)
    assert said == f"{OPEN}: note: 4 bytes after the last commit, on their way or torn by a crash"


def test_the_real_disk_is_read_the_same(tmp_path: Path) -> None:
    disk = Disk()
    disk.make_directory(tmp_path / "open")
    write(disk, tmp_path, COMMITS).seal()
    segment: Segment = write(disk, tmp_path, [Random(1).randbytes(9).replace(b"\n", b"") + b"\n"], NEXT)
    assert read(disk, tmp_path)[0].startswith(lines(8))
    assert verified(disk, tmp_path) == ((2, 4, 9, 0), [])
    segment.abandon()
