"""find, where files are damaged, unreadable, or change while they are read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ingestd.storage import packing
from ingestd.storage.find import Found
from ingestd.storage.segment import walk
from tests.storage.looking import COMMITS, QUARANTINED, Looked, by_id, by_receipt, rows
from tests.storage.reads import NEXT
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
    write,
)


def test_a_damaged_index_is_told_and_the_lines_are_read_as_a_whole() -> None:
    data = bytearray(sealed_bytes(COMMITS))
    data[walk(bytes(data)).chain.end + 20] ^= 1
    disk = new_disk()
    put(disk, SEALED, bytes(data))
    looked = Looked(disk)
    assert [found.line for found in looked.by_id("4")] == [5]
    [wrong] = looked.wrong
    assert wrong.startswith(f"{SEALED}: the index at byte")


def test_what_is_whole_of_a_quarantined_file_is_found_and_the_rest_told() -> None:
    data = open_bytes(COMMITS)
    third = walk(data).chain.commits[2].offset
    damaged = data[:third] + b"\0" * 20 + data[third + 20 :] + open_bytes(COMMITS)
    for path in (QUARANTINED, QUARANTINED.with_name(f"{OPEN.name}.1")):
        disk = new_disk()
        put(disk, path, damaged)
        for number in (0, 1):
            assert [found.path for found in by_receipt(disk, f"{NAME}:{number}")] == [path] * (2 + number)
        looked = Looked(disk)
        assert [(found.path, found.line, found.commit) for found in looked.by_id("4")] == [(path, 5, 1)]
        assert looked.by_receipt(f"{NAME}:2") == []
        assert len(looked.wrong) == 2
        assert all(wrong.startswith(f"{path}: no whole zstd frame at byte") for wrong in looked.wrong)


def test_the_torn_tail_of_an_open_segment_is_on_its_way_and_no_problem() -> None:
    disk = new_disk()
    put(disk, OPEN, open_bytes(COMMITS) + b"tail")
    assert len(by_id(disk, "5")) == 1
    assert by_receipt(disk, f"{NAME}:3") == []


LOOKS: dict[str, Callable[[Looked], list[Found]]] = {
    "by id": lambda looked: looked.by_id("4"),
    "by receipt": lambda looked: looked.by_receipt(f"{NAME}:1"),
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("call", ["read", "stat", "list"])
@pytest.mark.parametrize("nth", range(1, 8))
def test_whatever_cannot_be_read_is_told_and_nothing_raises(look: str, call: str, nth: int) -> None:
    disk = new_disk()
    write(disk, DATA, COMMITS).seal()
    write(disk, DATA, [lines(1, 7)], NEXT)
    disk.fail(call, nth=nth, once=False)
    looked = Looked(disk)
    found = LOOKS[look](looked)
    assert found or looked.wrong
    assert bool(looked.wrong) == bool(disk.failed) or call == "stat"


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("nth", range(1, 12))
@pytest.mark.parametrize("call", ["list", "read", "stat"])
@pytest.mark.parametrize("way", ["sealed", "packed"])
def test_a_segment_that_is_sealed_between_any_two_calls_is_found_once(
    look: str, nth: int, call: str, way: str
) -> None:
    disk = new_disk()
    segment = write(disk, DATA, COMMITS)
    seen = 0

    def go(called: str, _: str) -> None:
        nonlocal seen
        seen += called == call
        if called == call and seen == nth and disk.exists(OPEN):
            path = segment.finish()
            copy = packing.pack(disk, path) if way == "packed" else None
            segment.publish(copy or path, NAME)
            disk.unlink(OPEN)

    disk.on_call = go
    looked = Looked(disk)
    found = LOOKS[look](looked)
    assert looked.wrong == []
    assert [(one.line, one.commit) for one in found if one.event == rows(lines(1, 4))[0]] == [(5, 1)]


def test_a_segment_that_is_deleted_meanwhile_is_not_found_and_no_problem() -> None:
    disk = new_disk()
    write(disk, DATA, COMMITS).seal()

    def remove(call: str, name: str) -> None:
        if (call, name) == ("read", SEALED.name):
            disk.unlink(SEALED)

    disk.on_call = remove
    assert by_id(disk, "4") == []
    disk = new_disk()
    write(disk, DATA, COMMITS).seal()
    disk.on_call = remove
    assert by_receipt(disk, f"{NAME}:1") == []
