"""Counts under names that are found as the server runs, in a block of shared memory."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from ingestd.service import tallies
from ingestd.service.tallies import BLOCK_BYTES, ENTRIES_MAX, Name, Tallies

NAMES = st.tuples(st.text(max_size=6), st.integers(0, 600)) | st.tuples(st.text(max_size=6))


def block(number: int = 0, blocks: int = 1) -> tuple[memoryview, Tallies]:
    region = memoryview(bytearray(BLOCK_BYTES * blocks))
    return region, Tallies(region, number)


@given(st.lists(st.tuples(NAMES, st.integers(0, 2**63 - 1)), max_size=40))
def test_what_was_put_last_is_read_by_all_and_taken_up_by_the_next_writer(
    puts: list[tuple[Name, int]],
) -> None:
    region, first = block()
    reader = Tallies(region, 0)
    half = len(puts) // 2
    for name, number in puts[:half]:
        assert first.put(name, number)
    second = Tallies(region, 0)
    assert second.read() == dict(puts[:half])
    for name, number in puts[half:]:
        assert second.put(name, number)
    assert reader.read() == dict(puts)


def test_blocks_do_not_touch_each_other() -> None:
    region, middle = block(1, 3)
    for number in range(ENTRIES_MAX):
        assert middle.put(("n", number), -1)
    assert len(middle.read()) == ENTRIES_MAX
    assert not middle.put(("one more",), 1)
    assert middle.put(("n", 3), 4)
    assert Tallies(region, 1).read()["n", 3] == 4
    assert Tallies(region, 0).read() == Tallies(region, 2).read() == {}


def test_a_name_that_is_too_long_is_refused_and_the_longest_key_is_not() -> None:
    _, one = block()
    assert not one.put(("x" * 200,), 1)
    assert one.put(("key", "k" * 64), 1)
    assert one.read() == {("key", "k" * 64): 1}


def test_a_reader_sees_no_entry_before_its_name_is_whole() -> None:
    region, one = block()
    one.put(("a",), 1)
    # What a writer that is killed in the middle of a claim leaves.
    name = json.dumps(["half of a long name"]).encode()[:15]
    at = 2 * BLOCK_BYTES // (ENTRIES_MAX + 1) + 8
    region[at : at + len(name)] = name
    assert Tallies(region, 0).read() == {("a",): 1}
    after = Tallies(region, 0)
    assert after.put(("b", 2), 3)
    assert after.read() == {("a",): 1, ("b", 2): 3}
    assert tallies.BLOCK_BYTES % 64 == 0
