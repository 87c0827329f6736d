"""Every way in which the bytes of one segment can be damaged, and what each command makes of it.

Whatever the damage, nothing raises or hangs, no whole commit before it is lost, no byte goes away,
and only a torn tail is repaired: what is damaged in the middle is kept as it is and named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest

from ingestd.storage.disk import Disk
from ingestd.storage.recovery import recover_all
from ingestd.storage.segment import State, walk
from tests.storage.reads import read, verified
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
)

COMMITS = [lines(1), lines(2, 1), lines(1, 3), lines(1, 4)]
WRITTEN, FINISHED = open_bytes(COMMITS), sealed_bytes(COMMITS)
ENDS = [commit.end for commit in walk(FINISHED).chain.commits]
FOOTER_AT = FINISHED.rindex(0x184D2A5E.to_bytes(4, "little"))


@dataclass(frozen=True)
class Expected:
    """What a damaged file still holds, and how its end is to be judged."""

    commits: int
    state: State

    @property
    def shown(self) -> bytes:
        return b"".join(COMMITS[: self.commits])

    @property
    def events(self) -> int:
        return self.shown.count(b"\n")

    @property
    def end(self) -> int:
        return ENDS[self.commits - 1] if self.commits else 0


def check(data: bytes, expected: Expected, disk: Disk | None = None, root: Path = DATA) -> None:
    """Meet the damaged file as a sealed one, as an open one, and as one that recovery finds."""
    if expected.state == "torn" and data[expected.end :].rstrip(b"\0") in (b"", FINISHED[ENDS[-1] :]):
        # Room for the next commit looks like that, also behind a footer.
        expected = replace(expected, state="open")
    found = walk(data)
    assert (len(found.chain.commits), found.state) == (expected.commits, expected.state)
    disk = disk or new_disk()
    for path in (SEALED, OPEN):
        check_reading(disk, root, root / path.relative_to(DATA), data, expected)
    check_recovery(disk, root, data, expected)


def check_reading(disk: Disk, root: Path, path: Path, data: bytes, expected: Expected) -> None:
    """Of a sealed file anything wrong is a problem; the tail of an open one may be on its way."""
    put(disk, path, data)
    is_open = path.name == OPEN.name
    is_wrong = expected.state == "damaged" or (expected.state == "torn" and not is_open)
    shown, wrong = read(disk, root)
    assert shown == expected.shown
    assert len(wrong) == is_wrong
    verdict, said = verified(disk, root)
    assert (verdict.commits, verdict.events) == (expected.commits, expected.events)
    assert verdict.ok == (not is_wrong and (is_open or expected.state == "sealed"))
    assert len(said) == (not verdict.ok or expected.state == "torn")
    assert disk.read(path) == data
    disk.unlink(path)


def check_recovery(disk: Disk, root: Path, data: bytes, expected: Expected) -> None:
    """A torn tail is moved aside, damage is moved to quarantine, and every byte is still there."""
    put(disk, root / OPEN.relative_to(DATA), data)
    [done] = recover_all(disk, root)
    tail = data[expected.end :].rstrip(b"\0") if expected.state in ("torn", "damaged") else b""
    assert (done.commits, done.events) == (expected.commits, expected.events)
    assert done.in_doubt_bytes == len(tail)
    if expected.state == "damaged":
        kept = {f"quarantine/{OPEN.name}": data}
        action = "quarantined"
    else:
        action = "recovered" if expected.commits else "removed"
        kept = {f"open/{NAME}.ndjson.zst.torn": tail} if tail else {}
        if expected.commits:
            kept[str(SEALED.relative_to(DATA))] = sealed_bytes(COMMITS[: expected.commits])
    assert (done.action, tree(disk, root)) == (action, kept)
    verdict, _ = verified(disk, root)
    assert (verdict.ok, verdict.torn_files) == (expected.state != "damaged", "torn" in str(kept.keys()))
    assert recover_all(disk, root) == []
    for path in disk.list(root, "*", deep=True):
        disk.unlink(path)


def whole_commits(size: int) -> int:
    """Commits that end within so many bytes."""
    return sum(end <= size for end in ENDS)


# -- cut off -----------------------------------------------------------------------------------


def cuts() -> Iterator[tuple[bytes, Expected]]:
    """Every byte at which the last three commits and the footer can be cut off."""
    for size in range(ENDS[0], len(FINISHED)):
        commits = whole_commits(size)
        yield FINISHED[:size], Expected(commits, "open" if size in ENDS else "torn")


def test_a_segment_cut_off_at_any_byte_keeps_its_whole_commits() -> None:
    for data, expected in cuts():
        check(data, expected)


def test_on_the_real_disk_too(tmp_path: Path) -> None:
    for data, expected in list(cuts())[::7]:
        check(data, expected, Disk(), tmp_path)


def test_a_segment_cut_off_and_filled_with_zeros_to_its_length_keeps_its_whole_commits() -> None:
    """What a file system leaves that had made the file longer before it wrote."""
    for data, expected in cuts():
        filled = data.ljust(len(FINISHED), b"\0")
        # The last bytes of a trailer may have been zeros.
        if filled[: len(data) + 1] != FINISHED[: len(data) + 1]:
            check(filled, Expected(expected.commits, "torn"))


def test_without_its_first_commit_whole_nothing_is_left_but_the_tail() -> None:
    for size in range(ENDS[0]):
        check(FINISHED[:size], Expected(0, "torn" if size else "open"))


# -- changed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bit", range(8))
def test_a_bit_flipped_in_a_segment_with_a_footer(bit: int) -> None:
    """In any commit, later ones or the footer tell that it was whole once; in the footer, nothing is lost."""
    for position in range(len(FINISHED)):
        data = bytearray(FINISHED)
        data[position] ^= 1 << bit
        commits = whole_commits(position)
        check(bytes(data), Expected(commits, "damaged" if commits < len(COMMITS) else "torn"))


@pytest.mark.parametrize("bit", range(8))
def test_a_bit_flipped_in_a_segment_without_a_footer(bit: int) -> None:
    """In the last commit it cannot be told from a torn write."""
    for position in range(len(WRITTEN)):
        data = bytearray(WRITTEN)
        data[position] ^= 1 << bit
        commits = whole_commits(position)
        check(bytes(data), Expected(commits, "damaged" if commits < len(COMMITS) - 1 else "torn"))


def test_a_footer_tells_which_commits_and_how_many_events_the_damage_puts_in_doubt() -> None:
    for position in range(ENDS[-1]):
        data = bytearray(FINISHED)
        data[position] ^= 1
        disk = new_disk()
        put(disk, OPEN, bytes(data))
        [done] = recover_all(disk, DATA)
        commits = whole_commits(position)
        events = sum(content.count(b"\n") for content in COMMITS[commits:])
        assert done.in_doubt == f"commits {commits} to 3, {events} events"
        assert done.in_doubt_bytes == len(FINISHED) - (ENDS[commits - 1] if commits else 0)


# -- with something behind -----------------------------------------------------------------------


@pytest.mark.parametrize("whole", [WRITTEN, FINISHED], ids=["written", "finished"])
@pytest.mark.parametrize("filling", ["zeros", "garbage"])
def test_a_tail_of_any_size_is_told_from_what_was_written(whole: bytes, filling: str) -> None:
    garbage = bytes(4096) if filling == "zeros" else Random(1).randbytes(4096)
    for size in range(1, 4097):
        found = walk(whole + garbage[:size])
        state: State = "open" if filling == "zeros" else "torn"
        assert (len(found.chain.commits), found.state) == (len(COMMITS), state)
    for size in [*range(1, 70), *range(100, 4097, 97), 4095, 4096]:
        check(whole + garbage[:size], Expected(len(COMMITS), "torn"))


@pytest.mark.parametrize(
    "tail",
    [
        b"\x28\xb5\x2f\xfd",
        b"\x28\xb5\x2f\xfd" + bytes(100),
        b"\x28\xb5\x2f\xfd" + b"\xff" * 100,
        WRITTEN[: ENDS[0] - 52],
        WRITTEN[ENDS[0] - 52 : ENDS[0] - 1],
        FINISHED[ENDS[-1] : -1],
        b"IGFOOT1\n",
        bytes(100) + b"IGFOOT1\n",
        b"\x5e\x2a\x4d\x18" + bytes(100) + b"IGFOOT1\n",
        b"\x5d\x2a\x4d\x18\x2c\0\0\0IGT1",
    ],
    ids=lambda tail: repr(tail[:12]),
)
def test_a_tail_that_looks_like_a_part_of_a_segment_is_a_tail(tail: bytes) -> None:
    check(WRITTEN + tail, Expected(len(COMMITS), "torn"))
    check(WRITTEN[: ENDS[2]] + tail, Expected(3, "torn"))


def test_a_footer_without_its_head_is_a_tail_behind_all_of_its_commits_and_else_damage() -> None:
    """Its head may be in another sector than the rest, and that sector not on disk."""
    index, footer = FINISHED[ENDS[-1] : FOOTER_AT], FINISHED[FOOTER_AT:]
    for ending in (index + bytes(8) + footer[8:], bytes(8) + index[8:] + footer, bytes(8) + footer[8:]):
        check(WRITTEN + ending, Expected(len(COMMITS), "torn"))
        check(WRITTEN[: ENDS[2]] + ending, Expected(3, "damaged"))


@pytest.mark.parametrize("which", range(len(COMMITS)))
def test_a_commit_that_stands_there_twice_is_damage(which: int) -> None:
    start = ENDS[which - 1] if which else 0
    again = WRITTEN[start : ENDS[which]]
    check(WRITTEN + again + WRITTEN[: ENDS[0]], Expected(len(COMMITS), "damaged"))


@pytest.mark.parametrize("segment", [WRITTEN, FINISHED], ids=["written", "finished"])
@pytest.mark.parametrize("size", [2, 8, 52, 100, 512])
@pytest.mark.parametrize("filling", [b"\0", b"\xff", b"\x28\xb5\x2f\xfd", b"\x5d\x2a\x4d\x18"], ids=repr)
def test_something_written_over_a_part_is_damage_if_what_is_left_tells_of_more(
    segment: bytes, size: int, filling: bytes
) -> None:
    for at in range(0, len(segment), 3):
        data = (segment[:at] + (filling * size)[:size] + segment[at + size :])[: len(segment)]
        changed = [number for number, byte in enumerate(data) if byte != segment[number]]
        if changed:
            commits = whole_commits(changed[0])
            state: State = "damaged" if tells_of_more(segment, changed, commits) else "torn"
            check(data, Expected(commits, state))


def tells_of_more(segment: bytes, changed: list[int], commits: int) -> bool:
    """True if a trailer or the footer of a later commit than the last good one is as it was."""

    def is_whole(start: int, end: int) -> bool:
        return not any(start <= position < end for position in changed)

    for number in range(commits, len(COMMITS)):
        # The last trailer of a torn write may be on disk without the frame before it.
        is_torn = number == commits and ENDS[number] == len(segment)
        if is_whole(ENDS[number] - 52, ENDS[number]) and not is_torn:
            return True
    return segment == FINISHED and commits < len(COMMITS) and is_whole(FOOTER_AT + 8, len(FINISHED))
