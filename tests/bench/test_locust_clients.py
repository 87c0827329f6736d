"""What Locust's clients send is what the API takes, and they behave as SDKs should."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable

import pytest

from bench.locust import clients
from bench.locust.clients import Post, problem, retry_after_s
from tests.support.requests import post
from tests.support.wire import Site, Wire

_KINDS = [clients.browser, clients.mobile, clients.shipper]


@pytest.mark.parametrize("make", _KINDS)
def test_what_they_send_is_taken_and_acknowledged(make: Callable[[random.Random], Post]) -> None:
    site, rng = Site(), random.Random(1)
    for _ in range(20):
        made = make(rng)
        before = len(site.lines)
        wire = Wire(site)
        wire.feed(post(made.body, made.path, [f"{name}: {value}" for name, value in made.headers.items()]))
        site.commit()
        answer = wire.answer()
        assert problem(answer.status, answer.json, made.events) is None
        assert len(site.lines) - before == made.events
        wire.vanish(None)


@pytest.mark.parametrize("make", _KINDS)
def test_every_event_has_an_id_of_its_own(make: Callable[[random.Random], Post]) -> None:
    rng, ids = random.Random(2), []
    for _ in range(20):
        made = make(rng)
        value = json.loads(gzip.decompress(made.body) if "Content-Encoding" in made.headers else made.body)
        ids += [event["messageId"] for event in (value if isinstance(value, list) else [value])]
    assert len(set(ids)) == len(ids)


def test_they_come_again_when_the_server_says() -> None:
    assert retry_after_s(429, {"Retry-After": "7"}, 0) == 7
    assert retry_after_s(429, {"Retry-After": "100000"}, 0) == 60
    assert [retry_after_s(500, {}, attempt) for attempt in range(3)] == [0.5, 1, 2]
    assert retry_after_s(0, {}, 0) == 0.5


def test_they_do_not_repeat_what_would_be_refused_again() -> None:
    assert {retry_after_s(status, {}, 0) for status in (200, 400, 401, 413)} == {None}
    assert retry_after_s(503, {}, clients.RETRIES_MAX) is None


def test_an_acknowledgement_that_lacks_an_event_is_a_problem() -> None:
    assert problem(200, {"status": "ok", "messageIds": ["a", "b"]}, 2) is None
    assert problem(200, {"status": "ok", "messageId": "a"}, 1) is None
    assert problem(200, {"status": "ok", "messageIds": ["a"]}, 2) == "1 ids for 2 events"
    assert problem(200, {}, 1) == "1 ids for 1 events"
    assert problem(400, "why", 1) == "400: why"
