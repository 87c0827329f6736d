"""The format, byte for byte as the docstring of segment.py tells it, and what readers make of it."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import subprocess
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from zlib import crc32

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ingestd.errors import StorageError
from ingestd.storage.disk import Disk
from ingestd.storage.frames import frame_length
from ingestd.storage.segment import Chain, new_name, sealed_path, walk
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
    sealed_bytes,
    write,
)
from tests.support.disk import PowerCut

COMMITS = [lines(1), lines(40, 1), lines(3, 41)]
Make = Callable[[list[bytes]], bytes]
CONTENT = b"".join(COMMITS)


def test_the_bytes_are_laid_out_as_the_docstring_says() -> None:
    data = sealed_bytes(COMMITS)
    at, before, digest, entries, frames = 0, 0, hashlib.sha256(), b"", 0
    for sequence, content in enumerate(COMMITS):
        magic, size, version = struct.unpack_from("<II4s", data, data.index(b"IGT1", at) - 8)
        assert (magic, size, version) == (0x184D2A5D, 44, b"IGT1")
        trailer_at = data.index(b"IGT1", at)
        body = data[trailer_at : trailer_at + 44]
        number, events, content_bytes, frame_bytes = struct.unpack_from("<IIII", body, 4)
        first, after, frame_crc, crc_before, crc = struct.unpack_from("<QIIII", body, 20)
        frame = data[at : trailer_at - 8]
        assert (number, events, content_bytes) == (sequence, content.count(b"\n"), len(content))
        assert (frame_bytes, frame_crc) == (len(frame), crc32(frame))
        assert (first, after) == (FIRST_MS + 1000 * sequence, 7)
        assert (crc_before, crc) == (before, crc32(body[:40]))
        assert zstandard.ZstdDecompressor().decompress(frame) == content
        parameters = zstandard.get_frame_parameters(frame)
        assert (parameters.content_size, parameters.has_checksum) == (len(content), True)
        entries += struct.pack("<QIQI", at, events, first, after)
        digest.update(body)
        at, before, frames = trailer_at + 44, crc, frames + len(frame)
    fingerprints = b"".join((crc32(b"%d" % n) & 0xFFFFFF).to_bytes(3, "little") for n in range(44))
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(b"")
    payload = struct.pack("<III", 44, 0, len(packed)) + packed + fingerprints
    size = len(payload) + 16
    index = struct.pack("<II", 0x184D2A5F, size) + payload
    index += struct.pack("<II8s", crc32(payload), size, b"IGINDX1\n")
    payload = entries + struct.pack("<IQQQ", 3, 44, len(CONTENT), frames) + digest.digest()
    size = len(payload) + 16
    assert data[at:] == (
        index
        + struct.pack("<II", 0x184D2A5E, size)
        + payload
        + struct.pack("<II8s", crc32(payload), size, b"IGFOOT1\n")
    )


def test_a_sealed_segment_is_its_open_one_with_index_and_footer() -> None:
    assert sealed_bytes(COMMITS).startswith(open_bytes(COMMITS))
    assert walk(sealed_bytes(COMMITS)).state == "sealed"
    assert walk(open_bytes(COMMITS)).state == "open"


@pytest.mark.parametrize("make", [open_bytes, sealed_bytes])
def test_the_zstd_command_reads_it(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "segment.zst"
    path.write_bytes(make(COMMITS))
    assert subprocess.run(["zstd", "-dc", path], capture_output=True, check=True).stdout == CONTENT


@pytest.mark.parametrize("make", [open_bytes, sealed_bytes])
def test_a_streaming_reader_reads_it(make: Make) -> None:
    stream = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(make(COMMITS)), read_across_frames=True)
    assert stream.read() == CONTENT


def test_it_begins_with_a_data_frame() -> None:
    assert sealed_bytes([lines(1)])[:4] == open_bytes([lines(1)])[:4] == b"\x28\xb5\x2f\xfd"


@given(
    level=st.integers(-7, 19),
    checksum=st.booleans(),
    told=st.booleans(),
    kind=st.sampled_from(["empty", "same", "random", "lines"]),
    size=st.one_of(st.integers(0, 2000), st.sampled_from([131_071, 131_072, 131_073, 300_000])),
    after=st.binary(max_size=20),
)
def test_the_length_of_any_frame_is_known_from_its_headers(
    level: int, checksum: bool, told: bool, kind: str, size: int, after: bytes
) -> None:
    content = {
        "empty": b"",
        "same": b"x" * size,
        "random": random.Random(size).randbytes(size),
        "lines": lines(size // 20),
    }[kind]
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=checksum, write_content_size=told)
    frame = compressor.compress(content)
    assert frame_length(b"before" + frame + after, 6) == len(frame)
    assert frame_length(frame[:-1], 0) is None
    assert frame_length(frame[: len(frame) // 2], 0) is None


@given(st.binary(max_size=200))
def test_any_bytes_can_be_walked_and_measured(data: bytes) -> None:
    for bytes_ in (data, b"\x28\xb5\x2f\xfd" + data):
        length = frame_length(bytes_, 0)
        assert length is None or 4 < length <= len(bytes_)
        assert walk(bytes_).chain.commits == []


@given(st.data())
def test_a_walk_from_any_commit_on_finds_what_the_whole_walk_finds(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([sealed_bytes(COMMITS), open_bytes(COMMITS)]))
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    expected = walk(cut)
    chain = walk(cut[: data.draw(st.integers(0, len(cut)))]).chain
    found = walk(cut[chain.end :], chain)
    assert (found.state, found.problem) == (expected.state, expected.problem)
    assert found.chain.commits == expected.chain.commits


@given(st.integers(0), st.integers(1, 255))
def test_one_changed_byte_never_makes_a_good_segment(position: int, flip: int) -> None:
    data = bytearray(sealed_bytes(COMMITS))
    data[position % len(data)] ^= flip
    found = walk(bytes(data))
    assert found.state in ("torn", "damaged")
    assert found.problem
    assert all(commit in walk(sealed_bytes(COMMITS)).chain.commits for commit in found.chain.commits)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_commit_that_is_missing_shows(number: int) -> None:
    data = sealed_bytes(COMMITS)
    commit = walk(data).chain.commits[number]
    found = walk(data[: commit.offset] + data[commit.end :])
    assert (found.state, len(found.chain.commits)) == ("damaged", number)


def test_commits_in_another_order_show() -> None:
    data = open_bytes(COMMITS)
    first, second, third = walk(data).chain.commits
    swapped = data[: first.end] + data[third.offset :] + data[second.offset : second.end]
    assert walk(swapped).state == "damaged"


def test_a_commit_of_another_segment_shows() -> None:
    ours, theirs = open_bytes(COMMITS), open_bytes([lines(1, 7), *COMMITS[1:]])
    third = walk(ours).chain.commits[2]
    found = walk(ours[: third.offset] + theirs[walk(theirs).chain.commits[2].offset :])
    assert (found.state, len(found.chain.commits)) == ("torn", 2)


def test_a_clock_set_far_forward_within_a_commit_is_no_error() -> None:
    disk = new_disk()
    segment = write(disk, DATA, [])
    segment.commit(lines(2), ids(lines(2)), 0, 1 << 45, sync=True)
    segment.commit(lines(2), ids(lines(2)), 1 << 45, 0, sync=True)
    found = walk(disk.read(segment.seal()))
    assert found.state == "sealed"
    assert [(c.first_ms, c.last_ms) for c in found.chain.commits] == [(0, 0xFFFF_FFFF), (1 << 45, 1 << 45)]


def test_a_failed_commit_leaves_the_chain_as_it_was() -> None:
    for call in ("write", "fdatasync"):
        disk = new_disk()
        segment = write(disk, DATA, COMMITS)
        size, footer = segment.size, segment.chain.footer()
        disk.fail(call)
        with pytest.raises(StorageError):
            segment.commit(lines(1), ["0"], 0, 0, sync=True)
        assert (segment.size, segment.chain.footer()) == (size, footer)
        assert disk.read(segment.abandon()) == open_bytes(COMMITS)


def test_a_segment_that_cannot_be_made_durable_leaves_no_file() -> None:
    disk = new_disk()
    disk.fail("fsync", name="open")
    with pytest.raises(StorageError):
        write(disk, DATA, [])
    assert disk.list(DATA / "open", "*") == []


def test_a_file_is_in_its_directory_durably_before_its_first_commit() -> None:
    disk = new_disk()
    write(disk, DATA, [lines(1)])
    calls = [call for call, _ in disk.calls]
    assert calls[-4:] == ["create", "fsync", "write", "fdatasync"]
    assert disk.crash().read(OPEN) == open_bytes([lines(1)])


def test_a_sealed_segment_survives_a_power_cut_at_any_call_in_one_place_or_both() -> None:
    places = set()
    for cut in range(40):
        disk = new_disk()
        segment = write(disk, DATA, COMMITS)
        disk.cut_after = cut
        with suppress(PowerCut):
            segment.seal()
        for after in (disk.crash(), disk.crash(random.Random(cut))):
            found = [path for path in (OPEN, SEALED) if after.exists(path)]
            places.add(tuple(found))
            assert all(after.read(path).startswith(open_bytes(COMMITS)) for path in found)
            assert SEALED not in found or after.read(SEALED) == sealed_bytes(COMMITS)
    assert places == {(OPEN,), (OPEN, SEALED), (SEALED,)}


def test_a_seal_that_fails_late_closes_the_file_once() -> None:
    disk = new_disk()
    segment = write(disk, DATA, COMMITS)
    disk.fail("link")
    with pytest.raises(StorageError):
        segment.seal()
    assert segment.abandon() == OPEN
    assert [call for call, name in disk.calls if name == OPEN.name].count("close") == 1


def test_a_name_tells_time_node_worker_and_sequence_and_leads_to_its_hour() -> None:
    opened = datetime(2026, 1, 2, 4, 4, 5, 678_999, tzinfo=timezone(timedelta(hours=1)))
    assert new_name(opened, "a_b/ü.local", 3, 12) == "20260102T030405.678Z-a-b-.local-w3-000012"
    assert sealed_path(DATA, new_name(opened, "node", 0, 1)) == SEALED
    assert new_name(opened, "/", 0, 1) == NAME


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 30), timezones=st.just(UTC)),
    st.text(),
    st.integers(0, 999),
    st.integers(1, 10**7),
)
def test_every_name_made_has_a_sealed_place(opened: datetime, node: str, worker: int, sequence: int) -> None:
    path = sealed_path(DATA, new_name(opened, node, worker, sequence))
    assert path.parent == DATA / "segments" / f"date={opened:%Y-%m-%d}" / f"hour={opened:%H}"


@pytest.mark.parametrize(
    "name", ["", "notes", "../20260102T030405.678Z-node-w0-000001/x", "20260102T030405Z-node-w0-1"]
)
def test_a_foreign_name_has_no_sealed_place(name: str) -> None:
    with pytest.raises(StorageError, match=r"is not the name of a segment"):
        sealed_path(DATA, name)


def test_the_real_disk_seals_the_same_bytes(tmp_path: Path) -> None:
    disk = Disk()
    disk.make_directory(tmp_path / "open")
    path = write(disk, tmp_path, COMMITS).seal()
    assert path == tmp_path / SEALED.relative_to(DATA)
    assert path.read_bytes() == sealed_bytes(COMMITS)
    assert list((tmp_path / "open").iterdir()) == []


def test_an_empty_chain_has_no_end_and_no_events() -> None:
    assert (Chain().end, Chain().events, walk(b"").state) == (0, 0, "open")
