"""JSON spelled as no library spells it: escapes, white space and repeated names wherever they may be.

Whatever the spelling, the line says what `json.loads` reads in the body, no name stands twice in
an object at any depth, and the values that the server has no reason to touch keep their bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.requests import TIMESTAMP
from tests.support.wire import SOURCE, send

SHORT = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\n": "\\n", "\t": "\\t"}
PIECES = [
    '"',
    ":",
    '":',
    '","',
    "\\",
    "/",
    "\n",
    "\t",
    "a",
    "b",
    "{",
    "}",
    "[",
    "1",
    " ",
    "é",
    "\U0001f600",
    "\x00",
]
NAMES = ["a", "b", "", '"', '":', "\\", "event", "source", "messageId"]
TOP_NAMES = ["a", '":', "b:", "source", "receivedAt", "messageId", "event"]
NUMBERS = ["0", "-0", "1.10", "1e5", "12345678901234567890123", "-1E-2", "9" * 38]

_spaces = st.sampled_from(["", "", "", "", " ", "\t", "\n", "\r\n", " \n\t"])


def escaped(char: str) -> str:
    """A character as \\u escapes, two of them outside the basic plane."""
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02X}" for i in range(0, len(units), 2))


@st.composite
def strings(draw: st.DrawFn, pieces: list[str] = PIECES, most: int = 4) -> str:
    """A JSON string in one of its spellings."""
    text = "".join(draw(st.lists(st.sampled_from(pieces), max_size=most)))
    spelled = []
    for char in text:
        if char in SHORT and draw(st.booleans()):
            spelled.append(SHORT[char])
        elif char in SHORT or char < " " or draw(st.integers(0, 4)) == 0:
            spelled.append(escaped(char) if char not in '"\\' or draw(st.booleans()) else SHORT[char])
        else:
            spelled.append(char)
    return f'"{"".join(spelled)}"'


@st.composite
def names(draw: st.DrawFn, among: list[str] = NAMES) -> str:
    """A name of a member, from a few, so that names repeat."""
    return draw(strings([draw(st.sampled_from(among))], 1))


def _spaced(draw: st.DrawFn, parts: list[str]) -> str:
    return "".join(draw(_spaces) + part for part in parts) + draw(_spaces)


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    """An array with any white space."""
    items = draw(st.lists(inner, max_size=3))
    return f"[{','.join(_spaced(draw, [item]) for item in items)}]"


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    """An object with any white space and with repeated names."""
    members = draw(st.lists(st.tuples(names(), inner), max_size=4))
    return f"{{{','.join(_spaced(draw, [name, ':', value]) for name, value in members)}}}"


_scalars = strings() | st.sampled_from([*NUMBERS, "true", "null"])
_values = st.recursive(_scalars, lambda inner: arrays(inner) | objects(inner), max_leaves=6)


@st.composite
def events(draw: st.DrawFn) -> str:
    """A valid event: the named fields last of their name, others around and before them."""
    others = draw(st.lists(st.tuples(names(TOP_NAMES), _values), max_size=4))
    others = [(name, value) for name, value in others if json.loads(name) not in ("event", "messageId")]
    own_id = draw(
        st.sampled_from([[], [('"messageId"', '"m"')], [('"messageId"', '""'), ('"messageId"', "null")]])
    )
    named = [('"event"', '"e"'), ('"properties"', draw(objects(_values))), ('"timestamp"', f'"{TIMESTAMP}"')]
    members = draw(st.permutations([*others, *named])) + own_id
    text = f"{{{','.join(_spaced(draw, [name, ':', value]) for name, value in members)}}}"
    return _spaced(draw, [text])


def no_name_twice(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Fail where a name stands twice in one object."""
    assert len({name for name, _ in members}) == len(members), members
    return dict(members)


def check(line: bytes, sent: str, message_id: str) -> None:
    """The line is the event as any parser reads it, with the stamps of the server."""
    assert b"\n" not in line
    assert b"\r" not in line
    got = json.loads(line, object_pairs_hook=no_name_twice)
    wanted = json.loads(sent)
    assert wanted.get("messageId") in (None, "", message_id)
    stamps = {"messageId": message_id, "receivedAt": got["receivedAt"], "source": SOURCE}
    assert got == wanted | stamps
    assert got["receivedAt"].endswith("Z")


UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""How fast examples are made says nothing on a noisy machine."""


@settings(UNHURRIED, max_examples=300)
@given(events())
def test_one_event_in_any_spelling_says_the_same_in_its_line(sent: str) -> None:
    outcome = send(sent.encode())
    check(outcome.line, sent, outcome.answer.json["messageId"])


@settings(UNHURRIED, max_examples=200)
@given(st.lists(events(), min_size=1, max_size=3))
def test_events_in_any_spelling_say_the_same_in_their_lines(sent: list[str]) -> None:
    outcome = send(f"[{','.join(sent)}]".encode(), "/v1/bulk-track")
    assert outcome.answer.status == 200, outcome.answer.body
    for line, one, message_id in zip(outcome.lines, sent, outcome.answer.json["messageIds"], strict=True):
        check(line, one, message_id)


HIDDEN = [
    '{"a":1,"a":"\\u0022:"}',
    '{"a":1,"a":"\\u0022\\u003a"}',
    '{"a":1,"a":"\\"\\u003A"}',
    '{"\\u0022:":1,"a":1,"a":2}',
    '{"a":1,"a" :2}',
    '{"a":1,"a"\t:2}',
    '{"a":1,"a"\n:2}',
    '{"a":1,"a"\r\n:2}',
    '{"a":1,"\\u0061":2}',
    '{"a":1,"a":"\\":"}',
    '{"a":{"b":1,"b":1},"a":{"b":2}}',
    '{"a":[{"b":1},{"b":1,"c":2,"b":3}]}',
    '{"":1,"":2}',
    '{"\\\\":1,"\\\\":2}',
    '{"\\/":1,"/":2}',
    '{"\U0001f600":1,"\\ud83d\\ude00":2}',
    '{"a":1.0,"a":1.0}',
]


@pytest.mark.parametrize("properties", HIDDEN)
def test_a_repeated_name_is_found_however_it_is_hidden(properties: str) -> None:
    sent = f'{{"event":"e","properties":{properties},"timestamp":"{TIMESTAMP}","messageId":"m"}}'
    check(send(sent.encode()).line, sent, "m")
    bulk = send(f"[{sent},{sent}]".encode(), "/v1/bulk-track")
    check(bulk.lines[1], sent, "m")


@pytest.mark.parametrize("spell", [str, lambda digits: f"-{digits}", lambda digits: f"{digits}.0"])
def test_a_long_number_is_found_wherever_it_begins(spell: Callable[[str], str]) -> None:
    for begin in range(220):
        body = (
            f'{{"event":"{"x" * begin}","properties":{{"a":{spell("9" * 309)}}},"timestamp":"{TIMESTAMP}"}}'
        )
        assert send(body.encode()).answer.code == "number_out_of_range", begin


def test_the_least_integer_out_of_range_is_found_wherever_it_begins() -> None:
    for begin in range(40):
        start, end = f'{{"event":"{"x" * begin}","properties":{{"a":', f'}},"timestamp":"{TIMESTAMP}"}}'
        assert send(f"{start}{2**127}{end}".encode()).answer.code == "number_out_of_range", begin
        assert send(f"{start}{2**127 - 1}{end}".encode()).answer.status == 200, begin


def test_digits_in_a_string_are_no_number() -> None:
    for length in (308, 309, 310, 5000):
        sent = f'{{"event":"{"9" * length}","properties":{{"a":"{"1" * length}"}},"timestamp":"{TIMESTAMP}"}}'
        outcome = send(sent.encode())
        check(outcome.line, sent, outcome.answer.json["messageId"])
