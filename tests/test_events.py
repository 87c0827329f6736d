"""What an accepted event becomes: the client's own bytes on one line, an id, and two stamps."""

from __future__ import annotations

import json
import re
import uuid
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.requests import TIMESTAMP, encoded, event
from tests.support.wire import SOURCE, Site, send

RECEIVED_AT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def pairs(line: bytes) -> list[tuple[str, Any]]:
    """The top level of a line as it stands there, repeated names and all."""
    return list(json.loads(line, object_pairs_hook=lambda members: members))


def event_text(properties: str = "{}", more: str = "") -> bytes:
    """An event as text, where the spelling is what counts."""
    return f'{{"event":"e","properties":{properties},"timestamp":"{TIMESTAMP}"{more}}}'.encode()


# -- kept as sent -----------------------------------------------------------------------------

SPELLINGS = [
    "1.10",
    "1e5",
    "1E+05",
    "-0",
    "-0.0",
    "0.1e-7",
    "12345678901234567890123",
    "-9007199254740993",
    "3.14159265358979323846264338327950288",
    "1e-999",
    "1.7976931348623157e308",
    str(2**127 - 1),
    str(1 - 2**127),
    '"\\u00e9\\/\\u0041"',
    '"\u00e9\U0001f600\u2028\u2029\x7f"',
    '"\\ud83d\\ude00"',
    '"\\b\\f\\n\\r\\t\\"\\\\"',
    '"\\u0000"',
    '""',
    "[]",
    "{}",
    "[null,true,false]",
    '{"b":1,"a":{"z":[1.0,{"y":2.50}]}}',
    '{"":{"":""}}',
    '"' + "x" * 70_000 + '"',
]


@pytest.mark.parametrize("spelling", SPELLINGS, ids=[spelling[:20] for spelling in SPELLINGS])
def test_a_value_is_kept_as_it_is_spelled(spelling: str) -> None:
    inside = event_text(f'{{"a":{spelling}}}')
    beside = event_text(more=f',"extra":{spelling}')
    assert f'"a":{spelling}'.encode() in send(inside).line
    assert f'"extra":{spelling}'.encode() in send(beside).line
    first, second = send(b"[" + inside + b"," + beside + b"]", "/v1/bulk-track").lines
    assert f'"a":{spelling}'.encode() in first
    assert f'"extra":{spelling}'.encode() in second


def test_the_order_of_names_is_kept_and_what_the_server_adds_comes_after() -> None:
    body = (
        f'{{"z":1,"timestamp":"{TIMESTAMP}","a":2,"properties":{{"y":1,"b":2}},"event":"e","0":3}}'.encode()
    )
    line = send(body).line
    names = [name for name, _ in pairs(line)]
    assert names[:6] == ["z", "timestamp", "a", "properties", "event", "0"]
    assert sorted(names[6:]) == ["messageId", "receivedAt", "source"]
    assert b'"y":1,"b":2' in line


@pytest.mark.parametrize("indent", [1, 4, "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_pretty_printed_body_becomes_one_line_for_each_event(indent: int | str, newline: str) -> None:
    events = [event(f"m-{i}", deep={"a": [1, {"b": "line\nbreak"}]}) for i in range(3)]
    body = json.dumps(events, indent=indent).replace("\n", newline).encode()
    outcome = send(body + newline.encode() * 2, "/v1/bulk-track")
    assert outcome.answer.json["messageIds"] == ["m-0", "m-1", "m-2"]
    assert len(outcome.lines) == 3
    for line, sent in zip(outcome.lines, events, strict=True):
        assert b"\r" not in line
        got = json.loads(line)
        assert {name: got[name] for name in sent} == sent


@pytest.mark.parametrize("own_id", ["", ',"messageId":"m"'])
def test_white_space_around_everything_is_allowed(own_id: str) -> None:
    event_part = f'{{ "event" : "e" , "properties" : {{ }} ,\n\n"timestamp" : "{TIMESTAMP}"{own_id} }}'
    for body in (f" \t\r\n{event_part}\r\n ", event_text(more=own_id).decode() + " ", event_part + "\t"):
        assert json.loads(send(body.encode()).line)["properties"] == {}


def test_an_event_may_be_of_any_width() -> None:
    wide = {f"k{i}": i for i in range(5000)}
    got = json.loads(send(encoded(event("m", properties=wide, **wide))).line)
    assert got["properties"] == wide
    assert got["k4999"] == 4999


# -- messageId --------------------------------------------------------------------------------


@pytest.mark.parametrize("own", ["", ',"messageId":null', ',"messageId":""', ',"message\\u0049d":""'])
def test_a_message_id_is_made_where_there_is_none(own: str) -> None:
    outcome = send(event_text(more=own))
    made = outcome.answer.json["messageId"]
    assert [value for name, value in pairs(outcome.line) if name == "messageId"] == [made]
    parsed = uuid.UUID(made)
    assert (str(parsed), parsed.version, parsed.variant) == (made, 7, uuid.RFC_4122)


def test_made_ids_are_unique_and_carry_the_time_of_receipt() -> None:
    site = Site()
    made: list[str] = []
    for _ in range(5):
        outcome = send(encoded([event(None)] * 2000), "/v1/bulk-track", site)
        made += outcome.answer.json["messageIds"]
    assert len(set(made)) == 10_000
    milliseconds = [uuid.UUID(one).int >> 80 for one in made]
    assert milliseconds == sorted(milliseconds)
    for stored, ms in zip(site.stored, milliseconds, strict=True):
        received = datetime.fromisoformat(stored["receivedAt"])
        assert received - datetime.fromtimestamp(0, received.tzinfo) == timedelta(milliseconds=ms)


def test_own_and_made_ids_stand_in_the_order_of_the_events() -> None:
    outcome = send(encoded([event("a"), event(None), event("b"), event("")]), "/v1/bulk-track")
    ids = outcome.answer.json["messageIds"]
    assert (ids[0], ids[2]) == ("a", "b")
    assert ids == [json.loads(line)["messageId"] for line in outcome.lines]


# -- the stamps -------------------------------------------------------------------------------

STAMPED = [
    '"receivedAt":"1999-01-01T00:00:00Z","source":"mine"',
    '"receiv\\u0065dAt":1,"sourc\\u0065":2',
    '"source":{"a":[1,2]},"receivedAt":null',
    '"source":"a","source":"b","receivedAt":1,"receivedAt":2',
    '"source":"a","\\u0073ource":"b"',
]


@pytest.mark.parametrize("own", STAMPED)
@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("target", ["/v1/track", "/v1/bulk-track"])
def test_a_clients_own_stamps_give_way_wherever_they_stand(own: str, place: str, target: str) -> None:
    rest = event_text()[1:-1].decode()
    text = f"{{{own},{rest}}}" if place == "first" else f"{{{rest},{own}}}"
    outcome = send((f"[{text}]" if "bulk" in target else text).encode(), target)
    members = pairs(outcome.line)
    names = [name for name, _ in members]
    assert len(names) == len(set(names))
    assert dict(members)["source"] == SOURCE
    assert RECEIVED_AT.fullmatch(dict(members)["receivedAt"])


def test_the_names_of_the_stamps_are_free_inside_of_values() -> None:
    inner = {"receivedAt": "a", "source": "b", "messageId": "c", "event": 1}
    got = json.loads(send(encoded(event("m", properties=inner, context=inner))).line)
    assert (got["properties"], got["context"]) == (inner, inner)


def test_the_stamps_of_other_spellings_are_fields_like_any_other() -> None:
    got = json.loads(send(encoded(event("m", ReceivedAt=1, received_at=2, Source=3))).line)
    assert (got["ReceivedAt"], got["received_at"], got["Source"]) == (1, 2, 3)


def test_events_of_one_request_are_received_at_one_time() -> None:
    outcome = send(encoded([event(None)] * 100), "/v1/bulk-track")
    assert len({json.loads(line)["receivedAt"] for line in outcome.lines}) == 1


# -- names that stand twice -------------------------------------------------------------------

REPEATED = [
    ("event", '"first"', '"last"'),
    ("properties", '{"a":1}', '{"b":2}'),
    ("timestamp", '"2020-01-01T00:00:00Z"', f'"{TIMESTAMP}"'),
    ("messageId", '"first"', '"last"'),
    ("extra", "1", '{"a":2}'),
]


@pytest.mark.parametrize(("name", "first", "last"), REPEATED)
@pytest.mark.parametrize("is_escaped", [False, True])
def test_a_name_that_stands_twice_stands_once_in_the_line_and_the_last_value_stays(
    name: str, first: str, last: str, is_escaped: bool
) -> None:
    again = f"\\u{ord(name[0]):04x}{name[1:]}" if is_escaped else name
    body = f'{{"{name}":{first},"event":"e","properties":{{}},"timestamp":"{TIMESTAMP}","{again}":{last}}}'
    outcome = send(body.encode())
    values = [value for found, value in pairs(outcome.line) if found == name]
    assert len(values) == 1
    assert json.loads(outcome.line)[name] == json.loads(last)
    if name == "messageId":
        assert outcome.answer.json["messageId"] == "last"


@pytest.mark.parametrize("last", ['""', "null"])
def test_an_empty_message_id_that_comes_last_is_an_empty_message_id(last: str) -> None:
    outcome = send(event_text(more=f',"messageId":"own","messageId":{last}'))
    assert outcome.answer.json["messageId"] != "own"
    assert json.loads(outcome.line)["messageId"] == outcome.answer.json["messageId"]


# -- what the schema refuses ------------------------------------------------------------------

WRONG = [
    ({"event": 1}, ".event"),
    ({"event": None}, ".event"),
    ({"properties": []}, ".properties"),
    ({"properties": None}, ".properties"),
    ({"properties": "{}"}, ".properties"),
    ({"timestamp": 1761775200}, ".timestamp"),
    ({"timestamp": None}, ".timestamp"),
    ({"timestamp": "2025-10-29"}, ".timestamp"),
    ({"timestamp": "2025-10-29T22:00:00"}, ".timestamp"),
    ({"messageId": 1}, ".messageId"),
    ({"messageId": ["m"]}, ".messageId"),
]


@pytest.mark.parametrize(("wrong", "place"), WRONG)
def test_a_wrong_field_is_named_with_its_place(wrong: dict[str, Any], place: str) -> None:
    single = send(encoded(event() | wrong))
    bulk = send(encoded([event(), event(), event(), event() | wrong]), "/v1/bulk-track")
    assert single.answer.detail.startswith(f"${place}: ")
    assert bulk.answer.detail.startswith(f"$[3]{place}: ")
    assert (single.answer.code, bulk.answer.code) == ("invalid_event", "invalid_event")
    assert (single.lines, bulk.lines) == ([], [])


@pytest.mark.parametrize("missing", ["event", "properties", "timestamp"])
def test_a_missing_field_is_named(missing: str) -> None:
    incomplete = {name: value for name, value in event().items() if name != missing}
    assert missing in send(encoded(incomplete)).answer.detail
    detail = send(encoded([event(), incomplete]), "/v1/bulk-track").answer.detail
    assert detail.startswith("$[1]: ")
    assert missing in detail


@pytest.mark.parametrize("name", ["Event", "EVENT", "event ", "evеnt"])
def test_names_are_compared_letter_by_letter(name: str) -> None:
    fields = {name if key == "event" else key: value for key, value in event().items()}
    assert send(encoded(fields)).answer.code == "invalid_event"


# -- any event --------------------------------------------------------------------------------

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""How fast examples are made says nothing on a noisy machine."""

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(1 - 2**127, 2**127 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
    max_leaves=12,
)
_objects = st.dictionaries(_text, _values, max_size=5)
_names = st.sampled_from(["context", "userId", "messageId ", "x", "source", "receivedAt", "\u00e9"]) | _text


@st.composite
def any_events(draw: st.DrawFn) -> dict[str, Any]:
    """A valid event with any fields beside, in any order."""
    fields = draw(st.dictionaries(_names, _values, max_size=5))
    fields |= {"event": draw(_text), "properties": draw(_objects), "timestamp": TIMESTAMP}
    fields["messageId"] = draw(st.none() | _text)
    return {name: fields[name] for name in draw(st.permutations(sorted(fields)))}


def expected(sent: dict[str, Any], message_id: str, received_at: str) -> dict[str, Any]:
    """The event with what the server puts on it."""
    if sent["messageId"]:
        assert message_id == sent["messageId"]
    return sent | {"messageId": message_id, "receivedAt": received_at, "source": SOURCE}


@settings(UNHURRIED, max_examples=300)
@given(
    st.lists(any_events(), min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from([None, 1, "\t"]),
    st.integers(0, 1).map(lambda n: n * 70_000),
)
def test_any_event_comes_back_equal_with_its_stamps(
    events: list[dict[str, Any]], ascii_only: bool, indent: int | str | None, padding: int
) -> None:
    body = json.dumps(events, ensure_ascii=ascii_only, indent=indent) + " " * padding
    outcome = send(body.encode(), "/v1/bulk-track")
    assert outcome.answer.status == 200, outcome.answer.body
    ids = outcome.answer.json["messageIds"]
    assert len(outcome.lines) == len(events) == len(ids)
    for line, sent, message_id in zip(outcome.lines, events, ids, strict=True):
        got = json.loads(line)
        assert RECEIVED_AT.fullmatch(got["receivedAt"])
        assert got == expected(sent, message_id, got["receivedAt"])
        assert len(pairs(line)) == len(got)
