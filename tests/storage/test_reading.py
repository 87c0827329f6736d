"""Reading in pieces finds what one walk over the whole file finds, in bounded memory and in order."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.storage import reading
from ingestd.storage.reading import Reading, in_order
from ingestd.storage.segment import walk
from tests.storage.samples import OPEN, SEALED, lines, new_disk, open_bytes, put, sealed_bytes

COMMITS = [lines(2), lines(60, 2), lines(1, 62), lines(9, 63)]
WHOLE = {"open": open_bytes(COMMITS), "sealed": sealed_bytes(COMMITS)}


@given(
    st.sampled_from(sorted(WHOLE)),
    st.integers(1, 700),
    st.integers(1, 2000),
    st.integers(0, 2000),
    st.sampled_from([0, 0, 1, 128, 255]),
    st.binary(max_size=20),
)
def test_pieces_of_any_size_find_what_one_walk_finds(
    which: str, piece_bytes: int, group_bytes: int, position: int, flip: int, after: bytes
) -> None:
    data = bytearray(WHOLE[which])
    data[position % len(data)] ^= flip
    data += after
    expected = walk(bytes(data))
    disk = new_disk()
    put(disk, SEALED, bytes(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_PIECE_BYTES", piece_bytes)
        patch.setattr(reading, "_GROUP_BYTES", group_bytes)
        found = Reading(SEALED)
        groups = list(found.groups(disk))
    assert (found.found.state, found.found.problem) == (expected.state, expected.problem)
    assert [commit for group in groups for commit in group.commits] == expected.chain.commits
    assert all(len(group.commits) == 1 or group.content_bytes <= group_bytes for group in groups)
    contents = [lines for group in groups for _, lines in group.contents()]
    assert contents == COMMITS[: len(expected.chain.commits)]


@given(st.integers(1, 700), st.lists(st.integers(0, 2000), max_size=5))
def test_a_file_that_grows_by_any_bytes_is_read_once(piece_bytes: int, sizes: list[int]) -> None:
    data = WHOLE["sealed"]
    disk = new_disk()
    found = Reading(OPEN)
    contents = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_PIECE_BYTES", piece_bytes)
        for size in [*sorted(sizes), len(data)]:
            put(disk, OPEN, data[:size])
            for group in found.groups(disk):
                contents += [lines for _, lines in group.contents()]
    assert contents == COMMITS
    assert found.found.state == "sealed"


def test_no_more_of_a_file_is_read_at_once_than_a_commit_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_PIECE_BYTES", 1000)
    disk = new_disk()
    put(disk, SEALED, sealed_bytes([lines(3, 3 * number) for number in range(1000)]))
    sizes: list[int] = []
    real_read = disk.read

    def recorded(path: Path, offset: int = 0, size: int = -1) -> bytes:
        sizes.append(size)
        return real_read(path, offset, size)

    monkeypatch.setattr(disk, "read", recorded)
    found = Reading(SEALED)
    assert sum(len(group.commits) for group in found.groups(disk)) == 1000
    assert found.found.state == "sealed"
    # Index and footer alone, which are checked as a whole, take more.
    ending_bytes = 3 * 3000 + 24 * 1000
    assert set(sizes[: sizes.index(2000)]) == {1000}
    assert max(sizes) < 2 * ending_bytes


# -- in order ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Task:
    """Something to be done."""

    number: int
    content_bytes: int


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 100))
def test_results_come_in_order_and_only_so_much_is_held(sizes: list[int], ahead_bytes_max: int) -> None:
    held = 0
    taken: list[int] = []

    def tasks() -> Iterator[Task]:
        nonlocal held
        for number, size in enumerate(sizes):
            assert held <= ahead_bytes_max or number - len(taken) <= 1
            held += size
            yield Task(number, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_AHEAD_BYTES_MAX", ahead_bytes_max)
        for task, result in in_order(tasks(), lambda task: -task.number):
            assert result == -task.number
            taken.append(task.number)
            held -= task.content_bytes
    assert taken == list(range(len(sizes)))


def test_as_many_work_at_once_as_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    meeting = threading.Barrier(3)

    def meet(_: Task) -> int:
        return meeting.wait(20)

    results = [result for _, result in in_order([Task(number, 1) for number in range(6)], meet)]
    assert sorted(results) == [0, 0, 1, 1, 2, 2]


def test_an_error_of_a_task_comes_in_its_turn() -> None:
    def work(task: Task) -> int:
        return 1 // task.number

    results = in_order([Task(number, 1) for number in (1, 1, 0, 1)], work)
    assert [next(results)[1], next(results)[1]] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_no_thread_is_left_when_nobody_wants_the_rest() -> None:
    results = in_order([Task(number, 1) for number in range(1000)], lambda _: 0)
    next(results)
    results.close()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("reader")] == []


def test_what_is_written_while_it_is_read_is_no_damage() -> None:
    """A long read may have old zeros before commits that were written meanwhile."""
    disk = new_disk()
    whole = open_bytes(COMMITS * 3)
    second, third = walk(whole).chain.commits[1:3]
    mixed = whole[: second.offset] + bytes(third.offset - second.offset) + whole[third.offset :]
    assert walk(mixed).state == "damaged"
    put(disk, OPEN, whole)
    reads = iter([mixed])
    read = disk.read
    disk.read = lambda path, offset=0, size=-1: next(reads, read(path, offset, size))  # type: ignore[method-assign]
    reading = Reading(OPEN)
    shown = b"".join(lines for group in reading.groups(disk) for _, lines in group.contents())
    assert (shown, reading.found.state) == (b"".join(COMMITS * 3), "open")


def test_damage_in_an_open_segment_is_believed_if_it_stays() -> None:
    disk = new_disk()
    data = bytearray(open_bytes(COMMITS * 3))
    data[walk(bytes(data)).chain.commits[1].offset + 5] ^= 1
    put(disk, OPEN, bytes(data))
    reading = Reading(OPEN)
    shown = b"".join(lines for group in reading.groups(disk) for _, lines in group.contents())
    assert (shown, reading.found.state) == (COMMITS[0], "damaged")
