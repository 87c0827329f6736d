"""The index of a segment: what is written is read, what is not whole is not, and it must fit its frames."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.storage import endings, index
from ingestd.storage.fingerprints import of_ids
from ingestd.storage.index import Index
from ingestd.storage.open_segment import UNINDEXED_BYTES_MAX
from ingestd.storage.segment import walk
from tests.storage.samples import ids, lines, sealed_bytes

COUNTS = st.lists(st.integers(1, 9), min_size=1, max_size=30)


def of(counts: list[int], *, packed: bool) -> Index:
    """An index of commits with so many events."""
    return Index(Random(0).randbytes(3 * sum(counts)), tuple(counts) if packed else ())


def read(frame: bytes) -> Index | None:
    payload = endings.unwrapped(frame, index.MARK)
    return None if payload is None else Index.parsed(payload)


@given(COUNTS, st.booleans())
def test_what_is_written_is_read(counts: list[int], packed: bool) -> None:
    written = of(counts, packed=packed)
    assert read(b"before" + written.frame()) == written
    assert endings.first(b"before" + written.frame() + b"after", 6, index.MARK) is not None


@given(COUNTS, st.integers(0), st.integers(0, 7), st.booleans())
def test_one_changed_bit_is_found(counts: list[int], at: int, bit: int, packed: bool) -> None:
    frame = bytearray(of(counts, packed=packed).frame())
    frame[4 + at % (len(frame) - 4)] ^= 1 << bit
    assert endings.first(bytes(frame), 0, index.MARK) is None


def test_no_part_of_it_is_taken_for_the_whole() -> None:
    frame = of([2, 3], packed=True).frame()
    for size in range(len(frame)):
        assert endings.first(frame[:size], 0, index.MARK) is None
        assert read(frame[:size]) is None
        without_start = bytes(size) + frame[size:]
        assert (read(without_start) is None) == (size > 8)
        assert endings.first(without_start, 0, index.MARK) is None or size <= 4


@given(st.binary(max_size=60))
def test_any_payload_can_be_looked_at(payload: bytes) -> None:
    found = Index.parsed(payload)
    assert found is None or len(found.fingerprints) % 3 == 0


def test_ids_are_in_their_order_whether_they_have_waited_for_others_or_not() -> None:
    enough = UNINDEXED_BYTES_MAX // len(lines(1, 100_000)) + 1
    counts = [1, 2, enough // 2, enough // 2, 3, enough, enough, 4]
    commits = [lines(count, 100_000 + sum(counts[:i])) for i, count in enumerate(counts)]
    found = walk(sealed_bytes(commits)).index
    assert found == Index(of_ids(ids(b"".join(commits))))


@pytest.mark.parametrize("change", [b"", b"\0", b"\0\0\0"])
def test_a_payload_of_another_size_than_it_says_is_none(change: bytes) -> None:
    payload = endings.unwrapped(of([2, 3], packed=True).frame(), index.MARK)
    assert payload is not None
    assert (Index.parsed(payload + change) is None) == bool(change)
    assert Index.parsed(payload[:-1]) is None


@pytest.mark.parametrize(
    ("commits", "frames", "expected"),
    [
        ([], [3, 4], True),
        ([], [3, 5], False),
        ([1, 2, 4], [3, 4], True),
        ([1, 2, 4], [7], True),
        ([1, 2, 4], [2, 5], False),
        ([1, 2, 5], [3, 4], False),
        ([1, 2], [3, 4], False),
    ],
)
def test_frames_hold_whole_commits(commits: list[int], frames: list[int], expected: bool) -> None:
    assert Index(bytes(3 * 7), tuple(commits)).fits(frames) is expected


@given(st.lists(st.sampled_from("abc"), max_size=50))
def test_it_tells_which_events_may_have_an_id(ids: list[str]) -> None:
    found = Index(of_ids(ids))
    for wanted in "abcd":
        assert list(found.events_like(wanted)) == [i for i, one in enumerate(ids) if one == wanted]


def test_a_fingerprint_across_two_others_is_none() -> None:
    wanted = of_ids(["a"])
    assert list(Index(b"\0" + wanted + b"\0\0" + wanted).events_like("a")) == [2]
