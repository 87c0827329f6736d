"""What a listener counts: each request once, under its route, its status and the word of its error."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable

import pytest

from ingestd.errors import StorageError
from ingestd.metrics import Histogram
from tests.support.requests import chunks, encoded, event, head, post
from tests.support.wire import Site, Wire, key

BAD = encoded(event(timestamp="yesterday"))
Counted = dict[tuple[str, int, str], int]


def counted(site: Site) -> Counted:
    return dict(site.hub.traffic.answers)


def sent(*requests: bytes, site: Site | None = None) -> Site:
    """The site after each of these requests on a connection of its own."""
    site = site or Site()
    for request in requests:
        wire = Wire(site)
        wire.feed(request)
        site.commit()
        wire.vanish(None)
    return site


def test_each_status_is_counted_under_its_route_and_code() -> None:
    site = sent(
        *[post(encoded(event()))] * 3,
        post(encoded([event(), event("m-2")]), "/v1/bulk-track"),
        post(gzip.compress(encoded(event())), headers=["Content-Encoding: gzip"]),
        head("POST /v1/track HTTP/1.1", ["Transfer-Encoding: chunked"]) + chunks(encoded(event())),
        post(BAD),
        post(b"[]", "/v1/bulk-track?x=1"),
        head("POST /v1/track HTTP/1.1", ["Content-Length: 2"], auth=False) + b"{}",
        head("POST /v1/track HTTP/1.1", [f"Content-Length: {1 << 40}"]),
        head("GET /v1/track HTTP/1.1"),
        head("GET /nothing HTTP/1.1"),
        head("GET /healthz HTTP/1.1"),
        head("HEAD /readyz HTTP/1.1"),
        b"nonsense\r\n\r\n",
    )
    assert counted(site) == {
        ("/v1/track", 200, ""): 5,
        ("/v1/bulk-track", 200, ""): 1,
        ("/v1/track", 400, "invalid_event"): 1,
        ("/v1/bulk-track", 400, "invalid_event"): 1,
        ("/v1/track", 401, "unauthorized"): 1,
        ("/v1/track", 413, "payload_too_large"): 1,
        ("/v1/track", 405, "method_not_allowed"): 1,
        ("other", 404, "not_found"): 1,
        ("/healthz", 200, ""): 1,
        ("/readyz", 200, ""): 1,
        ("other", 400, "bad_request"): 1,
    }
    assert site.hub.traffic.key_events == {"web": 7}
    assert site.hub.traffic.connections == 15


def test_requests_of_one_round_and_one_connection_are_counted_one_by_one() -> None:
    site = Site()
    wire = Wire(site)
    wire.feed(b"".join(post(encoded(event(f"m-{n}"))) for n in range(40)))
    site.commit()
    assert counted(site) == {("/v1/track", 200, ""): 40}
    assert len(wire.answers()) == 40


def test_a_repeated_head_that_ends_badly_is_counted_under_its_route() -> None:
    site = Site(body_bytes_max=4096)
    good, bomb = gzip.compress(encoded([event()])), gzip.compress(bytes(100_000))
    wire = Wire(site)
    for body in (good, good, bomb):
        wire.feed(post(body, "/v1/bulk-track", ["Content-Encoding: gzip"]))
        site.commit()
    assert counted(site) == {
        ("/v1/bulk-track", 200, ""): 2,
        ("/v1/bulk-track", 413, "payload_too_large"): 1,
    }


def test_a_request_that_never_ends_is_counted_where_it_was_going() -> None:
    site = Site()
    for data in (b"POST /v1/tr", head("POST /v1/track HTTP/1.1", ["Content-Length: 9"])):
        Wire(site).feed(data)
    site.tick(61)
    assert counted(site) == {("other", 408, "request_timeout"): 1, ("/v1/track", 408, "request_timeout"): 1}


def test_what_an_error_has_cut_off_is_not_counted() -> None:
    site = Site()
    wire = Wire(site)
    with site.one_round():
        wire.feed(post(encoded(event())) + post(BAD) + post(encoded(event("m-2"))) * 3)
    site.commit()
    assert counted(site) == {("/v1/track", 200, ""): 1, ("/v1/track", 400, "invalid_event"): 1}


def test_one_failed_commit_is_one_answer_for_each_connection() -> None:
    site = Site()
    wires = [Wire(site) for _ in range(3)]
    with site.one_round():
        for wire in wires:
            wire.feed(post(encoded(event())) * 4)
    site.commit(StorageError("no space left"))
    assert [answer.status for wire in wires for answer in wire.answers()] == [500] * 3
    assert counted(site) == {("/v1/track", 500, "storage_failed"): 3}
    assert site.hub.traffic.key_events == {}


def test_a_full_ring_and_a_full_disk_are_told_apart() -> None:
    site = Site(ring_batches_max=1)
    held = Wire(site)
    held.feed(post(encoded([event()]), "/v1/bulk-track"))
    sent(post(encoded([event()]), "/v1/bulk-track"), site=site)
    assert counted(site) == {
        ("/v1/bulk-track", 429, "overloaded"): 1,
        ("/v1/bulk-track", 200, ""): 1,
    }


@pytest.mark.parametrize("size", [1, 100, 10_000])
def test_bytes_are_counted_as_they_come_whatever_becomes_of_them(size: int) -> None:
    data = post(encoded(event(properties={"pad": "x" * size}))) + post(BAD) + b"and more"
    assert sent(data).hub.traffic.received_bytes == len(data)


def test_keys_are_counted_by_their_names() -> None:
    site = Site()
    site.keyring.replace([key(), key("ing_other", "app")])
    other = post(encoded([event()] * 3), "/v1/bulk-track").replace(b"ing_a-key-that-is-known", b"ing_other")
    sent(other, post(encoded(event())), other, site=site)
    assert site.hub.traffic.key_events == {"app": 6, "web": 1}
    assert "ing_" not in json.dumps(site.hub.traffic.key_events)


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ([], [0, 0, 0]),
        ([-1, 0, 10], [3, 0, 0]),
        ([11, 20], [0, 2, 0]),
        ([21, 10**18], [0, 0, 2]),
        ([10, 20, 21], [1, 1, 1]),
    ],
)
def test_a_value_is_counted_at_the_first_bound_that_it_does_not_pass(
    values: Iterable[int], counts: list[int]
) -> None:
    histogram = Histogram([10, 20])
    for value in values:
        histogram.observe(value)
    assert (histogram.counts, histogram.sum) == (counts, sum(values))
