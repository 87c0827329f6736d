"""What is remembered of deliveries: no first occurrence is dropped, and within bounds every repeat is."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.storage.repeats import Seen, distinct

START_MS = 1_767_323_045_678
WINDOW_S = 100.0


def line(message_id: str, more: str = "") -> bytes:
    return b'{"event":"e","messageId":"%b","properties":{"x":"%b"}}\n' % (message_id.encode(), more.encode())


def lines(*message_ids: str) -> bytes:
    return b"".join(map(line, message_ids))


def deliver(seen: Seen, *message_ids: str, at_s: float = 0) -> bytes:
    """What is new of a commit, which is then delivered."""
    kept = seen.sift(lines(*message_ids), START_MS + int(at_s * 1000)).kept
    seen.record()
    return kept


def test_a_repeat_is_dropped_and_the_first_stays_whatever_else_is_in_it() -> None:
    seen = Seen(WINDOW_S, 1000)
    sifted = seen.sift(line("a", "first") + line("b") + line("a", "second"), START_MS)
    assert sifted == (line("a", "first") + line("b"), 1)
    seen.record()
    assert seen.sift(line("b", "other") + line("c"), START_MS) == (line("c"), 1)
    seen.record()
    assert seen.sift(lines("a", "b", "c"), START_MS) == (b"", 3)


def test_what_is_not_delivered_is_not_seen() -> None:
    seen = Seen(WINDOW_S, 1000)
    assert seen.sift(lines("a", "a"), START_MS) == (lines("a"), 1)
    # Not recorded yet, it stood before nevertheless.
    assert seen.sift(lines("a", "b"), START_MS) == (lines("b"), 1)
    assert len(seen) == 0
    seen.forget_pending()
    assert seen.sift(lines("b", "a"), START_MS) == (lines("b", "a"), 0)
    seen.record()
    seen.forget_pending()
    assert seen.sift(lines("b", "a"), START_MS) == (b"", 2)


@pytest.mark.parametrize(
    "text",
    [
        b'{"event":"e"}\n',
        b'{"event":"e","messageId":""}\n',
        b'{"event":"e","messageId":null}\n',
        b'{"event":"e","messageId":7}\n',
        b'{"event":"e","messageId":["a"]}\n',
        b"no JSON\n",
        b"\n",
        b"\xff\xfe\n",
        b'{"messageId":"cut\n',
        b'{"messageId":"\\ud800"}\n',
        b"[" * 5000 + b"\n",
    ],
)
def test_a_line_whose_id_cannot_be_read_stays_as_it_is(text: bytes) -> None:
    seen = Seen(WINDOW_S, 1000)
    for _ in range(2):
        expected = lines("a") if len(seen) == 0 else b""
        assert seen.sift(text + lines("a") + text, START_MS).kept == text + expected + text
        seen.record()


def test_the_same_id_in_other_letters_is_the_same_and_another_one_is_not() -> None:
    seen = Seen(WINDOW_S, 1000)
    odd = b'{\r"event":"e",\r"messageId":"\\u0061\\u00e4"\r}\r\n'
    assert seen.sift(odd + lines("aä", "aÄ", "AÄ", "a", "aä "), START_MS) == (
        odd + lines("aÄ", "AÄ", "a", "aä "),
        1,
    )


def test_it_forgets_what_is_older_than_the_window() -> None:
    seen = Seen(WINDOW_S, 1000)
    deliver(seen, "a")
    assert deliver(seen, "a", at_s=WINDOW_S) == b""
    assert deliver(seen, "a", at_s=1.2 * WINDOW_S) == lines("a")
    assert len(seen) == 1
    assert seen.reach_s == WINDOW_S


def test_more_ids_than_it_may_remember_cut_the_window_short_and_it_says_so() -> None:
    seen = Seen(WINDOW_S, 80)
    for second in range(70):
        deliver(seen, str(second), at_s=second)
    assert seen.reach_s == WINDOW_S
    for second in range(70, 99):
        deliver(seen, str(second), at_s=second)
    assert 70 <= len(seen) <= 80
    assert seen.reach_s <= 80
    # As far as it says that it reaches, it knows all.
    reached = [str(second) for second in range(99) if second > 98 - seen.reach_s]
    assert len(reached) >= 70
    assert seen.sift(lines(*reached), START_MS + 98_000).kept == b""
    # Once that is long ago it reaches as far as ever.
    deliver(seen, "late", at_s=300)
    assert seen.reach_s == WINDOW_S


@pytest.mark.parametrize("step_s", [-1e8, -3600, -10, 10, 3600, 1e8])
def test_a_clock_that_steps_costs_no_event_and_it_goes_on_afterwards(step_s: float) -> None:
    seen = Seen(WINDOW_S, 10_000)
    new = 0
    for second in range(3000):
        stepped = step_s if 1000 <= second < 2000 else 0.0
        assert deliver(seen, f"{second}", at_s=second + stepped) == lines(str(second))
        repeated = deliver(seen, str(second - 50), at_s=second + stepped)
        new += bool(repeated)
    # Only at the step ahead it may take repeats for new ones.
    assert new <= 50 + (50 if abs(step_s) > 50 else 0)
    # Set back, it forgets nothing until the time is as late again.
    assert len(seen) < (1400 if step_s > 50 else 400)


def test_a_clock_that_jumps_to_and_fro_does_not_confuse_it() -> None:
    seen = Seen(WINDOW_S, 1000)
    for number in range(600):
        assert deliver(seen, str(number), at_s=(0, 99, -90, 50)[number % 4]) == lines(str(number))
        assert len(seen._generations) <= 8
    assert seen.sift(lines(*map(str, range(600))), START_MS).kept == b""
    assert len(seen) == sum(generation.ids for generation in seen._generations) == 600
    assert len(seen) == sum(map(len, seen._buckets)) // 16


def test_what_is_merely_tried_costs_nothing_that_is_remembered() -> None:
    seen = Seen(WINDOW_S, 1000)
    deliver(seen, "a")
    for at_s in (-1e6, -2 * WINDOW_S, 2 * WINDOW_S, 1e6):
        # An old segment, or one of a clock that is wrong, that the destination refuses.
        seen.sift(lines("b"), START_MS + int(at_s * 1000))
        seen.forget_pending()
    assert deliver(seen, "a", at_s=1) == b""
    # And delivered, one that is old.
    deliver(seen, "b", at_s=-1e6)
    assert deliver(seen, "a", "b", "c", at_s=1) == lines("c")
    assert seen.reach_s == WINDOW_S


def test_a_worker_that_lags_behind_finds_its_whole_window() -> None:
    seen = Seen(WINDOW_S, 1000)
    for at_s in range(-90, 0, 10):
        deliver(seen, f"a{at_s}", at_s=at_s)
    # Three segments that were written at the same time, one after the other.
    for worker in range(3):
        for at_s in range(0, 90, 10):
            repeats = [f"a{earlier}" for earlier in range(-90, 0, 10) if at_s - earlier <= WINDOW_S]
            new = f"{worker}-{at_s}"
            kept = seen.sift(lines(*repeats, new), START_MS + at_s * 1000).kept
            assert kept == lines(new)
        seen.record()


def test_after_a_pause_what_is_out_of_the_window_is_new_at_once() -> None:
    seen = Seen(WINDOW_S, 1000)
    deliver(seen, "a", "b")
    assert deliver(seen, "a", "a", at_s=300) == lines("a")
    assert deliver(seen, "a", "b", at_s=301) == lines("b")


@pytest.mark.parametrize("ids_max", [1, 2, 7, 8, 9, 100, 1600])
def test_memory_is_bounded(ids_max: int) -> None:
    seen = Seen(inf, ids_max)
    for first in range(0, 5000, 50):
        ids = [str(number) for number in range(first, first + 50)]
        assert deliver(seen, *ids) == lines(*ids)
        assert len(seen) <= ids_max
        assert sum(map(len, seen._buckets)) == 16 * len(seen)
    assert len(seen) >= ids_max * 7 // 8
    assert len(seen._buckets) <= max(1, ids_max / 16)


def test_memory_is_bounded_also_of_what_is_not_delivered_yet() -> None:
    seen = Seen(WINDOW_S, 10)
    ids = [str(number) for number in range(15)]
    assert seen.sift(lines(*ids, *ids), START_MS) == (lines(*ids, *ids[10:]), 10)
    assert len(seen._pending) == 10
    seen.record()
    assert len(seen) <= 10
    assert seen.reach_s == 0
    # As far back as it says, later, it knows all.
    deliver(seen, "a", at_s=1)
    deliver(seen, "b", at_s=7)
    assert seen.reach_s == 7
    assert seen.sift(lines("a", "b"), START_MS + 7000).kept == b""


IDS = st.lists(st.sampled_from([str(number) for number in range(40)]), max_size=12)
STEPS = st.tuples(IDS, st.integers(-40, 60), st.sampled_from(["record", "record", "wait", "forget"]))


@given(st.lists(STEPS, max_size=60), st.sampled_from([1, 5, 16, 100_000]), st.booleans())
def test_it_does_what_a_plain_model_says(
    steps: list[tuple[list[str], int, str]], ids_max: int, is_steady: bool
) -> None:
    seen = Seen(WINDOW_S, ids_max)
    delivered: dict[str, int] = {}
    pending: dict[str, int] = {}
    at_s = 0
    for message_ids, step_s, then in steps:
        at_s += abs(step_s) if is_steady else step_s
        sifted = seen.sift(lines(*message_ids), START_MS + at_s * 1000)
        kept = [text.split(b'"')[7].decode() for text in sifted.kept.splitlines()]
        assert sifted.dropped == len(message_ids) - len(kept)
        rest = iter(kept)
        told = next(rest, None)
        for message_id in message_ids:
            # Few are known of what is not delivered, either.
            is_pending = message_id in pending and ids_max > 1000
            is_kept = message_id == told and not is_pending
            known_at = delivered.get(message_id)
            if known_at is None and message_id not in pending:
                assert is_kept, "a first occurrence is lost"
            elif is_pending or known_at is None:
                assert not (is_kept and ids_max > 1000)
            elif is_steady and ids_max > 1000 and at_s - known_at <= WINDOW_S:
                assert not is_kept
            elif is_steady and message_id not in pending and at_s - known_at > WINDOW_S * 9 / 8:
                assert is_kept
            if is_kept:
                pending[message_id] = at_s
                told = next(rest, None)
        assert told is None
        if then == "record":
            seen.record()
            delivered |= pending
        elif then == "forget":
            seen.forget_pending()
        if then != "wait":
            pending = {}
        assert len(seen) <= ids_max


def test_distinct_lines_and_what_is_said_of_them() -> None:
    told: list[str] = []
    parts = [lines("a", "b"), lines("b"), lines("a", "c")]
    assert b"".join(distinct(parts, told.append)) == lines("a", "b", "c")
    assert told == ["repeats left out: 2"]
    told.clear()
    assert list(distinct([lines("a"), lines("b")], told.append)) == [lines("a"), lines("b")]
    assert told == []
    many = [lines(str(number)) for number in range(100)]
    assert list(distinct([*many, *many[-2:]], told.append, 40)) == [*many, b"", b""]
    assert told == [
        "more than 40 events: repeats of the oldest are not known any more",
        "repeats left out: 2",
    ]
