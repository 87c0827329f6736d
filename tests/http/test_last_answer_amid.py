"""An error that is found while a later request is half read: its connection ends all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from ingestd.errors import StorageError
from ingestd.http.lifecycle import BODY, CLOSING, DRAIN, HEAD, WAIT
from tests.http.test_last_answer import BULK, GOOD, names, statuses, together
from tests.support.requests import encoded, event, head, post, post_chunked
from tests.support.wire import Site, Wire, assert_ended


def leave_alone(wire: Wire) -> None:
    """All other clients of its site go away."""
    for other in list(wire.site.wires):
        if other is not wire:
            other.vanish(None)


def _crowd(site: Site) -> None:
    """Leave no room for a large body."""
    Wire(site).feed(post(b"x" * 700_000)[:1000])


def _in_head(wire: Wire) -> bytes:
    request = GOOD["small"]("behind")
    wire.feed(request[:30])
    return request[30:]


def _in_repeated_head(wire: Wire) -> bytes:
    wire.feed(GOOD["small"]("also lost"))
    return _in_head(wire)


def _in_body(wire: Wire) -> bytes:
    request = post(encoded(event("behind")), headers=["X-Other: head"])
    wire.feed(request[:-10])
    return request[-10:]


def _in_repeated_body(wire: Wire) -> bytes:
    request = GOOD["small"]("behind")
    wire.feed(request[:-10])
    return request[-10:]


def _in_chunks(wire: Wire) -> bytes:
    request = GOOD["chunked"]("behind")
    wire.feed(request[:-20])
    return request[-20:]


def _in_trailers(wire: Wire) -> bytes:
    request = post_chunked(encoded(event("behind")), trailers=["X-A: b", "X-C: d"])
    wire.feed(request[:-10])
    return request[-10:]


def _in_gzip(wire: Wire) -> bytes:
    request = GOOD["gzip"]("behind")
    wire.feed(request[:-10])
    return request[-10:]


def _before_continue(wire: Wire) -> bytes:
    body = encoded(event("behind"))
    wire.feed(head("POST /v1/track HTTP/1.1", [f"Content-Length: {len(body)}", "Expect: 100-continue"]))
    return body


def _waiting(wire: Wire) -> bytes:
    _crowd(wire.site)
    request = GOOD["sliced"]("behind")
    wire.feed(request[:400])
    assert not wire.transport.is_reading()
    return request[400:]


def _waiting_amid_its_body(wire: Wire) -> bytes:
    _crowd(wire.site)
    request = GOOD["sliced"]("behind")
    wire.feed(request[:200_000])
    assert not wire.transport.is_reading()
    return request[200_000:]


def _waiting_for_an_unknown_size(wire: Wire) -> bytes:
    _crowd(wire.site)
    for _ in range(2):
        Wire(wire.site).feed(post(b"x" * 60_000)[:500])
    request = post_chunked(encoded(event("behind", pad="x" * 100_000)), size=70_000)
    wire.feed(request[:75_000])
    assert not wire.transport.is_reading()
    return request[75_000:]


AMID: Final[dict[str, tuple[Callable[[Wire], bytes], str]]] = {
    "head": (_in_head, HEAD),
    "repeated head": (_in_repeated_head, HEAD),
    "body": (_in_body, BODY),
    "repeated body": (_in_repeated_body, BODY),
    "chunks": (_in_chunks, BODY),
    "trailers": (_in_trailers, BODY),
    "gzip": (_in_gzip, BODY),
    "expecting": (_before_continue, BODY),
    "waiting": (_waiting, WAIT),
    "waiting amid its body": (_waiting_amid_its_body, WAIT),
    "waiting for an unknown size": (_waiting_for_an_unknown_size, WAIT),
}
"""Ways to leave a request half sent; each returns its rest."""


@pytest.mark.parametrize("sends_on", [True, False])
@pytest.mark.parametrize("amid", AMID)
def test_storage_that_fails_amid_a_later_request_ends_the_connection(amid: str, sends_on: bool) -> None:
    site = Site(inflight_bytes_max=1_000_000)
    wire = Wire(site)
    wire.feed(GOOD["small"]("lost"))
    leave, state = AMID[amid]
    rest = leave(wire)
    assert wire.state == state
    site.commit(StorageError("no space left"))
    assert statuses(wire) == [500]
    assert (wire.state, wire.continues) == (DRAIN, 0)
    assert wire.transport.is_reading()
    if sends_on:
        wire.feed(rest + GOOD["small"]("behind"))
    site.commit()
    leave_alone(wire)
    assert site.lines == []
    assert_ended(wire)


@pytest.mark.parametrize("amid", AMID)
def test_a_bad_event_that_is_found_amid_a_later_request_ends_the_connection(amid: str) -> None:
    site = Site(inflight_bytes_max=1_000_000)
    wire = Wire(site)
    with site.one_round():
        wire.feed(post(b"{"))
        rest = AMID[amid][0](wire)
        assert wire.state == AMID[amid][1]
    assert wire.state == DRAIN
    wire.feed(rest + GOOD["small"]("behind"))
    site.commit()
    leave_alone(wire)
    assert statuses(wire) == [400]
    assert site.lines == []
    assert_ended(wire)


@pytest.mark.parametrize("amid", AMID)
def test_a_request_that_is_half_read_behind_an_error_is_forgotten_while_an_answer_is_owed(amid: str) -> None:
    site = Site(inflight_bytes_max=1_000_000)
    wire = Wire(site)
    wire.feed(GOOD["small"]("owed"))
    with site.one_round():
        wire.feed(post(b"{"))
        rest = AMID[amid][0](wire)
    leave_alone(wire)
    assert (wire.state, site.inflight_bytes) == (CLOSING, 0)
    assert wire.transport.is_reading()
    wire.feed(rest + GOOD["small"]("behind"))
    assert wire.answers() == []
    site.commit()
    assert statuses(wire) == [200, 400]
    assert names(site) == ["owed"]
    assert_ended(wire)


@pytest.mark.parametrize("amid", ["waiting", "waiting amid its body", "waiting for an unknown size"])
def test_the_room_that_an_ended_connection_waits_for_goes_to_the_next(amid: str) -> None:
    site = Site(inflight_bytes_max=1_000_000)
    wire = Wire(site)
    wire.feed(GOOD["small"]("lost"))
    AMID[amid][0](wire)
    crowd = [other for other in site.wires if other is not wire]
    after = Wire(site)
    after.feed(GOOD["sliced"]("after")[:400])
    site.commit(StorageError("no space left"))
    for other in crowd:
        other.vanish(None)
    assert after.transport.is_reading()
    after.feed(GOOD["sliced"]("after")[400:])
    site.commit()
    assert after.answer().status == 200
    assert names(site) == ["after"]
    assert_ended(wire)


def test_an_error_in_a_pipeline_that_is_full_lets_the_rest_be_drained() -> None:
    site = Site(pipeline_max=4)
    wire = Wire(site)
    for i in range(10):
        wire.feed(GOOD["bulk"](str(i)))
    assert not wire.transport.is_reading()
    batches = site.take()
    assert len(batches) == 4
    site.acknowledge(batches[:1], StorageError("no space left"))
    site.acknowledge(batches[1:])
    assert statuses(wire) == [500]
    assert names(site) == ["1", "2", "3"]
    assert_ended(wire)


def test_while_an_answer_is_owed_what_follows_the_error_is_thrown_away() -> None:
    wire = together([GOOD["bulk"]("owed"), post(b"[]", BULK)])
    assert wire.state == CLOSING
    for _ in range(3):
        wire.feed(GOOD["sliced"]("behind"))
        wire.site.tick(50)
    assert wire.answers() == []
    wire.site.commit()
    assert statuses(wire) == [200, 400]
    assert names(wire.site) == ["owed"]
    assert_ended(wire)
