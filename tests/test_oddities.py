"""Bodies at the edge of JSON: kept, mended or refused, but never a surprise."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.requests import TIMESTAMP
from tests.support.wire import Outcome, Site, send

LARGE = 70_000
"""More than the size up to which bodies get the thorough look (`strict_bytes_max`)."""


PLAIN = b'{"event":"e","properties":{},"timestamp":"%s"}' % TIMESTAMP.encode()


def in_properties(value: bytes) -> bytes:
    """An event with this value, as it is spelled, in its properties."""
    return b'{"event":"e","properties":{"a":%s},"timestamp":"%s"}' % (value, TIMESTAMP.encode())


def in_a_field(value: bytes) -> bytes:
    """An event with this value, as it is spelled, in a field that the contract does not name."""
    return b'{"extra":%s,"event":"e","properties":{},"timestamp":"%s"}' % (value, TIMESTAMP.encode())


LEVELS_MAX = 100
"""Objects and arrays inside of each other, the event among them."""

PLACES = {"in properties": in_properties, "in a field": in_a_field}
each_place = pytest.mark.parametrize("put", PLACES.values(), ids=PLACES)


def kept(outcome: Outcome) -> Any:
    """The odd value in the line of an accepted event."""
    got = json.loads(outcome.line)
    return got["extra"] if "extra" in got else got["properties"]["a"]


def padded(body: bytes) -> bytes:
    """The same event, too large for a thorough look."""
    return body[:-1] + b',"pad":"' + b"x" * LARGE + b'"}'


# -- surrogates -------------------------------------------------------------------------------

SURROGATES = [
    ("\\ud800", "\ufffd"),
    ("\\udbffx", "\ufffdx"),
    ("x\\udc00", "x\ufffd"),
    ("\\uDFFF", "\ufffd"),
    ("\\udc00\\ud800", "\ufffd\ufffd"),
    ("\\ud800\\ud800", "\ufffd\ufffd"),
    ("\\ud800\\ud83d\\ude00", "\ufffd\U0001f600"),
    ("\\ud83d\\ude00\\ude00", "\U0001f600\ufffd"),
    ("\\ud83d\\u0041", "\ufffdA"),
    ("\\ud83d \\ude00", "\ufffd \ufffd"),
    ("\\ud83d\\\\ude00", "\ufffd\\ude00"),
    ("\\ud83d\\n\\ude00", "\ufffd\n\ufffd"),
    ("\\\\ud800", "\\ud800"),
    ("\\\\\\ud800", "\\\ufffd"),
    ("\\\\\\\\ud800", "\\\\ud800"),
    ('\\"\\ud800\\"', '"\ufffd"'),
    ("\\ud83d\\ude00", "\U0001f600"),
    ("\\uD83D\\uDE00", "\U0001f600"),
]


@each_place
@pytest.mark.parametrize(("spelled", "read"), SURROGATES, ids=[spelled for spelled, _ in SURROGATES])
@pytest.mark.parametrize("size", [str, padded], ids=["small", "large"])
def test_a_lone_surrogate_becomes_the_replacement_character(
    spelled: str, read: str, put: Callable[[bytes], bytes], size: Callable[[bytes], bytes]
) -> None:
    body = put(b'"%s"' % spelled.encode())
    outcome = send(padded(body) if size is padded else body)
    assert kept(outcome) == read


@each_place
def test_a_lone_surrogate_in_a_name_becomes_the_replacement_character(put: Callable[[bytes], bytes]) -> None:
    assert kept(send(put(b'{"\\ud800":1,"b":2}'))) == {"\ufffd": 1, "b": 2}
    assert kept(send(put(b'{"\\ud800":1,"\\udfff":2}'))) == {"\ufffd": 2}


def test_a_lone_surrogate_in_the_named_fields_does_not_cost_the_batch() -> None:
    odd = json.loads(in_a_field(b"1")) | {"event": "\ud83d cut", "messageId": "m\udc00"}
    outcome = send(json.dumps([odd, odd]).encode(), "/v1/bulk-track")
    assert outcome.answer.json["messageIds"] == ["m\ufffd"] * 2
    assert json.loads(outcome.lines[1])["event"] == "\ufffd cut"


def test_a_lone_surrogate_and_a_leap_second_are_both_taken() -> None:
    body = PLAIN.replace(TIMESTAMP.encode(), b"2016-12-31T23:59:60Z")[:-1] + b',"extra":"\\ud800"}'
    assert kept(send(body)) == "\ufffd"


# -- bytes that are not JSON ------------------------------------------------------------------

NOT_UTF8 = [
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xe2\x82",
    b"\x80",
    b"\xf8\x88\x80\x80\x80",
]


@each_place
@pytest.mark.parametrize("bad", NOT_UTF8, ids=[bad.hex() for bad in NOT_UTF8])
def test_bad_utf8_is_400_even_in_a_field_that_nobody_reads(bad: bytes, put: Callable[[bytes], bytes]) -> None:
    for body in (put(b'"%s"' % bad), put(b'{"%s":1}' % bad), padded(put(b'["%s"]' % bad))):
        outcome = send(body)
        assert (outcome.answer.status, outcome.answer.code) == (400, "invalid_utf8")
        assert outcome.answer.detail.startswith("byte ")


NOT_JSON = [
    *b"NaN Infinity -Infinity nan nul True undefined 'a' /**/1 [1,] [,1] [1 {1:2}".split(),
    *b"01 -01 1. .5 +1 - 1e 1e+ 0x1 1_0".split(),
    *b'{"a":1,} {"a"} {"a":} {,} "\\x" "\\u12" "\\u12g4" "\\ud800\\u12" "\\ "'.split(),
    b'"a\tb"',
    b'"a\x00b"',
    b'"a\x1fb"',
    b"\x00",
    b"\xc2\xa01",
    b"\x0c1",
    b"1\x00",
    b"\xef\xbb\xbf1",
    b"",
]


@each_place
@pytest.mark.parametrize("bad", NOT_JSON, ids=[str(bad) for bad in NOT_JSON])
def test_what_is_not_json_is_400_even_in_a_field_that_nobody_reads(
    bad: bytes, put: Callable[[bytes], bytes]
) -> None:
    for body in (put(bad), padded(put(bad)), put(bad).replace(b",", b",\n")):
        outcome = send(body)
        assert outcome.answer.status == 400
        assert outcome.answer.code in ("invalid_json", "invalid_event")


@each_place
@pytest.mark.parametrize("bad", [b'"a\nb"', b'"a\rb"', b'"\r\n"', b'{"a\nb":1}'])
def test_a_raw_line_break_inside_a_string_is_400(bad: bytes, put: Callable[[bytes], bytes]) -> None:
    assert send(put(bad)).answer.status == 400


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" ", b"\n", b"\x00", b"[", b"]", b'"e"', b"null", b"7", b"\x1f\x8b\x08\x00"),
        *(b"\xef\xbb\xbf" + PLAIN, PLAIN + b"\x00", PLAIN * 2, PLAIN + b"x", PLAIN + b",", PLAIN[:-1]),
        *(PLAIN.decode().encode(coding) for coding in ("utf-16", "utf-16-be", "utf-32-le")),
    ],
)
def test_a_body_that_is_not_one_json_value_is_400(body: bytes) -> None:
    for target in ("/v1/track", "/v1/bulk-track"):
        assert send(body, target).answer.status == 400


# -- numbers ----------------------------------------------------------------------------------

OUT_OF_RANGE = [b"1e999", b"-1e999", b"1E309", b"1.8e308", b"9" * 309, b"-" + b"9" * 400, b"9" * 309 + b".5"]


@each_place
@pytest.mark.parametrize("number", OUT_OF_RANGE, ids=[number[:8].decode() for number in OUT_OF_RANGE])
def test_a_number_beyond_a_double_is_400(number: bytes, put: Callable[[bytes], bytes]) -> None:
    for value in (number, b"[%s]" % number, b'{"b":[1,%s,2]}' % number):
        outcome = send(put(value))
        assert (outcome.answer.status, outcome.answer.code) == (400, "number_out_of_range")


@each_place
@pytest.mark.parametrize("value", [b"1e999", b"9" * 39, b'{"b":1,"b":2}', b"[" * 200 + b"]" * 200])
def test_how_large_a_body_gets_the_thorough_look_is_a_setting(
    value: bytes, put: Callable[[bytes], bytes]
) -> None:
    body = padded(put(value))
    assert value in send(body).line
    outcome = send(body, site=Site(strict_bytes_max=2 * LARGE))
    assert outcome.answer.status == 400 or (kept(outcome) == {"b": 2} and value not in outcome.line)


# -- nesting ----------------------------------------------------------------------------------

SHAPES = {
    "arrays": (b"[", b"", b"]"),
    "objects": (b'{"a":', b"1", b"}"),
    "both": (b'[{"a":', b"1", b"}]"),
    "empty names": (b'{"":', b"1", b"}"),
}


@each_place
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_any_depth_is_kept_or_400(shape: tuple[bytes, bytes, bytes], put: Callable[[bytes], bytes]) -> None:
    opening, innermost, closing = shape
    statuses = []
    for depth in range(1, 3001):
        value = opening * depth + innermost + closing * depth
        outcome = send(put(value))
        statuses.append(outcome.answer.status)
        if outcome.answer.status == 200:
            assert value in outcome.line
        else:
            assert (outcome.answer.status, outcome.answer.code) == (400, "too_deep"), depth
    around = 2 if put is in_properties else 1
    levels = [around + depth * opening.count(b"[") + depth * opening.count(b"{") for depth in range(1, 3001)]
    assert statuses == [200 if level <= LEVELS_MAX else 400 for level in levels]


@each_place
@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":', b'{"a":[{"b":['])
def test_nesting_that_never_closes_is_400(opening: bytes, put: Callable[[bytes], bytes]) -> None:
    for depth in (1, 50, 101, 1000, 100_000):
        assert send(put(opening * depth)).answer.status == 400


# -- names twice, deeper down -----------------------------------------------------------------


@each_place
def test_of_a_name_twice_in_a_nested_object_the_last_stays_and_numbers_keep_their_spelling(
    put: Callable[[bytes], bytes],
) -> None:
    line = send(put(b'{"x":1.10,"b":1,"c":[{"d":1,"d":2}],"b":12345678901234567890123,"\\u0062":1e5}')).line
    got = json.loads(line, object_pairs_hook=lambda members: members)
    odd = dict(got)["extra"] if "extra" in dict(got) else dict(dict(got)["properties"])["a"]
    assert sorted(odd) == [("b", 100000.0), ("c", [[("d", 2)]]), ("x", 1.1)]
    assert b"1.10" in line
    assert b"1e5" in line


# -- anything at all --------------------------------------------------------------------------


@settings(deadline=None, max_examples=400)
@given(
    st.sampled_from([in_properties, in_a_field]),
    st.text(st.sampled_from('"\\[]{}:,0123456789.eE+-udU8dcfntrue \tx'), max_size=25),
)
def test_any_text_in_the_place_of_a_value_is_kept_as_json_reads_it_or_400(
    put: Callable[[bytes], bytes], text: str
) -> None:
    body = put(text.encode())
    outcome = send(body)
    try:
        json.loads(body)
    except ValueError:
        is_json = False
    else:
        is_json = True
    assert outcome.answer.status in (200, 400)
    if outcome.answer.status == 200:
        assert is_json
        assert b"\n" not in outcome.line
        json.loads(outcome.line)
