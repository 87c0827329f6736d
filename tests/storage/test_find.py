"""find: an event is found by receipt and by id, wherever its segment stands, and few frames are read."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from ingestd.errors import UsageError
from ingestd.storage import packing
from ingestd.storage.find import Found
from ingestd.storage.receipts import Receipt
from ingestd.storage.recovery import recover_all
from ingestd.storage.segment import walk
from ingestd.uuid7 import uuid7s
from tests.storage.looking import COMMITS, Looked, by_id, by_receipt, commit_of, rows
from tests.storage.reads import NEXT, packed
from tests.storage.running import Running
from tests.storage.samples import (
    DATA,
    NAME,
    OPEN,
    SEALED,
    batch,
    lines,
    new_disk,
    open_bytes,
    put,
    sealed_bytes,
    write,
)
from tests.support.disk import FaultyDisk

# -- receipts ----------------------------------------------------------------------------------------


def test_a_commit_has_one_receipt_and_it_finds_what_was_committed_whatever_becomes_of_the_segment() -> None:
    disk = new_disk()
    running = Running(disk).start()
    running.commit(*[batch(10 * n, 1 + n % 3) for n in range(50)])
    receipts = running.receipts

    def check(disk: FaultyDisk) -> str:
        for n, receipt in enumerate(receipts):
            assert commit_of(disk, receipt) == rows(lines(1 + n % 3, 10 * n))
            [found] = by_id(disk, str(10 * n + n % 3))
            assert (found.receipt, found.event) == (receipt, rows(lines(1, 10 * n + n % 3))[0])
        return found.path.parent.name

    assert len(set(receipts)) == 50
    assert check(disk) == "open"
    recovered = disk.crash()
    recover_all(recovered, DATA)
    assert check(recovered).startswith("hour=")
    running.stop()
    assert running.sealer.segments_packed == 1
    assert check(disk).startswith("hour=")
    assert all(commit_of(disk, f"{receipts[0].partition(':')[0]}:{n}") == [] for n in (50, 10**9))


def test_batches_of_one_commit_have_the_same_receipt_and_a_refused_one_has_none() -> None:
    disk = new_disk()
    running = Running(disk)
    for n in range(3):
        assert running.ring.push(batch(n))
    running.ring.publish()
    running.start()
    done, _ = running.acks.get(timeout=60)
    assert [one.message_ids for one in done] == [["0"], ["1"], ["2"]]
    disk.fail("fdatasync")
    assert running.commit(batch(3)) is not None
    assert running.commit(batch(4)) is None
    running.stop()
    first, refused, last = running.receipts
    assert refused == ""
    assert commit_of(disk, first) == rows(lines(3))
    assert commit_of(disk, last) == rows(lines(1, 4))
    assert first.partition(":")[0] != last.partition(":")[0]


def test_a_packed_segment_still_tells_its_commits_by_whole_frames_of_any_size() -> None:
    rng = Random(0)
    counts = [rng.randint(1, 9) for _ in range(200)]
    disk = new_disk()
    starts = [sum(counts[:n]) for n in range(200)]
    segment = write(disk, DATA, [lines(count, start) for count, start in zip(counts, starts, strict=True)])
    segment.finish()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_PACKED_BYTES", 2000)
        path = packing.pack(disk, OPEN)
    assert path is not None
    put(disk, SEALED, disk.read(path))
    found = walk(disk.read(SEALED))
    assert found.index is not None
    assert found.index.commits == tuple(counts)
    assert 5 < len(found.chain.commits) < 100
    for number, (count, start) in enumerate(zip(counts, starts, strict=True)):
        shown = by_receipt(disk, f"{NAME}:{number}")
        assert [one.event for one in shown] == rows(lines(count, start))
        assert [one.line for one in shown] == list(range(start + 1, start + count + 1))


def test_a_receipt_of_a_segment_that_is_not_there_has_no_files() -> None:
    disk = new_disk()
    write(disk, DATA, COMMITS).seal()
    assert Looked(disk).search.files(NAME) == [SEALED]
    assert Looked(disk).search.files(NEXT) == []


def test_of_two_files_of_a_segment_the_sealed_one_is_read() -> None:
    disk = new_disk()
    put(disk, OPEN, open_bytes(COMMITS))
    put(disk, SEALED, sealed_bytes(COMMITS))
    assert Looked(disk).search.files(NAME) == [SEALED, OPEN]
    assert {found.path for found in by_receipt(disk, f"{NAME}:1")} == {SEALED}
    assert [found.path for found in by_id(disk, "3")] == [SEALED]


def test_which_commits_a_sealed_segment_without_index_had_is_not_known() -> None:
    disk = new_disk()
    put(disk, SEALED, packed(COMMITS))
    looked = Looked(disk)
    assert looked.by_receipt(f"{NAME}:0") == []
    [wrong] = looked.wrong
    assert "sealed without an index" in wrong


@pytest.mark.parametrize(
    "text",
    ["", "x", NAME, f"{NAME}:", f"{NAME}:-1", f"{NAME}:1x", f"x{NAME}:1", f"{NAME}:1\n",
     "20260102T030405.678Z-../../x-w0-1:1", f"{NAME}:{'9' * 11}"],
)  # fmt: skip
def test_what_is_no_receipt_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="is not a receipt; one looks like"):
        Receipt.parsed(text)


def test_a_receipt_is_its_text() -> None:
    assert str(Receipt.parsed(f"{NAME}:17")) == str(Receipt(NAME, 17)) == f"{NAME}:17"


# -- ids ---------------------------------------------------------------------------------------------


def test_an_id_is_found_with_its_place_in_open_and_sealed_segments() -> None:
    disk = new_disk()
    write(disk, DATA, COMMITS).seal()
    write(disk, DATA, [lines(1, 6), lines(2, 4)], NEXT)
    first, second = by_id(disk, "4")
    assert first == Found(SEALED, NAME, 5, 1, rows(lines(1, 4))[0])
    assert second == Found(OPEN.with_name(f"{NEXT}.ndjson.zst.open"), NEXT, 2, 1, rows(lines(1, 4))[0])
    assert by_id(disk, "44") == []


def test_all_repetitions_are_shown_in_all_directories() -> None:
    disk = FaultyDisk(Path("/"))
    dirs = Path("/a"), Path("/b")
    for data_dir in dirs:
        disk.make_directory(data_dir / "open")
        write(disk, data_dir, [lines(2) * 3, lines(1, 1)]).seal()
    looked = Looked(disk, *dirs)
    found = looked.by_id("1")
    assert [(one.path.parts[1], one.line, one.commit) for one in found] == [
        (folder, line, commit) for folder in "ab" for line, commit in ((2, 0), (4, 0), (6, 0), (7, 1))
    ]
    assert looked.told == sorted(looked.told)
    assert looked.told[-1][0] == looked.told[-1][1]
    assert looked.wrong == []


ESCAPED = b'{"messageId":"\\u0061b-\\u00633","properties":{"messageId":"no"}}\n{"messageId":"ab-c"}\n'


@pytest.mark.parametrize("way", ["open", "sealed", "without index"])
def test_the_id_is_what_counts_not_how_it_is_spelled_and_not_what_stands_deeper(way: str) -> None:
    disk = new_disk()
    if way == "without index":
        put(disk, SEALED, packed([ESCAPED]))
    else:
        segment = write(disk, DATA, [ESCAPED])
        if way == "sealed":
            segment.seal()
    assert [found.event for found in by_id(disk, "ab-c3")] == [rows(ESCAPED)[0]]
    assert [found.line for found in by_id(disk, "ab-c")] == [2]
    assert by_id(disk, "no") == []


@pytest.mark.parametrize("message_id", ["ü€😀", 'a"b', "a\\b", "a\nb", "\x00", "", " "])
@pytest.mark.parametrize("is_sealed", [False, True])
def test_any_id_can_be_found(message_id: str, is_sealed: bool) -> None:
    content = (json.dumps({"messageId": message_id}) + "\n").encode()
    content += (json.dumps({"messageId": message_id}, ensure_ascii=False) + "\n").encode()
    disk = new_disk()
    segment = write(disk, DATA, [lines(1), content])
    if is_sealed:
        segment.seal()
    assert [found.line for found in by_id(disk, message_id)] == [2, 3]


def test_ids_that_differ_in_the_case_of_letters_are_told_apart() -> None:
    lower = uuid7s(1, 1)[0].replace("0", "a")
    content = b"".join(b'{"messageId":"%b"}\n' % one.encode() for one in (lower, lower.upper()))
    disk = new_disk()
    write(disk, DATA, [content]).seal()
    assert [found.line for found in by_id(disk, lower)] == [1]
    assert [found.line for found in by_id(disk, lower.upper())] == [2]


def test_few_bytes_of_a_sealed_segment_are_read() -> None:
    wanted, *others = uuid7s(20_000, 1)
    rng = Random(0)
    content = [
        b'{"messageId":"%b","p":"%b"}\n' % (one.encode(), rng.randbytes(50).hex().encode()) for one in others
    ]
    content.insert(12_345, b'{"messageId":"%b"}\n' % wanted.encode())
    disk = new_disk()
    write(disk, DATA, [b"".join(content[at : at + 500]) for at in range(0, 20_000, 500)]).seal()
    read_bytes = 0
    real_read = disk.read

    def counted(path: Path, offset: int = 0, size: int = -1) -> bytes:
        nonlocal read_bytes
        data = real_read(path, offset, size)
        read_bytes += len(data)
        return data

    disk.read = counted  # type: ignore[method-assign]
    [found] = by_id(disk, wanted)
    assert (found.line, found.commit) == (12_346, 24)
    index_bytes = 3 * 20_000
    assert read_bytes < index_bytes + len(real_read(SEALED)) // 20
    read_bytes = 0
    assert len(commit_of(disk, f"{NAME}:24")) == 500
    assert read_bytes < index_bytes + len(real_read(SEALED)) // 20


def test_a_segment_without_an_index_is_read_as_a_whole_and_counted() -> None:
    disk = new_disk()
    put(disk, SEALED, packed(COMMITS))
    looked = Looked(disk)
    assert looked.by_id("4") == [Found(SEALED, NAME, 5, None, rows(lines(1, 4))[0])]
    assert looked.by_id("4")[0].receipt is None
    assert looked.search.segments_unindexed == 2
    assert looked.wrong == []
