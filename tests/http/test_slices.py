"""A large array is validated in slices, so that others are served between, and becomes the same lines."""

from __future__ import annotations

import gzip
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestd import events, slices
from ingestd.errors import Rejection
from ingestd.events import SLICED_BYTES_MIN, Batch, Stamper
from ingestd.forms import MANY, ONE
from tests.http.test_rounds import GOOD, INVALID, MADE, ODD
from tests.http.test_splits import UNHURRIED
from tests.support.requests import SECRET, encoded, event, head, post
from tests.support.wire import Site, Wire, assert_ended, key

TARGET: Final = "/v1/bulk-track"
STRICT: Final = 64 * 1024


def array(count: int, pad: int = 1000, **fields: Any) -> list[dict[str, Any]]:
    """That many events of about `pad` bytes."""
    return [event(f"m-{i}", pad="x" * pad, **fields) for i in range(count)]


LARGE: Final = encoded(array(700))
assert len(LARGE) > SLICED_BYTES_MIN


# -- the same as in one go --------------------------------------------------------------------


def result(batches: Iterator[Batch | None]) -> Any:
    """The lines and ids of the batch that comes last, without what differs from time to time."""
    try:
        [batch] = [batch for batch in batches if batch is not None]
    except Rejection as e:
        return e.status, e.code, e.detail
    ids = [MADE.sub(b"made", message_id.encode()) for message_id in batch.message_ids]
    return MADE.sub(b"made", batch.lines), ids, batch.events


def members(lines: bytes) -> list[Any]:
    """The members of each line in their order, numbers as they are spelled; white space may differ."""
    return [
        json.loads(line, object_pairs_hook=list, parse_float=str, parse_int=str)
        for line in lines.split(b"\n")[:-1]
    ]


@pytest.fixture(scope="module", autouse=True)
def small_slices() -> Iterator[pytest.MonkeyPatch]:
    """In calls of `Stamper.slices` by a test, every array is sliced, after 200 bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "SLICED_BYTES_MIN", 0)
        patch.setattr(slices, "_SLICE_BYTES", 200)
        yield patch


def as_whole(body: bytes, strict_bytes_max: int = STRICT) -> Any:
    return result(iter(Stamper("web", strict_bytes_max).batch(body, MANY) for _ in range(1)))


def as_slices(body: bytes, strict_bytes_max: int = STRICT) -> Any:
    return result(Stamper("web", strict_bytes_max).slices(body, MANY))


def assert_alike(body: bytes, strict_bytes_max: int = STRICT) -> None:
    """Sliced and whole are accepted with the same lines, or refused with the same code and place."""
    whole, sliced = as_whole(body, strict_bytes_max), as_slices(body, strict_bytes_max)
    if whole[0] == 400:
        # Syntax is judged before events, so of several faults another one may be named.
        assert sliced[0] == 400
    else:
        assert sliced[1:] == whole[1:]
        assert members(sliced[0]) == members(whole[0])


_items = st.sampled_from([*GOOD, *ODD, encoded(event("long", pad="x" * 300))])
_separators = st.sampled_from([b",", b" ,\n", b",\r\n  "])


@settings(UNHURRIED, max_examples=200)
@given(st.lists(_items, max_size=12), _separators, st.sampled_from([0, 500, STRICT]))
def test_accepted_arrays_become_the_same_lines(items: list[bytes], separator: bytes, strict: int) -> None:
    body = b" [" + separator.join(items) + b"]\n"
    assert_alike(body, strict)
    assert (as_whole(body, strict)[0] == 400) is (not items)


@settings(UNHURRIED, max_examples=200)
@given(
    st.lists(_items, max_size=8), st.sampled_from(INVALID), st.integers(0, 8), st.sampled_from([0, STRICT])
)
def test_of_one_fault_the_same_place_is_named(
    items: list[bytes], fault: bytes, place: int, strict: int
) -> None:
    body = b"[" + b",".join([*items[:place], fault, *items[place:]]) + b"]"
    assert_alike(body, strict)
    if b"invalid_event" in repr(as_whole(body, strict)).encode():
        assert as_slices(body, strict) == as_whole(body, strict)


def test_the_place_of_a_fault_is_counted_from_the_start_of_the_array() -> None:
    for place in (0, 1, 7, 299):
        bodies = array(300, 10)
        bodies[place]["timestamp"] = "yesterday"
        status, code, detail = as_slices(encoded(bodies))
        assert (status, code) == (400, "invalid_event")
        assert detail.startswith(f"$[{place}].timestamp: ")


@pytest.mark.parametrize("indent", [None, 1, "\t"])
def test_an_array_in_any_layout_becomes_one_line_for_each_event(indent: int | str | None) -> None:
    body = json.dumps(array(50, 40), indent=indent).encode()
    lines, ids, count = as_slices(body)
    assert count == len(ids) == lines.count(b"\n") == 50
    assert_alike(body)


def test_lone_surrogates_are_mended_and_pairs_are_kept_in_any_slice() -> None:
    names = ["\\ud800", "\\udc00x", "\\ud83d\\ude00", "\\\\ud800", "plain"]
    texts = [
        f'{{"event":"{names[i % 5]}","properties":{{}},"timestamp":"2025-10-29T22:00:00Z"}}'
        for i in range(60)
    ]
    body = f"[{','.join(texts)}]".encode()
    lines, _, _ = as_slices(body)
    assert lines.count(b"\\ufffd") == 24
    assert lines.count(b"\\ud83d\\ude00") == 12
    assert_alike(body)


def test_whether_a_body_is_judged_strictly_depends_on_its_own_size_not_on_that_of_a_slice() -> None:
    twice = [
        b'{"event":"e","properties":{"a":1,"a":2},"timestamp":"2025-10-29T22:00:00Z","messageId":"m"}'
    ] * 30
    body = b"[" + b",".join(twice) + b"]"
    for strict, kept in ((len(body), 0), (len(body) - 1, 30)):
        lines, _, _ = as_slices(body, strict)
        assert lines.count(b'"a":1,"a":2') == kept
        assert_alike(body, strict)


def test_all_events_of_a_request_are_received_at_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = itertools.count(1_700_000_000_000_000_000, 5_000_000)
    monkeypatch.setattr(time, "time_ns", lambda: next(moments))
    stamper = Stamper("web", STRICT)
    last = None
    for batch in stamper.slices(encoded([event(None) for _ in range(50)]), MANY):
        # Meanwhile another request of this key is stamped with a time of its own.
        last, other = batch, stamper.batch(encoded(event()), ONE)
    assert last is not None
    stored = [json.loads(line) for line in last.lines.splitlines()]
    assert len({line["receivedAt"] for line in stored}) == 1
    assert len({message_id[:13] for message_id in last.message_ids}) == 1
    assert json.loads(other.lines)["receivedAt"] > stored[0]["receivedAt"]


@pytest.mark.parametrize("body", [b"", b"[", b"{}", b"7", b"[7]", b"[]", b"[7,", b"\xff", b'["\xff"]'])
def test_what_is_no_array_of_events_is_400(body: bytes) -> None:
    assert as_slices(body)[0] == as_whole(body)[0] == 400
    assert as_slices(body)[2]


# -- through the wire -------------------------------------------------------------------------


def test_others_are_answered_between_slices() -> None:
    site = Site()
    large, other = Wire(site), Wire(site)
    with site.one_round():
        large.feed(post(LARGE, TARGET))
        answered = 0
        while site.turn():
            other.feed(head("GET /healthz HTTP/1.1"))
            answered += 1
            assert large.answers() == []
    site.commit()
    assert answered >= len(LARGE) // (128 * 1024)
    assert len(other.answers(["GET"] * answered)) == answered
    assert large.answer().json["messageIds"] == [f"m-{i}" for i in range(700)]


def test_while_slices_run_the_connection_is_not_read() -> None:
    site = Site()
    wire = Wire(site)
    with site.one_round():
        wire.feed(post(LARGE, TARGET))
        assert site.turn()
        assert not wire.transport.is_reading()
    assert wire.transport.is_reading()


def test_what_is_pipelined_after_a_large_array_stays_in_order() -> None:
    site = Site()
    wire = Wire(site)
    small = [post(encoded(event(f"s-{i}"))) for i in range(3)]
    bulk = post(encoded([event("b-0"), event("b-1")]), TARGET)
    # In one piece, so that all of it has been read when the slices begin.
    data = small[0] + post(LARGE, TARGET) + small[1] + bulk + post(LARGE, TARGET) + small[2]
    with site.one_round():
        wire.feed(b"", [data])
    site.commit(bytes_max=1)
    expected = [
        "s-0",
        *(f"m-{i}" for i in range(700)),
        "s-1",
        "b-0",
        "b-1",
        *(f"m-{i}" for i in range(700)),
        "s-2",
    ]
    assert [stored["messageId"] for stored in site.stored] == expected
    assert [answer.status for answer in wire.answers()] == [200] * 6
    assert site.inflight_bytes == 0


def test_what_is_pipelined_after_a_large_array_and_an_error_is_not_stored() -> None:
    site = Site()
    wire = Wire(site)
    data = post(LARGE, TARGET) + post(b"{") + post(LARGE, TARGET) + post(encoded(event("never")))
    with site.one_round():
        wire.feed(b"", [data])
    site.commit(bytes_max=1)
    assert [stored["messageId"] for stored in site.stored] == [f"m-{i}" for i in range(700)]
    assert [answer.status for answer in wire.answers()] == [200, 400]
    assert_ended(wire)


def test_two_clients_with_large_arrays_take_turns_and_keep_their_sources() -> None:
    site = Site()
    site.keyring.replace([key(), key("ing_b", "b")])
    wires = [Wire(site), Wire(site)]
    with site.one_round():
        for wire, secret in zip(wires, (SECRET, "ing_b"), strict=True):
            lines = [f"Authorization: Bearer {secret}", f"Content-Length: {len(LARGE)}"]
            wire.feed(head(f"POST {TARGET} HTTP/1.1", lines, auth=False) + LARGE)
    site.commit()
    assert [wire.answer().status for wire in wires] == [200, 200]
    sources = [stored["source"] for stored in site.stored]
    assert (sources[:700], sources[700:]) == (["web"] * 700, ["b"] * 700)


@pytest.mark.parametrize("turns", [1, 2, 4])
def test_a_client_that_is_gone_amid_its_slices_leaves_nothing(turns: int) -> None:
    site = Site()
    wire = Wire(site)
    with site.one_round():
        wire.feed(b"", [post(LARGE, TARGET) * 2])
        for _ in range(turns):
            assert site.turn()
        wire.vanish(ConnectionResetError())
    site.commit()
    assert site.lines == []
    assert site.inflight_bytes == 0


def test_a_drain_waits_for_slices_and_answers_them() -> None:
    site = Site()
    wire = Wire(site)
    with site.one_round():
        wire.feed(post(LARGE, TARGET))
        assert site.turn()
        site.drain()
        assert not wire.is_ended()
    site.commit()
    assert wire.answer().status == 200
    assert wire.is_ended()


@pytest.mark.parametrize("is_gzip", [False, True])
def test_a_fault_in_a_late_slice_refuses_all_and_ends_the_connection(is_gzip: bool) -> None:
    site = Site()
    wire = Wire(site)
    body = encoded([*array(700), 7])
    lines = ["Content-Encoding: gzip"] if is_gzip else []
    request = post(gzip.compress(body) if is_gzip else body, TARGET, lines)
    wire.feed(request + request)
    wire.feed(post(encoded(event("after"))))
    site.commit()
    answer = wire.answer()
    assert (answer.status, answer.code) == (400, "invalid_event")
    assert answer.detail.startswith("$[700]: ")
    assert site.lines == []
    assert_ended(wire)
