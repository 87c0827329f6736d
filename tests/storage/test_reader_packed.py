"""`cat` of segments that are packed into other frames while they are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.storage import packing, reading
from ingestd.storage.recovery import recover
from ingestd.storage.segment import publish, walk
from tests.storage.reads import COMMITS, Follower, publish_packed, read
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
    write,
)


@given(st.data())
def test_a_segment_packed_while_followed_is_shown_once(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    looked_after = data.draw(st.sets(st.integers(0, len(counts))))
    frames = data.draw(st.lists(st.integers(1, 30), max_size=6))
    whole = lines(sum(counts))
    disk = new_disk()

    def writing() -> Iterator[None]:
        segment = write(disk, DATA, [])
        at = 0
        for number, count in enumerate(counts):
            if number in looked_after:
                yield
            segment.commit(lines(count, at), ids(lines(count, at)), FIRST_MS, FIRST_MS, sync=True)
            at += count
        if len(counts) in looked_after:
            yield
        publish_packed(disk, segment, cut(whole, frames))
        yield
        yield

    with pytest.MonkeyPatch.context() as patch:
        follower = Follower(disk, patch)
        assert follower.follow(writing()) == whole
    assert follower.wrong == []


def cut(whole: bytes, counts: list[int]) -> list[bytes]:
    """The lines in parts of so many, as long as there are some; the rest is the last part."""
    rest = whole.splitlines(keepends=True)
    parts = []
    for count in counts:
        parts.append(b"".join(rest[:count]))
        rest = rest[count:]
    return [part for part in [*parts, b"".join(rest)] if part]


@pytest.mark.parametrize("nth", range(1, 12))
@pytest.mark.parametrize("frames", [[], [4], [1, 1, 1, 1, 1, 1]])
def test_a_segment_packed_between_any_two_reads_is_shown_once(
    nth: int, frames: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece has less than a commit here, so that there are many reads."""
    monkeypatch.setattr(reading, "_PIECE_BYTES", 60)
    disk = new_disk()
    segment = write(disk, DATA, COMMITS)
    reads = 0

    def pack(call: str, name: str) -> None:
        nonlocal reads
        reads += (call, name) == ("read", OPEN.name)
        if reads == nth and call == "read" and disk.exists(OPEN):
            publish_packed(disk, segment, cut(lines(8), frames))

    disk.on_call = pack
    assert read(disk) == (lines(8), [])


@pytest.mark.parametrize("looks", [1, 2])
def test_a_finished_segment_is_shown_from_open_and_not_again_when_it_has_been_packed(
    looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_KEPT_PERCENT", 1000)
    disk = new_disk()

    def writing() -> Iterator[None]:
        segment = write(disk, DATA, COMMITS)
        path = segment.finish()
        for _ in range(looks):
            yield
        packed = packing.pack(disk, path)
        assert packed is not None
        yield
        publish(disk, DATA, packed, NAME)
        yield
        disk.unlink(path)
        yield
        yield

    follower = Follower(disk, monkeypatch)
    assert follower.follow(writing()) == lines(8)
    assert follower.wrong == []


def test_a_packed_segment_that_is_damaged_is_shown_up_to_there_and_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = new_disk()

    def writing() -> Iterator[None]:
        segment = write(disk, DATA, COMMITS)
        yield
        segment.commit(lines(4, 8), ids(lines(4, 8)), FIRST_MS, FIRST_MS, sync=True)
        publish_packed(disk, segment, cut(lines(12), [10]))
        data = bytearray(disk.read(SEALED))
        data[walk(bytes(data)).chain.commits[1].offset + 9] ^= 1
        put(disk, SEALED, bytes(data))
        yield
        yield

    follower = Follower(disk, monkeypatch)
    assert follower.follow(writing()) == lines(10)
    (wrong,) = follower.wrong
    assert wrong.startswith(f"{SEALED}: the frame at byte ")


def test_a_sealed_segment_with_the_same_frames_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = new_disk()
    offsets: list[int] = []
    real_read = disk.read

    def recorded(path: Path, offset: int = 0, size: int = -1) -> bytes:
        data = real_read(path, offset, size)
        if path == SEALED:
            offsets.append(offset)
        return data

    def writing() -> Iterator[None]:
        segment = write(disk, DATA, COMMITS)
        yield
        segment.commit(lines(1, 8), ids(lines(1, 8)), FIRST_MS, FIRST_MS, sync=True)
        segment.seal()
        monkeypatch.setattr(disk, "read", recorded)
        yield
        yield

    assert Follower(disk, monkeypatch).follow(writing()) == lines(9)
    assert offsets == [len(open_bytes(COMMITS))]


def test_a_commit_that_was_shown_and_then_taken_back_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fdatasync failed, its requests got 500, and its file was cut before it: not promised."""
    disk = new_disk()

    def writing() -> Iterator[None]:
        segment = write(disk, DATA, COMMITS)
        size = segment.size
        segment.commit(lines(3, 8), ids(lines(3, 8)), FIRST_MS, FIRST_MS, sync=True)
        yield
        put(disk, OPEN, disk.read(OPEN)[:size])
        yield
        recover(disk, DATA, OPEN)
        yield
        yield

    follower = Follower(disk, monkeypatch)
    assert follower.follow(writing()) == lines(11)
    assert follower.wrong == []
