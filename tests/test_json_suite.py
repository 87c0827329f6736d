"""The families of JSONTestSuite, as whole bodies and as values of events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from ingestd.forms import MANY, ONE
from tests.json_cases import LEFT, REFUSED, RIGHT
from tests.json_wrong import WRONG
from tests.support.requests import TIMESTAMP, post
from tests.support.wire import Outcome, Site, Wire, send

LARGE = 70_000
"""More than the size up to which bodies get the thorough look (`strict_bytes_max`)."""

_EVENT = b'{"event":"e","properties":%s,"timestamp":"%s"%s}'


def in_properties(value: bytes) -> bytes:
    return _EVENT % (b'{"v":%s}' % value, TIMESTAMP.encode(), b"")


def in_a_field(value: bytes) -> bytes:
    return _EVENT % (b"{}", TIMESTAMP.encode(), b',"v":%s' % value)


def in_an_array(value: bytes) -> bytes:
    return _EVENT % (b'{"v":[0,%s]}' % value, TIMESTAMP.encode(), b"")


def as_the_properties(value: bytes) -> bytes:
    return _EVENT % (value, TIMESTAMP.encode(), b"")


PLACES = {"properties": in_properties, "field": in_a_field, "array": in_an_array}
each_place = pytest.mark.parametrize("put", PLACES.values(), ids=PLACES)
_PAD = b'"pad":"%s",' % (b"x" * LARGE)


def padded(body: bytes) -> bytes:
    """The same event, too large for the thorough look."""
    return b"{" + _PAD + body[1:]


def spellings(body: bytes) -> Iterator[tuple[bytes, str]]:
    """An event alone, in an array, between others, and each of them large; with its call."""
    other = _EVENT % (b"{}", TIMESTAMP.encode(), b"")
    for text in (body, padded(body)):
        yield text, "/v1/track"
        yield b"[" + text + b"]", "/v1/bulk-track"
        yield b"[%s,%s,%s]" % (other, text, other), "/v1/bulk-track"


def kept(outcome: Outcome, at: int = 0) -> Any:
    """The value as it is read from the line, wherever it was put."""
    got = json.loads(outcome.lines[at])
    value = got["v"] if "v" in got else got["properties"]["v"]
    return value[1] if isinstance(value, list) and value[:1] == [0] and len(value) == 2 else value


def is_refused(outcome: Outcome) -> bool:
    """True for 400 with a code and nothing stored; an answer that is neither that nor 200 fails."""
    assert outcome.answer.status in (200, 400)
    if outcome.answer.status == 200:
        return False
    assert outcome.lines == []
    assert outcome.answer.json["error"] == "Invalid event format."
    return True


# -- y ------------------------------------------------------------------------------------------


@each_place
@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_kept_as_a_value(name: str, put: Callable[[bytes], bytes]) -> None:
    text = RIGHT[name]
    for body, target in spellings(put(text)):
        outcome = send(body, target)
        assert outcome.answer.status == 200, outcome.answer.body
        assert kept(outcome, len(outcome.lines) // 2) == json.loads(text)


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_kept_byte_for_byte_where_no_name_stands_twice(name: str) -> None:
    text = RIGHT[name]
    line = send(in_properties(text)).line
    assert (text.replace(b"\n", b" ") in line) is not name.startswith("object_duplicated_key")


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_but_no_event_is_refused_for_that(name: str) -> None:
    for target in ("/v1/track", "/v1/bulk-track"):
        outcome = send(RIGHT[name], target)
        assert is_refused(outcome)
        assert outcome.answer.code == "invalid_event"


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_taken_for_properties_if_it_is_an_object(name: str) -> None:
    outcome = send(as_the_properties(RIGHT[name]))
    assert is_refused(outcome) is not isinstance(json.loads(RIGHT[name]), dict)


# -- n ------------------------------------------------------------------------------------------


@each_place
@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_as_a_value(name: str, put: Callable[[bytes], bytes]) -> None:
    for body, target in spellings(put(WRONG[name])):
        outcome = send(body, target)
        assert is_refused(outcome)
        # This one ends the event before its timestamp, which is found first.
        ends_early = name == "structure_object_followed_by_closing_object"
        assert outcome.answer.code in REFUSED or (outcome.answer.code == "invalid_event" and ends_early)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_as_a_body(name: str) -> None:
    for target in ("/v1/track", "/v1/bulk-track"):
        outcome = send(WRONG[name], target)
        assert is_refused(outcome)
        # A reader that expects an object need not read an array to its end.
        assert outcome.answer.code in (*REFUSED, "invalid_event")


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_wrong_for_the_standard_library_too(name: str) -> None:
    with pytest.raises((ValueError, RecursionError)):
        json.loads(WRONG[name], parse_constant=int)


# -- together -----------------------------------------------------------------------------------

_GOOD = in_properties(b'"good"')


def in_one_round(value: bytes) -> tuple[list[int], list[Any]]:
    """The statuses of three events that are validated together, the second with this value; what is kept."""
    site = Site()
    wires = [Wire(site) for _ in range(3)]
    with site.one_round():
        for wire, body in zip(wires, [_GOOD, in_properties(value), _GOOD], strict=True):
            wire.feed(post(body))
    site.commit()
    return [wire.answer().status for wire in wires], [line["properties"]["v"] for line in site.stored]


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_does_not_cost_those_that_are_validated_with_it(name: str) -> None:
    assert in_one_round(WRONG[name]) == ([200, 400, 200], ["good", "good"])


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_kept_among_those_that_are_validated_with_it(name: str) -> None:
    assert in_one_round(RIGHT[name]) == ([200] * 3, ["good", json.loads(RIGHT[name]), "good"])


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_to_the_reader_ends_alike_among_others(name: str) -> None:
    case = LEFT[name]
    if case.small in REFUSED:
        assert in_one_round(case.text) == ([200, 400, 200], ["good", "good"])
    else:
        assert in_one_round(case.text) == ([200] * 3, ["good", case.small, "good"])


# -- i ------------------------------------------------------------------------------------------


@each_place
@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_to_the_reader_ends_as_the_table_says(
    name: str, size: str, put: Callable[[bytes], bytes]
) -> None:
    case = LEFT[name]
    wanted = case.small if size == "small" else case.large
    for body, target in spellings(put(case.text)):
        if (len(body) > LARGE) is not (size == "large"):
            continue
        outcome = send(body, target)
        if is_refused(outcome):
            assert outcome.answer.code == wanted
        elif wanted is None:
            assert case.text in outcome.lines[len(outcome.lines) // 2]
        else:
            assert kept(outcome, len(outcome.lines) // 2) == wanted


def test_only_numbers_and_depth_differ_between_small_and_large_bodies() -> None:
    differing = {name for name, case in LEFT.items() if case.small != case.large}
    assert {name.partition("_")[0] for name in differing} == {"number", "structure"}
    assert all(LEFT[name].small in REFUSED for name in differing)


# -- the three families of exceptions -------------------------------------------------------------

FAMILIES: dict[str, tuple[type[Exception], bytes, str]] = {
    "not JSON": (msgspec.DecodeError, in_a_field(b"[1,]"), "invalid_json"),
    "not the schema": (msgspec.ValidationError, as_the_properties(b"1"), "invalid_event"),
    "not UTF-8": (UnicodeDecodeError, in_a_field(b'1,"messageId":"\xff"'), "invalid_utf8"),
    "too deep": (RecursionError, in_a_field(b"[" * 100_000 + b"]" * 100_000), "too_deep"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_of_exceptions_of_msgspec_ends_as_400(family: str) -> None:
    error, body, code = FAMILIES[family]
    for form, raw in ((ONE, body), (MANY, b"[%s]" % body)):
        with pytest.raises(error):
            form.typed.decode(raw)
    for spelled, target in spellings(body):
        outcome = send(spelled, target)
        assert is_refused(outcome)
        assert outcome.answer.code == code
