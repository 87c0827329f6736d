"""The limits of a key on the wire: what gets 429, when it may come again, and what is stored."""

from __future__ import annotations

import gzip
from typing import Any, Final

import msgspec
import pytest

from ingestd import ratelimit
from ingestd.ratelimit import memory_bytes
from tests.support.requests import SECRET, encoded, event, head, post, post_chunked
from tests.support.wire import Answer, Site, Wire, assert_ended, key, send

ONE: Final = encoded(event())
BULK: Final = "/v1/bulk-track"
OTHER: Final = "ing_another-key"


def site(shared: memoryview | None = None, worker: int = 0, settings: Any = None, **limits: float) -> Site:
    """A site whose key has these limits."""
    made = Site(shared=shared, worker=worker, **(settings or {}))
    made.keyring.replace([msgspec.structs.replace(key(), **limits)])
    return made


def bulk(count: int, prefix: str = "m") -> bytes:
    return encoded([event(f"{prefix}-{i}") for i in range(count)])


def statuses(wire: Wire) -> list[int]:
    wire.site.commit()
    return [answer.status for answer in wire.answers()]


def assert_limited(answer: Answer, limit: str, retry_after_s: int) -> None:
    assert (answer.status, answer.code) == (429, "rate_limited")
    assert answer.json["error"] == "Rate limit exceeded. Please retry later."
    assert answer.detail == f"the limit of this key is used up: {limit}"
    assert answer.headers["Retry-After"] == str(retry_after_s)
    assert answer.headers["Connection"] == "close"


def assert_adds_up(site: Site) -> None:
    site.commit()
    assert site.hub.rounds.events_received == len(site.lines) + site.hub.rounds.events_refused


# -- events ----------------------------------------------------------------------------------


def test_events_over_the_limit_are_refused_whole_and_pass_when_retry_after_is_over() -> None:
    limited = site(events_per_s=10)
    assert [send(bulk(5), BULK, limited).answer.status for _ in range(3)] == [200, 200, 429]
    assert len(limited.lines) == 10
    wire = Wire(limited)
    wire.feed(post(bulk(20), BULK))
    assert_limited(wire.answer(), "events_per_s = 10", 1)
    assert_adds_up(limited)
    assert limited.hub.rounds.events_refused == 25
    limited.now += 1
    assert send(bulk(10), BULK, limited).answer.status == 200
    assert_ended(wire)


def test_a_bulk_larger_than_the_burst_passes_and_is_paid_for_afterwards() -> None:
    limited = site(events_per_s=10, burst_s=2)
    assert send(bulk(100), BULK, limited).answer.status == 200
    assert_limited(send(ONE, site=limited).answer, "events_per_s = 10", 9)
    limited.now += 7.5
    assert_limited(send(ONE, site=limited).answer, "events_per_s = 10", 1)
    limited.now += 1
    assert send(ONE, site=limited).answer.status == 200


def test_a_body_in_slices_is_limited_like_any_other() -> None:
    limited = site(events_per_s=10)
    large = encoded([event(f"m-{i}", pad="x" * 1000) for i in range(700)])
    assert send(large, BULK, limited).answer.status == 200
    wire = Wire(limited)
    wire.feed(post(large, BULK))
    assert_limited(wire.answer(), "events_per_s = 10", 70)
    assert_adds_up(limited)


def test_what_is_invalid_takes_nothing_of_the_limit_on_events() -> None:
    limited = site(events_per_s=1)
    for body in (b"{", b"[]", encoded([event(), {}]), gzip.compress(ONE)):
        assert send(body, BULK, limited).answer.status == 400
    assert send(ONE, site=limited).answer.status == 200


def test_what_the_ring_refuses_takes_nothing_of_the_limit_on_events() -> None:
    limited = site(events_per_s=2, settings={"ring_batches_max": 1})
    first, second = Wire(limited), Wire(limited)
    first.feed(post(ONE))
    second.feed(post(ONE))
    assert second.answer().code == "overloaded"
    limited.commit()
    assert send(ONE, site=limited).answer.status == 200
    assert_adds_up(limited)


def test_a_full_round_of_small_events_passes_as_far_as_the_limit_goes() -> None:
    limited = site(events_per_s=7)
    wires = [Wire(limited) for _ in range(12)]
    with limited.one_round():
        for i, wire in enumerate(wires):
            wire.feed(post(encoded(event(f"m-{i}"))))
    limited.commit()
    assert [wire.answer().status for wire in wires] == [200] * 7 + [429] * 5
    for wire in wires[7:]:
        assert_limited(wire.answer(), "events_per_s = 7", 1)
    assert [stored["messageId"] for stored in limited.stored] == [f"m-{i}" for i in range(7)]
    assert_adds_up(limited)


def test_a_round_within_the_limit_is_still_one_batch() -> None:
    limited = site(events_per_s=12)
    wires = [Wire(limited) for _ in range(12)]
    with limited.one_round():
        for wire in wires:
            wire.feed(post(ONE))
    assert limited.ring.batches == 1


def test_in_a_round_over_the_limit_what_is_invalid_is_told_so() -> None:
    limited = site(events_per_s=1)
    wires = [Wire(limited) for _ in range(4)]
    with limited.one_round():
        for wire, body in zip(wires, (ONE, b"{", ONE, b"[]"), strict=True):
            wire.feed(post(body))
    limited.commit()
    assert [wire.answer().status for wire in wires] == [200, 400, 429, 400]


@pytest.mark.parametrize("pieces", [1, 2, 40])
def test_pipelined_events_pass_in_their_order_up_to_the_first_that_may_not(pieces: int) -> None:
    limited = site(events_per_s=5)
    wire = Wire(limited)
    stream = b"".join(post(encoded(event(f"m-{i}"))) for i in range(40))
    size = len(stream) // pieces
    wire.feed(stream, [stream[i : i + size] for i in range(0, len(stream), size)])
    limited.commit()
    *passed, last = wire.answers()
    assert [answer.json["messageId"] for answer in passed] == [f"m-{i}" for i in range(5)]
    assert_limited(last, "events_per_s = 5", 1)
    assert_ended(wire)
    assert_adds_up(limited)


def test_at_ack_level_memory_the_limit_holds_as_well() -> None:
    limited = site(events_per_s=3, settings={"ack": "memory"})
    wire = Wire(limited)
    wire.feed(post(ONE) * 5)
    assert [answer.status for answer in wire.answers()] == [200, 200, 200, 429]


# -- requests --------------------------------------------------------------------------------


def test_requests_over_the_limit_are_refused_at_the_head() -> None:
    limited = site(requests_per_s=2, burst_s=1.5)
    for _ in range(3):
        assert send(bulk(50), BULK, limited).answer.status == 200
    wire = Wire(limited)
    wire.feed(head("POST /v1/track HTTP/1.1", ["Content-Length: 1000000"]))
    assert_limited(wire.answer(), "requests_per_s = 2", 1)
    assert limited.hub.rounds.events_received == 150
    limited.now += 0.1
    assert [send(ONE, site=limited).answer.status for _ in range(2)] == [200, 429]
    assert_ended(wire)


def test_a_request_over_the_limit_is_not_told_to_go_on() -> None:
    limited = site(requests_per_s=1)
    assert send(ONE, site=limited).answer.status == 200
    wire = Wire(limited)
    wire.feed(head("POST /v1/track HTTP/1.1", ["Content-Length: 10", "Expect: 100-continue"]))
    assert wire.continues == 0
    assert_limited(wire.answer(), "requests_per_s = 1", 1)


def test_a_request_counts_whatever_becomes_of_it() -> None:
    limited = site(requests_per_s=0.5, burst_s=4)
    assert send(b"{", site=limited).answer.status == 400
    large = Wire(limited)
    large.feed(head("POST /v1/track HTTP/1.1", ["Content-Length: 100000000"]))
    assert large.answer().status == 413
    assert_limited(send(ONE, site=limited).answer, "requests_per_s = 0.5", 1)
    limited.now += 1.9
    assert send(ONE, site=limited).answer.status == 200


def test_what_needs_no_key_has_no_limit() -> None:
    limited = site(requests_per_s=1, events_per_s=1)
    send(bulk(10), BULK, limited)
    for probe in ("/healthz", "/readyz"):
        wire = Wire(limited)
        wire.feed(head(f"GET {probe} HTTP/1.1") * 3)
        assert statuses(wire) == [200, 200, 200]


def test_401_comes_before_429() -> None:
    limited = site(requests_per_s=1)
    send(ONE, site=limited)
    wire = Wire(limited)
    wire.feed(head("POST /v1/track HTTP/1.1", ["Content-Length: 2", "Authorization: Bearer x"], auth=False))
    assert wire.answer().status == 401


REPEATED: Final = {
    "small": post(ONE),
    "bulk": post(bulk(3), BULK),
    "gzip": post(gzip.compress(ONE), headers=["Content-Encoding: gzip"]),
    "chunked": post_chunked(ONE),
    "large": post(encoded(event(pad="x" * 20_000))),
}


@pytest.mark.parametrize("kind", REPEATED)
@pytest.mark.parametrize("size", [1, 100, 1 << 20])
def test_heads_that_repeat_are_counted_as_well(kind: str, size: int) -> None:
    limited = site(requests_per_s=4)
    wire = Wire(limited)
    stream = REPEATED[kind] * 8
    wire.feed(stream, [stream[i : i + size] for i in range(0, len(stream), size)])
    assert statuses(wire) == [200] * 4 + [429]
    assert_limited(wire.answers()[-1], "requests_per_s = 4", 1)
    assert_ended(wire)


@pytest.mark.parametrize("kind", REPEATED)
def test_a_repeated_head_over_the_limit_has_a_body_in_its_answer_even_after_a_head_request(kind: str) -> None:
    limited = site(requests_per_s=2)
    wire = Wire(limited)
    for data in (REPEATED[kind], REPEATED[kind], head("HEAD /healthz HTTP/1.1"), REPEATED[kind]):
        wire.feed(data)
        limited.commit()
    *_, probe, last = wire.answers(["POST", "POST", "HEAD", "POST"])
    assert probe.body == b""
    assert_limited(last, "requests_per_s = 2", 1)


def test_a_connection_goes_on_as_long_as_it_keeps_to_the_limit() -> None:
    limited = site(requests_per_s=5, events_per_s=5)
    wire = Wire(limited)
    for _ in range(50):
        wire.feed(post(ONE))
        limited.commit()
        limited.now += 0.2
    assert statuses(wire) == [200] * 50


# -- keys ------------------------------------------------------------------------------------


def other(body: bytes) -> bytes:
    lines = [f"Content-Length: {len(body)}", f"Authorization: Bearer {OTHER}"]
    return head("POST /v1/track HTTP/1.1", lines, auth=False) + body


def test_each_key_has_its_own_limits() -> None:
    limited = Site()
    limited.keyring.replace([key(events_per_s=3), key(OTHER, "other", events_per_s=6, requests_per_s=5)])
    first, second = Wire(limited), Wire(limited)
    with limited.one_round():
        first.feed(post(ONE) * 8)
        second.feed(other(ONE) * 8)
    assert statuses(first) == [200] * 3 + [429]
    assert statuses(second) == [200] * 5 + [429]
    assert_limited(second.answers()[-1], "requests_per_s = 5", 1)


def test_one_connection_with_two_keys_is_held_to_the_limits_of_each() -> None:
    limited = Site()
    limited.keyring.replace([key(events_per_s=2), key(OTHER, "other")])
    wire = Wire(limited)
    wire.feed((post(ONE) + other(ONE)) * 4)
    assert statuses(wire) == [200] * 4 + [429]
    assert [stored["source"] for stored in limited.stored] == ["web", "other"] * 2


def test_a_key_without_limits_is_held_to_none() -> None:
    limited = site()
    wire = Wire(limited)
    wire.feed(post(ONE) * 500)
    assert statuses(wire) == [200] * 500


def test_changed_limits_hold_at_once_and_on_open_connections() -> None:
    limited = site(requests_per_s=2)
    wire = Wire(limited)
    wire.feed(post(ONE) * 2)
    limited.keyring.replace([key()])
    wire.feed(post(ONE) * 50)
    limited.keyring.replace([key(events_per_s=3)])
    wire.feed(post(ONE) * 5)
    assert statuses(wire) == [200] * 55 + [429]
    assert_limited(wire.answers()[-1], "events_per_s = 3", 1)


def test_a_limit_that_stays_is_no_fuller_when_the_keys_are_loaded_again() -> None:
    limited = site(events_per_s=5, requests_per_s=1000)
    send(bulk(50), BULK, limited)
    for again in (key(events_per_s=5, requests_per_s=1000), key(events_per_s=5)):
        limited.keyring.replace([again, key(OTHER, "other")])
        assert_limited(send(ONE, site=limited).answer, "events_per_s = 5", 10)


def test_a_key_that_was_away_comes_back_with_its_debt() -> None:
    limited = site(events_per_s=5)
    send(bulk(50), BULK, limited)
    limited.keyring.replace([key(OTHER, "other")])
    wire = Wire(limited)
    wire.feed(other(ONE))
    assert statuses(wire) == [200]
    limited.keyring.replace([key(events_per_s=5)])
    assert_limited(send(ONE, site=limited).answer, "events_per_s = 5", 10)


def test_limits_that_change_again_and_again_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ratelimit, "SLOTS", 8)
    limited = site()
    for burst_s in range(1, 100):
        limited.keyring.replace([key(events_per_s=2, requests_per_s=5, burst_s=burst_s), key(OTHER, "other")])
        assert send(bulk(2 * burst_s), BULK, limited).answer.status == 200
        assert send(ONE, site=limited).answer.status == 429
    assert [record for record in caplog.records if record.name == "ingestd.ratelimit"] == []


# -- two workers -----------------------------------------------------------------------------


def test_two_workers_hold_a_key_to_one_limit() -> None:
    shared = memoryview(bytearray(memory_bytes(2)))
    sites = [site(shared, worker, events_per_s=10, requests_per_s=8) for worker in (0, 1)]
    answered = []
    for i in range(40):
        for one in sites:
            one.now += 0.05
        answered.append(send(encoded(event(f"m-{i}")), site=sites[i % 2]).answer.status)
    assert answered.count(200) == 8 + 8 * 2
    large = site(shared, 0, events_per_s=10)
    large.now = sites[1].now = sites[0].now + 10
    assert send(bulk(60), BULK, large).answer.status == 200
    sites[1].now += 0.001
    assert_limited(send(ONE, site=sites[1]).answer, "events_per_s = 10", 5)
    assert SECRET not in repr(bytes(shared))
