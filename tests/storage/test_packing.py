"""Packing: when it pays, that the lines stay the same, and that nothing is left where it fails."""

from __future__ import annotations

import errno
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.errors import StorageError
from ingestd.storage import packing
from ingestd.storage.packing import pack, pays
from ingestd.storage.segment import content, walk
from tests.storage.samples import DATA, NAME, OPEN, lines, new_disk, tree, write
from tests.support.disk import FaultyDisk

PACKED = OPEN.with_name(f"{NAME}.packing")


def finished(commits: list[bytes]) -> FaultyDisk:
    """A disk with a finished segment of these commits in its open/."""
    disk = new_disk()
    write(disk, DATA, commits).finish()
    return disk


def held(data: bytes) -> bytes:
    """All lines of a sealed segment."""
    found = walk(data)
    assert found.state == "sealed"
    return b"".join(content(data, commit) for commit in found.chain.commits)


def noise(size: int, seed: int = 0) -> bytes:
    """A line that cannot be compressed to less than half."""
    return b'"%b"\n' % Random(seed).randbytes(size // 2).hex().encode()


LARGE = 40_000
PAYS = {
    "one commit": ([lines(1)], False),
    "tiny ones": ([lines(1, n) for n in range(3)], True),
    "large ones that have nothing in common": ([noise(LARGE, n) for n in range(4)], False),
    "large ones that repeat each other": ([noise(LARGE)] * 4, True),
    "a large one, and nothing else within reach": ([noise(9 << 20), noise(9 << 20)], False),
}


@pytest.mark.parametrize(("commits", "expected"), PAYS.values(), ids=PAYS)
def test_it_pays_where_frames_are_tiny_or_their_content_repeats(commits: list[bytes], expected: bool) -> None:
    disk = finished(commits)
    assert pays(disk, OPEN, len(commits), sum(map(len, commits))) is expected


def test_large_frames_that_repeat_each_other_become_one() -> None:
    commits = [noise(LARGE)] * 8
    disk = finished(commits)
    assert pack(disk, OPEN) == PACKED
    assert held(disk.read(PACKED)) == b"".join(commits)
    assert len(disk.read(PACKED)) * 7 < len(disk.read(OPEN))


@given(st.lists(st.integers(1, 20), min_size=2, max_size=40), st.integers(100, 5000))
def test_a_packed_segment_holds_the_same_lines_in_fewer_frames(counts: list[int], packed_bytes: int) -> None:
    commits, start = [], 0
    for count in counts:
        commits.append(lines(count, start))
        start += count
    disk = finished(commits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_PACKED_BYTES", packed_bytes)
        path = pack(disk, OPEN)
    before = walk(disk.read(OPEN)).chain
    assert held(disk.read(OPEN)) == b"".join(commits)
    if path is None:
        assert not disk.exists(PACKED)
        return
    assert path == PACKED
    disk.sync_directory(PACKED.parent)
    data = disk.crash().read(PACKED)
    after = walk(data).chain
    assert held(data) == b"".join(commits)
    assert len(data) * 100 <= len(disk.read(OPEN)) * 90
    assert len(after.commits) < len(before.commits)
    assert after.events == before.events
    assert all(c.content_bytes <= max(packed_bytes, *map(len, commits)) for c in after.commits)
    assert min(c.first_ms for c in after.commits) == min(c.first_ms for c in before.commits)
    assert max(c.last_ms for c in after.commits) == max(c.last_ms for c in before.commits)


def test_what_would_hardly_be_smaller_is_left_as_it_is() -> None:
    rng = Random(0)
    disk = finished([b'"%b"\n' % rng.randbytes(2000).hex().encode() for _ in range(5)])
    before = tree(disk)
    assert pack(disk, OPEN) is None
    assert tree(disk) == before


@pytest.mark.parametrize("call", ["create", "write", "fdatasync"])
def test_where_it_fails_nothing_is_left_of_it(call: str) -> None:
    disk = finished([lines(1, n) for n in range(20)])
    before = tree(disk)
    disk.fail(call, error=errno.ENOSPC)
    with pytest.raises(StorageError, match="No space left"):
        pack(disk, OPEN)
    assert tree(disk) == before


def test_what_does_not_read_back_is_not_packed() -> None:
    disk = finished([lines(1, n) for n in range(20)])
    data = bytearray(disk.read(OPEN))
    data[30] ^= 1
    disk.replace_file(OPEN, bytes(data))
    with pytest.raises(StorageError, match="does not read back"):
        pack(disk, OPEN)
    assert disk.read(OPEN) == bytes(data)
