"""verify: every kind of damage is found and named, what is whole is not called damaged, all is counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.storage import reading
from ingestd.storage.fingerprints import of_lines
from ingestd.storage.frames import lines_in
from ingestd.storage.index import Index
from ingestd.storage.segment import walk
from ingestd.storage.verify import Source, verify
from tests.storage.reads import COMMITS, NEXT, indexed, lying_bytes, packed, publish_packed, sums, verified
from tests.storage.samples import (
    DATA,
    NAME,
    OPEN,
    SEALED,
    lines,
    new_disk,
    open_bytes,
    put,
    sealed_bytes,
    tree,
    write,
)
from tests.support.disk import FaultyDisk


def whole(disk: FaultyDisk) -> tuple[int, int, int, int]:
    """The sums of a directory of which there is nothing to say."""
    verdict, said = verified(disk)
    assert said == []
    assert verdict.ok
    return sums(verdict)


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
        lying_bytes(COMMITS, 1),
    ),
    "the index at byte": lambda: (SEALED, indexed(COMMITS, Index(of_lines(b"".join(COMMITS[:2]))))),
    "the index does not say what the lines say": lambda: (
        SEALED,
        indexed(COMMITS, Index(of_lines(b"".join(reversed(COMMITS))))),
    ),
    "quarantined, its damage was found earlier": lambda: (DATA / "quarantine" / OPEN.name, b"x"),
}


@pytest.mark.parametrize("text", WRONG)
def test_each_kind_of_damage_is_found_and_named(text: str) -> None:
    disk = new_disk()
    path, data = WRONG[text]()
    put(disk, path, data)
    write(disk, DATA, [lines(4)], NEXT).seal()
    verdict, said = verified(disk)
    assert not verdict.ok
    assert (len(verdict.problems), len(said)) == (1, 1)
    assert said[0].startswith(f"{path}: ")
    assert text in said[0]
    assert verdict.events >= 4
    assert verdict.segments == 1 + (path.parent.name != "quarantine")


def test_a_segment_that_has_both_its_names_is_verified_once() -> None:
    disk = new_disk()
    segment = write(disk, DATA, COMMITS)

    def seal(call: str, name: str) -> None:
        if (call, name) == ("list", "segments"):
            segment.seal()

    disk.on_call = seal
    assert whole(disk) == (1, 3, 8, 0)


def test_a_whole_directory_has_no_problems() -> None:
    disk = new_disk()
    write(disk, DATA, COMMITS).seal()
    write(disk, DATA, [lines(3)], NEXT)
    assert whole(disk) == (2, 4, 11, 0)


def test_an_empty_directory_has_no_problems() -> None:
    assert whole(FaultyDisk(DATA)) == (0, 0, 0, 0)


@given(st.integers(0), st.integers(1, 255))
def test_any_changed_byte_of_a_sealed_segment_is_found(position: int, flip: int) -> None:
    disk = new_disk()
    data = bytearray(sealed_bytes(COMMITS))
    data[position % len(data)] ^= flip
    put(disk, SEALED, bytes(data))
    assert len(verified(disk)[0].problems) == 1


def test_a_sealed_segment_cut_at_any_byte_is_found() -> None:
    data = sealed_bytes(COMMITS)
    for size in range(len(data)):
        disk = new_disk()
        put(disk, SEALED, data[:size])
        assert len(verified(disk)[0].problems) == 1


def test_a_torn_tail_of_an_open_segment_is_a_note_and_no_problem() -> None:
    disk = new_disk()
    put(disk, OPEN, open_bytes(COMMITS) + b"tail")
    verdict, (said,) = verified(disk)
    assert sums(verdict) == (1, 3, 8, 0)
    assert said == f"{OPEN}: note: 4 bytes after the last commit, on their way or torn by a crash"


def test_an_unreadable_file_is_a_problem_and_the_others_are_checked() -> None:
    disk = new_disk()
    write(disk, DATA, COMMITS).seal()
    write(disk, DATA, [lines(4)], NEXT).seal()
    disk.fail("read", name=SEALED.name, once=False)
    verdict, (said,) = verified(disk)
    assert sums(verdict) == (2, 1, 4, 1)
    assert said == f"{SEALED}: read {SEALED}: Input/output error"


def test_what_was_good_before_a_read_error_in_the_middle_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_PIECE_BYTES", 120)
    disk = new_disk()
    write(disk, DATA, COMMITS).seal()
    disk.fail("read", nth=2, once=False)
    verdict, (said,) = verified(disk)
    assert (verdict.segments, len(verdict.problems)) == (1, 1)
    assert verdict.events == sum(content.count(b"\n") for content in COMMITS[: verdict.commits])
    assert 0 < verdict.commits < 3
    assert "Input/output error" in said


@pytest.mark.parametrize("name", ["open", "segments", "quarantine"])
def test_a_directory_that_cannot_be_listed_is_a_problem_and_the_others_are_checked(name: str) -> None:
    disk = new_disk()
    write(disk, DATA, COMMITS).seal()
    write(disk, DATA, [lines(4)], NEXT)
    disk.fail("list", name=name)
    verdict, (said,) = verified(disk)
    assert said == f"{DATA / name}: list {DATA / name}: Input/output error"
    assert verdict.events == {"open": 8, "segments": 4, "quarantine": 12}[name]


# -- what is counted ---------------------------------------------------------------------------


def test_the_sums_tell_what_there_is_and_where_it_came_from() -> None:
    disk = new_disk()
    for name, commits in {
        "20260102T030405.678Z-a-w0-000001": [lines(2)],
        "20260102T030405.678Z-a-w0-000002": [lines(3), lines(1)],
        "20260102T030405.678Z-a-b.c-w12-000001": [lines(5)],
    }.items():
        write(disk, DATA, commits, name).seal()
    write(disk, DATA, [lines(7)], "20260102T030405.678Z-a-w0-000003")
    put(disk, DATA / "segments" / "mine.ndjson.zst", sealed_bytes([lines(1)]))
    put(disk, OPEN.with_name(f"{NAME}.ndjson.zst.torn.1"), b"tail")
    put(disk, DATA / "quarantine" / OPEN.name, b"x")
    verdict, _ = verified(disk)
    assert (verdict.segments, verdict.sealed, verdict.open) == (5, 4, 1)
    assert (verdict.commits, verdict.events) == (6, 19)
    assert verdict.content_bytes == sum(len(lines(count)) for count in (2, 3, 1, 5, 7, 1))
    files = disk.list(DATA, "*.zst", deep=True) + disk.list(DATA / "open", "*.open")
    assert verdict.stored_bytes == sum(len(disk.read(path)) for path in files)
    assert (verdict.torn_files, verdict.quarantined_files) == (1, 1)
    assert sorted(verdict.sources, key=str) == sorted(
        [Source("a", 0, 3, 13), Source("a-b.c", 12, 1, 5), Source("", None, 1, 1)], key=str
    )
    assert [problem.path for problem in verdict.problems] == [str(DATA / "quarantine" / OPEN.name)]


def test_events_of_a_frame_that_does_not_hold_what_it_should_do_not_count() -> None:
    disk = new_disk()
    put(disk, SEALED, lying_bytes(COMMITS, 1))
    assert sums(verified(disk)[0]) == (1, 1, 2, 1)


@given(st.lists(st.sampled_from([b"\n", b"x", b"y" * 70_000, b"z" * 65_535, b"\n" * 9]), max_size=9))
def test_lines_are_counted(parts: list[bytes]) -> None:
    content = b"".join(parts)
    assert lines_in(content) == content.count(b"\n")


def test_progress_is_told_up_to_the_end() -> None:
    disk = new_disk()
    write(disk, DATA, COMMITS).seal()
    write(disk, DATA, COMMITS, NEXT)
    told: list[tuple[int, int]] = []
    verdict = verify(disk, DATA, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    total = sum(map(len, tree(disk).values()))
    assert told[-1] == (total, total)
    assert 0 < verdict.stored_bytes < total - 60_000, "the room of the open one counts as stored"


# -- files that are not segments, and segments that are where they should not be -----------------


def test_working_files_of_the_server_are_passed_over() -> None:
    disk = new_disk()
    write(disk, DATA, COMMITS)
    for name in (
        f"{NAME}.packing",
        f"{NAME}.recovering",
        f".{NAME}.ndjson.zst.torn.4711.new",
        ".probe-w0.new",
    ):
        put(disk, DATA / "open" / name, b"half of it")
    assert whole(disk) == (1, 3, 8, 0)


def test_a_tail_kept_by_recovery_is_a_note() -> None:
    disk = new_disk()
    put(disk, OPEN.with_name(f"{NAME}.ndjson.zst.torn"), b"tail")
    verdict, (said,) = verified(disk)
    assert verdict.ok
    assert said.endswith(".torn: note: 4 bytes that a crash tore off, kept by recovery")


@pytest.mark.parametrize(
    ("path", "note"),
    [
        (DATA / "segments" / "README", "not a file of ingestd"),
        (DATA / "open" / SEALED.name, "not a file of ingestd"),
        (SEALED.with_name(OPEN.name), "not a file of ingestd"),
        (SEALED.with_name("\udcff"), "not a file of ingestd"),
        (DATA / "segments" / SEALED.name, "not in the directory of its date and hour"),
        (SEALED.parent.with_name("hour=04") / SEALED.name, "not in the directory of its date and hour"),
        (SEALED.with_name("mine.ndjson.zst"), "not the name of a segment"),
    ],
)
def test_a_file_that_should_not_be_there_is_a_note(path: Path, note: str) -> None:
    disk = new_disk()
    put(disk, path, sealed_bytes(COMMITS))
    write(disk, DATA, [lines(4)], NEXT).seal()
    verdict, (said,) = verified(disk)
    assert verdict.ok
    assert said == f"{path}: note: {note}".replace("\udcff", "\\udcff")
    assert verdict.segments == 1 + (note != "not a file of ingestd")


@pytest.mark.parametrize(
    ("commits", "which"), [(COMMITS, "the same"), ([lines(8)], "the same"), ([lines(9)], "other")]
)
def test_a_segment_in_two_hours_is_a_problem(commits: list[bytes], which: str) -> None:
    disk = new_disk()
    copy = SEALED.parent.with_name("hour=04") / SEALED.name
    put(disk, SEALED, sealed_bytes(COMMITS))
    put(disk, copy, packed(commits))
    verdict, (said,) = verified(disk)
    assert not verdict.ok
    assert said == f"{copy}: has the name of {SEALED} and {which} lines; readers see both"


@pytest.mark.parametrize("data", [open_bytes(COMMITS), sealed_bytes(COMMITS), open_bytes(COMMITS) + b"torn"])
def test_a_segment_that_has_both_its_files_counts_once(data: bytes) -> None:
    disk = new_disk()
    put(disk, OPEN, data)
    put(disk, SEALED, packed([lines(8)]))
    assert whole(disk) == (1, 1, 8, 0)


def test_two_segments_of_one_name_are_a_problem() -> None:
    disk = new_disk()
    put(disk, OPEN, sealed_bytes(COMMITS))
    put(disk, SEALED, sealed_bytes([lines(9)]))
    verdict, (said,) = verified(disk)
    assert sums(verdict) == (1, 1, 9, 1)
    assert said == f"{OPEN}: has the name of {SEALED} and other lines"


@pytest.mark.parametrize("path", [OPEN, SEALED])
def test_two_files_of_one_name_that_cannot_be_compared_are_a_problem(path: Path) -> None:
    disk = new_disk()
    put(disk, OPEN, sealed_bytes(COMMITS))
    put(disk, SEALED, sealed_bytes(COMMITS))
    disk.fail("read", name=path.name, once=False)
    verdict, said = verified(disk)
    error = f"read {path}: Input/output error"
    wanted = [f"{OPEN}: has the name of {SEALED} and lines that cannot be compared ({error})"]
    assert said == wanted + [f"{SEALED}: {error}"] * (path == SEALED)
    assert verdict.segments == 1


# -- while the server runs -----------------------------------------------------------------------


@pytest.mark.parametrize("nth", range(1, 12))
@pytest.mark.parametrize("call", ["list", "read", "stat"])
@pytest.mark.parametrize("way", ["sealed", "packed", "removed"])
def test_a_segment_that_goes_between_any_two_calls_is_no_problem_and_counts_once(
    nth: int, call: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_PIECE_BYTES", 60)
    disk = new_disk()
    segment = write(disk, DATA, COMMITS)
    write(disk, DATA, [lines(1, 8)], NEXT)
    seen = 0

    def go(called: str, _: str) -> None:
        nonlocal seen
        seen += called == call
        if called != call or seen != nth or not disk.exists(OPEN):
            return
        if way == "sealed":
            segment.seal()
        elif way == "packed":
            publish_packed(disk, segment, [lines(3), lines(5, 3)])
        else:
            disk.unlink(segment.abandon())

    disk.on_call = go
    segments, commits, events, problems = whole(disk)
    assert problems == 0
    assert (segments, events) in ((2, 9), (1, 1))
    assert way == "removed" or events == 9
    assert commits in (1, 3, 4)


def test_a_sealed_segment_that_a_consumer_removes_is_no_problem() -> None:
    disk = new_disk()
    write(disk, DATA, COMMITS).seal()
    write(disk, DATA, [lines(1)], NEXT).seal()

    def remove(call: str, name: str) -> None:
        if (call, name) == ("read", SEALED.name):
            disk.unlink(SEALED)

    disk.on_call = remove
    assert whole(disk) == (1, 1, 1, 0)
