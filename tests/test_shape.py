"""Events of one shape become the same lines as others do, and whatever is not of one shape is left alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from ingestd import events, shape
from ingestd.errors import Rejection
from ingestd.events import Stamper
from ingestd.forms import MANY
from ingestd.shape import alike
from tests.http.test_splits import UNHURRIED
from tests.support.requests import TIMESTAMP, event
from tests.test_events import any_events

_MADE: Final = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def encoded(sent: list[dict[str, Any]]) -> bytes:
    """Without white space, as JSON.stringify does it."""
    return json.dumps(sent, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small bodies too."""
    monkeypatch.setattr(shape, "_BYTES_MIN", 0)


each_way = pytest.mark.parametrize("strict", [False, True], ids=["loosely", "strictly"])


def outcome(body: bytes, strict: bool) -> Any:
    """The lines and ids, or what is wrong."""
    stamper = Stamper("web", 0)
    stamper._stamp(1_700_000_000_000)
    try:
        batch = stamper._batch(body, MANY, 1_700_000_000_000, strict)
    except Rejection as e:
        return e.code, e.detail
    return _MADE.sub(b"made", batch.lines), [_MADE.sub(b"made", i.encode()) for i in batch.message_ids]


def outcome_of_others(body: bytes, strict: bool) -> Any:
    """The same where no events are alike."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "alike", lambda _body, **_: None)
        return outcome(body, strict)


def alter(index: int, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Twenty events that are alike but for the one that is changed."""
    sent = [event(f"m-{i}", userId=f"u-{i}", properties={"n": i}) for i in range(20)]
    change(sent[index])
    return encoded(sent)


# -- what is alike ----------------------------------------------------------------------------


@each_way
def test_events_that_are_alike_are_read_at_once(strict: bool) -> None:
    sent = [event(f"m-{i}", userId=i, context={"ip": "10.0.0.1", "n": [i]}) for i in range(300)]
    found = alike(encoded(sent), is_strict=strict)
    assert found is not None
    message_ids, parts = found
    assert message_ids == [f"m-{i}" for i in range(300)]
    assert [json.loads(b"{%b}" % part) for part in parts] == sent


@each_way
def test_members_that_some_lack_may_be_missing(strict: bool) -> None:
    """As they are in the samples, in one order."""
    sent = [
        event(f"m-{i}", **{name: i for name in ("a", "b", "c") if i % len(name + "xx")}) for i in range(9)
    ]
    del sent[3]["messageId"]
    found = alike(encoded(sent), is_strict=strict)
    assert found is not None
    assert found[0] == ["m-0", "m-1", "m-2", UNSET, *[f"m-{i}" for i in range(4, 9)]]
    assert outcome(encoded(sent), strict) == outcome_of_others(encoded(sent), strict)


@each_way
@pytest.mark.parametrize("count", [1, 2, 9, 100])
def test_objects_in_arrays_are_not_taken_for_events(count: int, strict: bool) -> None:
    sent = [
        event(f"m-{i}", properties={"products": [{"sku": 1}, {"sku": 2}, {"sku": 3}]}) for i in range(count)
    ]
    body = encoded(sent)
    assert alike(body, is_strict=strict) is not None
    assert outcome(body, strict) == outcome_of_others(body, strict)
    only_in_one = encoded([*[event(f"n-{i}") for i in range(20)], sent[0]])
    assert alike(only_in_one, is_strict=strict) is not None
    assert outcome(only_in_one, strict) == outcome_of_others(only_in_one, strict)


@each_way
def test_events_in_strings_are_not_taken_for_events(strict: bool) -> None:
    body = encoded([event(f"m-{i}", text='},{"event":"x"},{') for i in range(12)])
    assert alike(body, is_strict=strict) is not None
    assert outcome(body, strict) == outcome_of_others(body, strict)


@each_way
def test_where_no_event_has_an_id_each_gets_one(strict: bool) -> None:
    body = encoded([event(None, userId=i) for i in range(12)])
    assert alike(body, is_strict=strict) is not None
    lines, ids = outcome(body, strict)
    assert ids == [b"made"] * 12
    assert (
        lines.count(b',"messageId":"made","receivedAt":"2023-11-14T22:13:20.000Z","source":"web"}\n{') == 11
    )
    assert (lines, ids) == outcome_of_others(body, strict)


# -- what is not ------------------------------------------------------------------------------

UNALIKE: Final[dict[str, bytes]] = {
    "another member": alter(13, lambda e: e.update(late=1)),
    "another order": alter(13, lambda e: e.update(event=e.pop("event"))),
    "no event": alter(13, lambda e: e.pop("event")),
    "a number as event": alter(13, lambda e: e.update(event=7)),
    "an array as properties": alter(13, lambda e: e.update(properties=[{}])),
    "a string as properties": alter(13, lambda e: e.update(properties="{}")),
    "null as properties": alter(13, lambda e: e.update(properties=None)),
    "no such timestamp": alter(13, lambda e: e.update(timestamp="2025-02-30T00:00:00Z")),
    "a timestamp with no offset": alter(13, lambda e: e.update(timestamp="2025-02-20T00:00:00")),
    "a number as timestamp": alter(13, lambda e: e.update(timestamp=1_700_000_000)),
    "a leap second": alter(13, lambda e: e.update(timestamp="2016-12-31T23:59:60Z")),
    "an empty id": alter(13, lambda e: e.update(messageId="")),
    "null as id": alter(13, lambda e: e.update(messageId=None)),
    "a number as id": alter(13, lambda e: e.update(messageId=5)),
    "a stamp of its own": alter(13, lambda e: e.update(source="me")),
    "stamps of their own": encoded([event("m", receivedAt="then")] * 12),
    "a name twice": alter(13, lambda _: None).replace(b'"u-13"', b'"u-13","userId":"again"'),
    "a read name twice": alter(13, lambda _: None).replace(b'"u-13"', b'"u-13","event":"again"'),
    "a name with an escape": alter(13, lambda _: None).replace(b'"event"', b'"\\u0065vent"', 3),
    "an escape as none": alter(13, lambda e: e.update(event="\u00e9")).replace(b"\xc3\xa9", b"\\u00e9"),
    "a lone surrogate": alter(13, lambda e: e.update(event="x?x")).replace(b"x?x", b"\\ud800"),
    "bad UTF-8": alter(13, lambda e: e.update(userId="x?x")).replace(b"x?x", b"\xff"),
    "white space between events": alter(13, lambda _: None).replace(b"},{", b"}, {", 3),
    "white space in an event": alter(13, lambda _: None).replace(b'"m-13"', b' "m-13"'),
    "a line break in a value": alter(13, lambda _: None).replace(b'{"n":13}', b'{"n":\n13}'),
    "white space around": b" " + alter(13, lambda _: None),
    "white space after": alter(13, lambda _: None) + b" ",
    "more names than a shape has": encoded([event("m", **{f"n{i}": i for i in range(70)})] * 12),
    "names longer than a shape has": encoded([event("m", **{"n" * 3000: 1})] * 12),
    "a name that must be escaped": encoded([event("m", **{'say "it"': 1})] * 12),
    "no end": alter(13, lambda _: None)[:-1],
    "no event at all": b"[]",
    "an empty event": b"[{}]",
    "half an event": b"[{",
    "less than that": b"[",
    "nothing": b"",
    "another value": b"7",
    "an event and more": b"[{}]" + alter(13, lambda _: None),
    "arrays that never end": b"[{" + b'"event":[' * 100_000,
}  # fmt: skip


@each_way
@pytest.mark.parametrize("body", UNALIKE.values(), ids=UNALIKE)
def test_what_is_odd_goes_the_way_of_all_others(body: bytes, strict: bool) -> None:
    assert alike(body, is_strict=strict) is None
    assert outcome(body, strict) == outcome_of_others(body, strict)


def deep(levels: int) -> bytes:
    """An array of so many levels."""
    value = b"[" * (levels - 3) + b"]" * (levels - 3)
    return alter(13, lambda _: None).replace(b'{"n":13}', b'{"n":%b}' % value)


WITHIN: Final[dict[str, bytes]] = {
    "a name twice": alter(13, lambda _: None).replace(b'{"n":13}', b'{"n":13,"n":13}'),
    "a name twice in an array": alter(13, lambda e: e.update(x=[{"a": 1}])).replace(b'"a":1', b'"a":1,"a":1'),
    "a number with another spelling": alter(13, lambda _: None).replace(b'{"n":13}', b'{"n":13.50}'),
    "a number beyond a double": alter(13, lambda _: None).replace(b'{"n":13}', b'{"n":1e999}'),
    "an integer beyond 128 bits": alter(13, lambda _: None).replace(b'"n":13', b'"n":1%b' % (b"0" * 39)),
    "too many levels": deep(101),
    "white space": alter(13, lambda _: None).replace(b'{"n":13}', b'{"n": 13}'),
    "an escape as none is": alter(13, lambda _: None).replace(b'{"n":13}', b'{"n":"\\u0041"}'),
}  # fmt: skip


@pytest.mark.parametrize("body", WITHIN.values(), ids=WITHIN)
def test_what_is_odd_within_a_value_is_seen_if_looked_at_strictly(body: bytes) -> None:
    assert alike(body, is_strict=True) is None
    for strict in (False, True):
        assert outcome(body, strict) == outcome_of_others(body, strict)


def test_what_has_all_levels_that_it_may_have_is_kept() -> None:
    assert outcome(deep(100), strict=True) == outcome_of_others(deep(100), strict=True)
    assert len(outcome(deep(100), strict=True)[1]) == 20


@settings(UNHURRIED, max_examples=300)
@given(
    st.lists(any_events(), min_size=1, max_size=4),
    st.integers(1, 5),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_any_events_become_the_same_lines(
    sent: list[dict[str, Any]], times: int, ascii_only: bool, compact: bool, strict: bool
) -> None:
    separators = (",", ":") if compact else None
    body = json.dumps(sent * times, ensure_ascii=ascii_only, separators=separators).encode()
    assert outcome(body, strict) == outcome_of_others(body, strict)


@settings(UNHURRIED, max_examples=300)
@given(
    st.lists(st.sampled_from(["userId", "context", "type", "\u00e9", "a b"]), unique=True),
    st.lists(st.sets(st.integers(0, 7)), min_size=1, max_size=30),
    st.sampled_from([{}, {"a": 1.50}, {"items": [{"x": "},{"}, {}]}]),
    st.booleans(),
)
def test_events_of_one_order_are_alike_whatever_they_lack(
    names: list[str], lacking: list[set[int]], properties: dict[str, Any], strict: bool
) -> None:
    order = [*names[:2], "event", "messageId", *names[2:], "properties", "timestamp"]
    whole = {name: f"{name}!" for name in order} | {"properties": properties, "timestamp": TIMESTAMP}
    sent = [
        {
            name: whole[name]
            for i, name in enumerate(order)
            if i not in gone or name not in [*names, "messageId"]
        }
        for gone in [set(), *lacking]
    ]
    body = encoded(sent)
    assert alike(body, is_strict=strict) is not None
    assert outcome(body, strict) == outcome_of_others(body, strict)


@each_way
def test_an_event_of_very_many_names_is_not_looked_at_for_long(strict: bool) -> None:
    """Every name is looked for among those before it, so they must be few: these would take hours."""
    wide = [event("m", **{f"name_{i}": i for i in range(400_000)})]
    assert alike(encoded(wide), is_strict=strict) is None


@each_way
def test_shapes_are_kept_in_bounds(strict: bool) -> None:
    for i in range(shape._SHAPES_MAX + 10):
        assert alike(encoded([event("m", **{f"name_{i}": i})]), is_strict=strict) is not None
    assert shape._decoder.cache_info().currsize == shape._SHAPES_MAX
