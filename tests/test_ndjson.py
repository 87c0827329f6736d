"""NDJSON becomes the lines that an array of the same events becomes, and errors name a line of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestd import events, slices
from ingestd.errors import Rejection
from ingestd.events import SLICED_BYTES_MIN, Batch, Stamper
from ingestd.forms import LINES, MANY, Form
from tests.http.test_rounds import GOOD, INVALID, MADE, ODD
from tests.http.test_splits import UNHURRIED
from tests.support.requests import encoded, event, post, post_chunked
from tests.support.wire import Answer, Site, Wire

STRICT: Final = 64 * 1024
ON_ONE_LINE: Final = [item.strip() for item in [*GOOD, *ODD] if b"\n" not in item.strip()]
BAD: Final = [item for item in INVALID if item.strip() and b"\n" not in item]
BLANKS: Final = [b"", b" ", b"\t \r", b"\r"]
TYPE: Final = "Content-Type: application/x-ndjson"


def judged(body: bytes, form: Form, strict_bytes_max: int = STRICT) -> Any:
    """Lines, ids and their number without what is made anew each time; or what is wrong."""
    try:
        batch = Stamper("web", strict_bytes_max).batch(body, form)
    except Rejection as e:
        return e.status, e.code, e.detail
    return made_alike(batch)


def made_alike(batch: Batch) -> Any:
    ids = [MADE.sub(b"made", message_id.encode()) for message_id in batch.message_ids]
    return MADE.sub(b"made", batch.lines), ids, batch.events


_items: Final = st.lists(st.sampled_from(ON_ONE_LINE), max_size=8)
_blanks: Final = st.lists(st.sampled_from(BLANKS), max_size=2)
_ends: Final = st.sampled_from([b"\n", b"\r\n", b" \n"])


@st.composite
def _ndjson(draw: st.DrawFn, items: list[bytes]) -> tuple[bytes, list[int]]:
    """A body of these lines with blank ones between, and the number of each line that is not blank."""
    parts: list[bytes] = []
    numbers = []
    for item in items:
        parts += draw(_blanks)
        numbers.append(len(parts) + 1)
        parts.append(item)
    parts += draw(_blanks)
    body = b"".join(part + draw(_ends) for part in parts)
    return (body.rstrip(b"\r\n") if draw(st.booleans()) else body), numbers


@settings(UNHURRIED, max_examples=200)
@given(st.data(), _items, st.sampled_from([0, STRICT]))
def test_lines_become_what_an_array_becomes(data: st.DataObject, items: list[bytes], strict: int) -> None:
    body, _ = data.draw(_ndjson(items))
    array = judged(b"[" + b",".join(items) + b"]", MANY, strict)
    if items:
        assert judged(body, LINES, strict) == array
    else:
        assert judged(body, LINES, strict) == (400, "invalid_event", "the body has no line with an event")


@settings(UNHURRIED, max_examples=200)
@given(st.data(), _items, st.sampled_from(BAD), st.integers(0, 8), st.sampled_from([0, STRICT]))
def test_of_one_bad_line_the_number_is_named(
    data: st.DataObject, items: list[bytes], bad: bytes, place: int, strict: int
) -> None:
    items = [*items[:place], bad, *items[place:]]
    body, numbers = data.draw(_ndjson(items))
    outcome = judged(body, LINES, strict)
    if outcome[0] != 400:
        # Of what is bad alone, some is never looked at in a body that is not judged strictly.
        assert strict == 0
        return
    assert outcome[2].startswith(f"line {numbers[items.index(bad)]}: "), outcome


CASES: Final = [
    (b'{"a":1}', "invalid_event", "line 1: $: object missing required field `event`"),
    (b"\n\n[]\n", "invalid_event", "line 3: $: expected `object`, got `array`"),
    (encoded(event()) + b"\n7\n", "invalid_event", "line 2: $: expected `object`, got `int`"),
    (encoded(event()) + b"\n" + encoded(event(timestamp="x")), "invalid_event", "line 2: $.timestamp: "),
    (encoded(event()) + b" " + encoded(event()), "invalid_json", "line 1: JSON is malformed: trailing"),
    (encoded(event()) + b"," + encoded(event()), "invalid_json", "line 1: JSON is malformed"),
    (json.dumps(event(), indent=1).encode(), "invalid_json", "line 1: "),
    (encoded(event())[:-1], "invalid_json", "line 1: Input data was truncated"),
    (b"\n" + encoded(event())[:9] + b"\xff", "invalid_utf8", "line 2: byte 9: not valid UTF-8"),
    (b"\xef\xbb\xbf" + encoded(event()), "invalid_json", "line 1: "),
    (b"\n" + b"[" * 5000, "too_deep", "line 2: nested deeper than"),
    (b"\x0b\n", "invalid_json", "line 1: "),
    (
        encoded(event()) + b"\n" + encoded(event(x=0)).replace(b": 0", b": 1e999"),
        "number_out_of_range",
        "line 2: ",
    ),
]


@pytest.mark.parametrize(("body", "code", "detail"), CASES)
def test_what_is_wrong_is_named_with_its_line(body: bytes, code: str, detail: str) -> None:
    assert judged(body, LINES)[:2] == (400, code)
    assert judged(body, LINES)[2].startswith(detail)


def test_two_values_and_half_a_value_make_no_two_lines() -> None:
    """As many values as lines, and yet not one on each."""
    one = encoded(event())
    two = one + b" " + one + b"\n" + json.dumps(event()).replace(", ", ",\n", 1).encode() + b"\n" + one
    assert judged(two, LINES)[:2] == (400, "invalid_json")
    assert judged(two, LINES)[2].startswith("line 1: ")


# -- large bodies, in slices ----------------------------------------------------------------------


def sliced(body: bytes) -> Any:
    """The same for `slices`, which must have parted it."""
    slices: Iterator[Batch | None] = Stamper("web", STRICT).slices(body, LINES)
    try:
        made = list(slices)
    except Rejection as e:
        return e.status, e.code, e.detail
    assert len(made) > 1
    assert made[-1] is not None
    return made_alike(made[-1])


LARGE: Final = [encoded(event(f"m-{i}", pad="x" * 1000)) for i in range(700)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n \n"])
def test_a_large_body_becomes_the_same_in_slices(end: bytes) -> None:
    body = end.join(LARGE) + end
    assert len(body) > SLICED_BYTES_MIN
    assert sliced(body) == judged(b"[" + b",".join(LARGE) + b"]", MANY)


def test_a_slice_of_empty_lines_is_no_empty_body() -> None:
    blank, good = b" \n" * 150_000, LARGE[0] + b"\n"
    for body in (good * 600 + blank + good, blank * 3 + good, good * 600 + blank, blank + good + blank):
        ids, count = sliced(body)[1:]
        assert count == len(ids) == body.count(good)
    body = blank + good * 600 + blank + b"{}"
    assert sliced(body)[2].startswith(f"line {body.count(10) + 1}: ")
    for nothing, detail in (
        (blank * 3, "the body has no line with an event"),
        (good * 600 + blank + b"\v", "line"),
    ):
        assert sliced(nothing)[:2] == (400, "invalid_event" if "no" in detail else "invalid_json")
        assert sliced(nothing)[2].startswith(detail)


@pytest.mark.parametrize("place", [0, 1, 350, 699])
def test_a_bad_line_of_a_large_body_is_named_by_its_number(place: int) -> None:
    for bad, code in ((b"{}", "invalid_event"), (b"{", "invalid_json"), (b'"\xff"', "invalid_utf8")):
        body = b"\n\n".join([*LARGE[:place], bad, *LARGE[place + 1 :]])
        assert sliced(body)[:2] == (400, code)
        assert sliced(body)[2].startswith(f"line {2 * place + 1}: ")


def test_lone_surrogates_are_mended() -> None:
    line = encoded(event()).replace(b"basic", b"\\ud800")
    assert judged(line + b"\n" + line, LINES)[0].count(b"\\ufffd") == 2


# -- over HTTP -------------------------------------------------------------------------------------


def answered(raw: bytes) -> tuple[Answer, list[Any]]:
    wire = Wire(Site())
    wire.feed(raw)
    wire.site.commit()
    return wire.answer(), wire.site.stored


TYPES: Final = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonlines",
    "APPLICATION/X-NDJSON; charset=utf-8",
    "application/x-ndjson ;charset=utf-8",
]


@pytest.mark.parametrize("named", TYPES)
def test_a_bulk_request_of_that_type_is_read_by_lines(named: str) -> None:
    body = encoded(event("a")) + b"\n\n" + encoded(event("b")) + b"\n"
    for raw in (
        post(body, "/v1/bulk-track", [f"Content-Type: {named}"]),
        post_chunked(body, "/v1/bulk-track?x", [f"content-type:{named}"]),
    ):
        answer, stored = answered(raw)
        assert answer.json == {"status": "ok", "messageIds": ["a", "b"]}
        assert [line["messageId"] for line in stored] == ["a", "b"]


@pytest.mark.parametrize(
    "named", ["", "text/plain", "application/json", "application/octet-stream", "x", ";"]
)
def test_any_other_type_is_read_as_json(named: str) -> None:
    answer, _ = answered(post(b"[%b]" % encoded(event("a")), "/v1/bulk-track", [f"Content-Type: {named}"]))
    assert answer.json == {"status": "ok", "messageIds": ["a"]}
    lines = encoded(event("a")) + b"\n" + encoded(event("b"))
    answer, stored = answered(post(lines, "/v1/bulk-track", [f"Content-Type: {named}"]))
    assert (answer.status, stored) == (400, [])


def test_a_single_event_of_that_type_is_one_line() -> None:
    answer, _ = answered(post(encoded(event("a")) + b"\n", "/v1/track", [TYPE]))
    assert answer.json == {"status": "ok", "messageId": "a"}
    answer, _ = answered(post(encoded(event("a")) + b"\n" + encoded(event("b")), "/v1/track", [TYPE]))
    assert answer.status == 400


def test_a_connection_may_change_its_type_from_request_to_request() -> None:
    wire = Wire()
    one, two = encoded(event("a")), encoded(event("b"))
    for _ in range(3):
        wire.feed(post(one + b"\n" + two, "/v1/bulk-track", [TYPE]))
        wire.feed(post(b"[%b,%b]" % (one, two), "/v1/bulk-track"))
        wire.feed(post(one, "/v1/track", [TYPE]))
    wire.site.commit()
    assert [answer.status for answer in wire.answers()] == [200] * 9
    assert len(wire.site.lines) == 15


def test_nothing_is_stored_of_a_body_with_a_bad_line() -> None:
    body = encoded(event("a")) + b"\n" + encoded(event("b", event=7)) + b"\n"
    answer, stored = answered(post(body, "/v1/bulk-track", [TYPE]))
    assert (answer.status, answer.code, stored) == (400, "invalid_event", [])
    assert re.fullmatch(r"line 2: \$\.event: expected `str`, got `int`", answer.detail)


def test_small_slices_name_lines_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SLICED_BYTES_MIN", 0)
    monkeypatch.setattr(slices, "_SLICE_BYTES", 200)
    good = [item for item in ON_ONE_LINE if item not in BAD]
    for place in range(len(good)):
        body = b"\r\n\n".join([*good[:place], b'{"event":1}', *good[place:]])
        assert sliced(body)[2].startswith(f"line {2 * place + 1}: $")
