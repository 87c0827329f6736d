"""While the disk is nearly full: 429 before a body is read, for new connections and for old ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ingestd.errors import no_room
from tests.support.requests import encoded, event, head, post, post_chunked
from tests.support.wire import Site, Wire


def test_events_are_refused_from_their_head_and_the_rest_is_served() -> None:
    site = Site()
    site.hub.no_room = no_room("the disk is nearly full", 7)
    wire = Wire(site)
    wire.feed(head("POST /v1/track HTTP/1.1", ["Content-Length: 100"]))
    answer = wire.answer()
    assert (answer.status, answer.code, answer.detail) == (429, "disk_full", "the disk is nearly full")
    assert (answer.headers["Retry-After"], answer.headers["Connection"]) == ("7", "close")
    other = Wire(site)
    other.feed(head("GET /healthz HTTP/1.1", auth=False))
    assert other.answer("GET").status == 200


@pytest.mark.parametrize("make", [post, post_chunked])
def test_a_client_whose_head_is_known_is_refused_as_well_and_taken_again_later(
    make: Callable[[bytes], bytes],
) -> None:
    site = Site()
    wire, other = Wire(site), Wire(site)
    for _ in range(3):
        wire.feed(make(encoded(event("1"))))
        other.feed(make(encoded(event("2"))))
        site.commit()
    site.hub.no_room = no_room("the disk is nearly full", 7)
    wire.feed(make(encoded(event("3"))) * 2)
    site.commit()
    assert [answer.status for answer in wire.answers()] == [200, 200, 200, 429]
    site.hub.no_room = None
    other.feed(make(encoded(event("4"))))
    site.commit()
    assert [answer.status for answer in other.answers()] == [200] * 4


def test_without_a_key_nobody_learns_of_the_disk() -> None:
    wire = Wire()
    wire.site.hub.no_room = no_room("the disk is nearly full", 7)
    wire.feed(head("POST /v1/track HTTP/1.1", ["Content-Length: 100"], auth=False))
    assert wire.answer().status == 401
