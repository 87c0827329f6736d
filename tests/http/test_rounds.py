"""Requests that are read in one turn of the loop are validated together, and judged one by one.

Their bodies are joined by line breaks, so a body may try to swallow its neighbour, or to be two.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestd.errors import StorageError
from ingestd.events import Stamper
from tests.http.test_splits import UNHURRIED
from tests.support.requests import SECRET, TIMESTAMP, cut, encoded, event, head, post
from tests.support.wire import Answer, Site, Wire, assert_ended, key, send

MADE = re.compile(
    rb'[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}|(?<="receivedAt":")[^"]*'
)
"""Ids that the server has made, and times."""
REST = f'"event":"e","properties":{{}},"timestamp":"{TIMESTAMP}"'.encode()
SMALL = b'{%b,"messageId":"m"}' % REST

GOOD = [
    SMALL,
    b"{%b}" % REST,
    b'{%b,"messageId":""}' % REST,
    b'{%b,"messageId":null}' % REST,
    encoded(event("m-1")),
    encoded(event(None)),
    encoded(event("deep", properties={"a": [1, {"b": [2.5, "x"]}]})),
    f'{{"event":"é😀","properties":{{}},"timestamp":"{TIMESTAMP}","messageId":"ü"}}'.encode(),
]
ODD = [
    b'{"event":"first",%b,"messageId":"m"}' % REST,
    b'{%b,"messageId":"first","messageId":"m"}' % REST,
    b'{%b,"x":{"a":1,"a":2}}' % REST,
    b'{%b,"x":"\\ud800"}' % REST,
    b'{%b,"messageId":"\\udfff"}' % REST,
    b'{%b,"receivedAt":"1999-01-01T00:00:00Z","source":"mine"}' % REST,
    b'{%b,"messageId":"m","source":{"a":[1]}}' % REST,
    b'{%b,"x":1e5,"y":1.10,"z":-0}' % REST,
    b'{ %b , "messageId" : "m" }' % REST,
    SMALL.replace(b",", b",\n"),
    SMALL.replace(b",", b",\r\n"),
    b"\n" + SMALL,
    SMALL + b"\n",
    SMALL + b"\r\n",
    SMALL + b" \n\n",
    SMALL + b" ",
    b" " + SMALL,
    b"\t" + SMALL + b"\t",
    b'{"event":"e","properties":{},"timestamp":"2016-12-31T23:59:60Z"}',
]
INVALID = [
    b"",
    b"\n",
    b" ",
    b" }",
    b"{ ",
    b"{}",
    b"null",
    b"7",
    b"[" + SMALL + b"]",
    b'{%b,"x":"\xff"}' % REST,
    b'{%b,"x":1e999}' % REST,
    b'{%b,"x":%b}' % (REST, b"9" * 60),
    b'{%b,"x":%b}' % (REST, b"[" * 101 + b"]" * 101),
    b'{%b,"x":%b}' % (REST, b"[" * 3000 + b"]" * 3000),
    b'{"event":1,"properties":{},"timestamp":"%b"}' % TIMESTAMP.encode(),
    b'{"event":"e","properties":{},"timestamp":"yesterday"}',
]
MALICIOUS = [
    b'{%b,"x":[1' % REST,
    b"]}",
    b'{%b,"x":{' % REST,
    b'"y":1}}',
    b'{%b,"x":' % REST,
    b"1}",
    b'{%b,"x":"' % REST,
    b'"}',
    SMALL + SMALL,
    SMALL + b" " + SMALL,
    SMALL + b"\n" + SMALL,
    SMALL + b"\r" + SMALL,
    SMALL + b",",
    b"," + SMALL,
    b"{%b,}" % REST,
    b'{%b,"x":"a\nb"}' % REST,
    b'{%b,"x":"a\r\nb"}' % REST,
    b'{%b,"x":"}\n{"}' % REST,
    b'{%b,"a\nb":1}' % REST,
    b"{%b}}" % REST,
    b"{{%b}" % REST,
    b"\xef\xbb\xbf" + SMALL,
    SMALL + b"\0",
    SMALL + b"//",
    b"}",
    b"{",
]
POOL = [*GOOD, *ODD, *INVALID, *MALICIOUS]


def judged(answer: Answer) -> Any:
    """An answer without its date, and without ids that the server has made."""
    headers = [(name, value) for name, value in answer.headers.items() if name != "Date"]
    return answer.status, headers, MADE.sub(b"made", answer.body)


def in_one_round(bodies: Sequence[bytes]) -> tuple[list[Any], list[bytes]]:
    """Answers to these bodies, each of another client in one turn of the loop, and the lines they left."""
    site = Site()
    wires = [Wire(site) for _ in bodies]
    with site.one_round():
        for wire, body in zip(wires, bodies, strict=True):
            wire.feed(post(body))
    site.commit()
    return [judged(wire.answer()) for wire in wires], [MADE.sub(b"made", line) for line in site.lines]


def on_one_connection(bodies: Sequence[bytes]) -> tuple[list[Any], list[bytes]]:
    """The same, all of one client."""
    wire = Wire()
    wire.feed(b"", [b"".join(map(post, bodies))])
    wire.site.commit()
    return list(map(judged, wire.answers())), [MADE.sub(b"made", line) for line in wire.site.lines]


def each_alone(bodies: Sequence[bytes]) -> tuple[list[Any], list[bytes]]:
    """The same, each body sent to a site of its own."""
    outcomes = [send(body) for body in bodies]
    lines = [line for outcome in outcomes for line in outcome.lines]
    return [judged(outcome.answer) for outcome in outcomes], [MADE.sub(b"made", line) for line in lines]


def assert_judged_as_alone(bodies: Sequence[bytes]) -> None:
    """Neighbours in a round change nothing, but that on one connection nothing follows an error."""
    answers, lines = each_alone(bodies)
    assert in_one_round(bodies) == (answers, lines)
    good = len(list(itertools.takewhile(lambda answer: answer[0] == 200, answers)))
    assert on_one_connection(bodies) == (answers[: good + 1], lines[:good])


def test_the_pool_has_what_is_accepted_and_what_is_not() -> None:
    for bodies, status in ((GOOD, 200), (ODD, 200), (INVALID, 400), (MALICIOUS, 400)):
        assert {send(body).answer.status for body in bodies} == {status}, bodies


@pytest.mark.parametrize("body", POOL, ids=range(len(POOL)))
def test_a_body_between_good_ones_is_judged_as_when_sent_alone(body: bytes) -> None:
    for bodies in ([SMALL, body, GOOD[1]], [body, SMALL], [SMALL, body], [body, body], [body, b"", body]):
        assert_judged_as_alone(bodies)


@pytest.mark.parametrize("body", MALICIOUS, ids=range(len(MALICIOUS)))
def test_no_two_bodies_make_one_event_and_no_body_makes_two(body: bytes) -> None:
    for other in POOL:
        answers, lines = in_one_round([body, other])
        assert len(answers) == 2
        assert answers[0][0] == 400
        assert len(lines) == (answers[1][0] == 200)
        answers, lines = on_one_connection([body, other])
        assert [answer[0] for answer in answers] == [400]
        assert lines == []


@settings(UNHURRIED, max_examples=200)
@given(st.lists(st.sampled_from(POOL), max_size=8))
def test_any_bodies_of_one_round_are_judged_as_when_sent_alone(bodies: list[bytes]) -> None:
    assert_judged_as_alone(bodies)


@settings(UNHURRIED, max_examples=200)
@given(st.lists(st.sampled_from([*GOOD, *ODD]), min_size=1, max_size=4), st.data())
def test_events_cut_into_bodies_anywhere_are_judged_as_when_sent_alone(
    events: list[bytes], data: st.DataObject
) -> None:
    text = b"\n".join(events)
    edges = [i for i in range(len(text)) if text[i : i + 1] in b'\n{}[]",:']
    places = data.draw(st.lists(st.sampled_from([*edges, *(i + 1 for i in edges)]), max_size=5))
    assert_judged_as_alone(cut(text, places))


_TOKENS = [b"{", b"}", b"[", b"]", b",", b":", b'"', b"\n", b"\r", b" ", b"\\", b'"x":', b"1", REST, SMALL]


@settings(UNHURRIED, max_examples=200)
@given(st.lists(st.lists(st.sampled_from(_TOKENS), max_size=6).map(b"".join), min_size=2, max_size=4))
def test_bodies_of_random_pieces_of_json_are_judged_as_when_sent_alone(bodies: list[bytes]) -> None:
    assert_judged_as_alone(bodies)


# -- several connections, several keys --------------------------------------------------------


def test_connections_of_one_round_get_each_its_own_answers() -> None:
    site = Site()
    wires = [Wire(site) for _ in range(20)]
    with site.one_round():
        for i, wire in enumerate(wires):
            wire.feed(post(encoded(event(f"a-{i}"))) + post(b"{" if i % 5 == 3 else encoded(event(f"b-{i}"))))
        assert site.ring.batches == 0
    site.commit()
    for i, wire in enumerate(wires):
        first, second = wire.answers()
        assert first.json["messageId"] == f"a-{i}"
        assert second.json.get("messageId") == (None if i % 5 == 3 else f"b-{i}")
        assert wire.is_ended() is (i % 5 == 3)


def test_good_bodies_of_one_round_are_one_batch() -> None:
    site = Site()
    wires = [Wire(site) for _ in range(20)]
    with site.one_round():
        for i, wire in enumerate(wires):
            wire.feed(post(encoded(event(str(i)))))
    assert site.ring.batches == 1
    site.commit()
    assert [stored["messageId"] for stored in site.stored] == [str(i) for i in range(20)]


def test_keys_of_one_round_stamp_each_its_own_source() -> None:
    site = Site()
    site.keyring.replace([key(), key("ing_b", "b"), key("ing_c", "c")])
    secrets = {"web": SECRET, "b": "ing_b", "c": "ing_c"}
    wires = [Wire(site) for _ in range(24)]
    names = [list(secrets)[i % 3] for i in range(24)]
    with site.one_round():
        for i, name in enumerate(names):
            body = b"{" if i in (7, 8) else encoded(event(f"{name}-{i}"))
            lines = [f"Authorization: Bearer {secrets[name]}", f"Content-Length: {len(body)}"]
            wires[i].feed(head("POST /v1/track HTTP/1.1", lines, auth=False) + body)
    site.commit()
    assert len(site.stored) == 22
    for stored in site.stored:
        assert stored["messageId"].startswith(f"{stored['source']}-")
    answered = [wire.answer().json.get("messageId") for wire in wires]
    assert answered == [None if i in (7, 8) else f"{names[i]}-{i}" for i in range(24)]


def test_a_round_of_more_bodies_than_are_validated_together_loses_none() -> None:
    site = Site()
    wires = [Wire(site) for _ in range(3)]
    with site.one_round():
        for n, wire in enumerate(wires):
            wire.feed(b"", [b"".join(post(encoded(event(f"{n}-{i}"))) for i in range(500))])
    site.commit()
    for n, wire in enumerate(wires):
        assert [a.json["messageId"] for a in wire.answers()] == [f"{n}-{i}" for i in range(500)]
    assert len(site.lines) == 1500


# -- the ends of a round ----------------------------------------------------------------------


def test_a_full_ring_refuses_the_whole_round_and_stores_nothing_of_it() -> None:
    site = Site(ring_batches_max=1)
    Wire(site).feed(post(encoded(event("before"))))
    wires = [Wire(site) for _ in range(5)]
    with site.one_round():
        for wire in wires:
            wire.feed(post(encoded(event("a"))) * 2)
    for wire in wires:
        answer = wire.answer()
        assert (answer.status, answer.code) == (429, "overloaded")
        assert int(answer.headers["Retry-After"]) >= 1
    site.commit()
    assert_ended(wires[0])
    assert all(wire.is_closed() for wire in wires)
    assert [stored["messageId"] for stored in site.stored] == ["before"]
    assert send(encoded(event("after")), site=site).answer.json["messageId"] == "after"


def test_failed_storage_is_500_for_each_connection_of_the_round() -> None:
    site = Site()
    wires = [Wire(site) for _ in range(5)]
    with site.one_round():
        for wire in wires:
            wire.feed(post(encoded(event("a"))) * 2)
    site.commit(StorageError("no space left"))
    for wire in wires:
        assert [(a.status, a.code) for a in wire.answers()] == [(500, "storage_failed")]
    assert site.lines == []
    assert_ended(wires[0])
    assert all(wire.is_closed() for wire in wires)


def test_clients_that_are_gone_before_their_round_ends_take_nothing_from_the_others() -> None:
    site = Site()
    wires = [Wire(site) for _ in range(6)]
    with site.one_round():
        for i, wire in enumerate(wires):
            wire.feed(post(encoded(event(str(i)))))
        for wire in wires[::2]:
            wire.vanish(ConnectionResetError())
    site.commit()
    assert [len(wire.answers()) for wire in wires] == [0, 1, 0, 1, 0, 1]
    assert [stored["messageId"] for stored in site.stored] == [str(i) for i in range(6)]


def test_small_and_bulk_requests_of_one_connection_are_stored_in_their_order() -> None:
    wire = Wire()
    requests, expected = [], []
    for i in range(40):
        if i % 3 == 2:
            requests.append(post(encoded([event(f"{i}a"), event(f"{i}b")]), "/v1/bulk-track"))
            expected += [f"{i}a", f"{i}b"]
        else:
            # Every fifth is too large to wait for others.
            pad = "x" * 20_000 if i % 5 == 4 else ""
            requests.append(post(encoded(event(str(i), pad=pad))))
            expected.append(str(i))
    wire.feed(b"", [b"".join(requests)])
    wire.site.commit()
    assert [stored["messageId"] for stored in wire.site.stored] == expected
    answered = [a.json.get("messageIds") or [a.json["messageId"]] for a in wire.answers()]
    assert [one for ids in answered for one in ids] == expected


def test_at_ack_level_memory_a_round_is_answered_when_it_is_pushed() -> None:
    site = Site(ack="memory", ring_batches_max=1)
    wires = [Wire(site) for _ in range(3)]
    with site.one_round():
        for wire in wires:
            wire.feed(post(encoded(event("a"))) * 2)
        assert [wire.answers() for wire in wires] == [[], [], []]
    assert [[a.status for a in wire.answers()] for wire in wires] == [[200, 200]] * 3
    with site.one_round():
        wires[0].feed(post(encoded(event("b"))) * 2)
    assert [a.status for a in wires[0].answers()] == [200, 200, 429]
    site.commit(StorageError("disk full"))
    assert [len(wire.answers()) for wire in wires] == [3, 2, 2]
    assert [wire.is_ended() for wire in wires] == [True, False, False]
    assert_ended(wires[0])


def test_a_bug_in_validating_together_leaves_each_body_its_own_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bug(*_: object) -> None:
        raise LookupError("not thought of")

    monkeypatch.setattr(Stamper, "together", bug)
    answers, lines = in_one_round([SMALL, b"{", SMALL])
    assert [answer[0] for answer in answers] == [200, 400, 200]
    assert len(lines) == 2
    assert [record.getMessage() for record in caplog.records] == ["bug while validating bodies together"]
    caplog.clear()
