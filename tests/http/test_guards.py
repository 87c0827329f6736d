"""Each guard with what it refuses and what it must let pass, in every cut of the bytes.

After each request a good one follows on the same connection: it is answered as itself, or the
connection has been closed. Bytes of a refused request must never be read as a request.
"""

from __future__ import annotations

import random

import pytest

from tests.http.guard_cases import BODY, CASES, LENGTH, Case
from tests.support.requests import bytewise, cut, encoded, event, head, post
from tests.support.wire import Site, Wire

AFTER = post(encoded(event("after")))
SPLITS = 6


def ways(raw: bytes, seed: str) -> list[list[bytes]]:
    """`raw` whole, byte by byte and in random pieces, always the same ones for one seed."""
    rng = random.Random(seed)
    random_cuts = [cut(raw, rng.choices(range(len(raw)), k=rng.randint(1, 12))) for _ in range(SPLITS)]
    return [[raw], bytewise(raw), *random_cuts]


@pytest.mark.parametrize("case", CASES, ids=[case.name[:40] for case in CASES])
def test_a_request_gets_its_answer_and_the_next_one_its_own(case: Case) -> None:
    for pieces in ways(case.raw, case.name):
        site = Site()
        wire = Wire(site)
        wire.feed(b"", pieces)
        site.commit()
        wire.feed(AFTER)
        site.commit()
        first, *rest = wire.answers([case.method])
        assert (first.status, first.code) == (case.status, case.code), (len(pieces), first.body)
        if wire.is_ended():
            assert rest == []
            assert first.headers["Connection"] == "close"
        else:
            assert [answer.json for answer in rest] == [{"status": "ok", "messageId": "after"}]
        stored = [line["messageId"] for line in site.stored]
        is_stored = case.code is None and case.method == "POST"
        assert stored == ["case"] * is_stored + ["after"] * len(rest)


@pytest.mark.parametrize("case", CASES, ids=[case.name[:40] for case in CASES])
def test_a_request_cut_short_stores_nothing_and_is_closed_in_time(case: Case) -> None:
    rng = random.Random(case.name)
    for length in {0, 1, len(case.raw) - 1, *rng.choices(range(len(case.raw)), k=5)}:
        site = Site()
        wire = Wire(site)
        wire.feed(case.raw[:length])
        for _ in range(4):
            site.tick(61)
        assert wire.is_closed()
        assert site.inflight_bytes == 0
        if case.code is not None:
            assert site.ring.batches == 0


def test_what_is_sent_after_a_refusal_is_never_parsed() -> None:
    site = Site()
    wire = Wire(site)
    wire.feed(b"BAD\r\n\r\n")
    for _ in range(50):
        wire.feed(AFTER)
    site.commit()
    assert wire.answer().status == 400
    assert site.lines == []


def test_the_same_head_is_judged_alike_however_often_it_comes() -> None:
    by_name = {case.name: case for case in CASES}
    good, bad = by_name["chunks of one byte"], by_name["chunked after length"]
    for case in (good, bad, good, bad, bad, good):
        wire = Wire()
        wire.feed(case.raw)
        wire.site.commit()
        assert wire.answer().status == case.status


@pytest.mark.parametrize(
    "header",
    [
        f"Content-Length: {len(BODY)}",
        "Content-Encoding: identity",
        "Expect: 100-continue",
    ],
)
def test_white_space_after_a_value_is_not_part_of_it(header: str) -> None:
    lines = [f"{header} \t"] if "th: " in header else [f"{header} ", LENGTH]
    wire = Wire()
    wire.feed(head("POST /v1/track HTTP/1.1", lines) + BODY)
    wire.site.commit()
    assert wire.answer().status == 200


def test_white_space_after_the_host_is_not_part_of_it() -> None:
    wire = Wire()
    wire.feed(b"GET /healthz HTTP/1.1\r\nHost: a \r\n\r\n")
    assert wire.answer("GET").status == 200


def test_a_head_near_the_limit_is_judged_alike_whole_and_in_pieces() -> None:
    for length in range(16 * 1024 - 180, 16 * 1024 - 60):
        raw = head("GET /healthz HTTP/1.1", [f"X: {'v' * length}"])
        statuses = []
        for pieces in ([raw], [raw[:-1], raw[-1:]]):
            wire = Wire()
            wire.feed(b"", pieces)
            statuses.append(wire.answer("GET").status)
        assert statuses[0] == statuses[1], length


@pytest.mark.parametrize("protocol", ["RTSP/1.0", "ICE/1.0"])
def test_another_protocol_is_not_taken_for_http(protocol: str) -> None:
    method = "GET" if protocol.startswith("RTSP") else "SOURCE"
    target = "/healthz" if method == "GET" else "/v1/track"
    wire = Wire()
    wire.feed(f"{method} {target} {protocol}\r\nHost: a\r\n\r\n".encode())
    assert wire.answer(method).status in (400, 505)
