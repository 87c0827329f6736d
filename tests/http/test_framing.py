"""What the coding of a body may cost beside the body: chunk headers, trailers, and what is thrown away."""

from __future__ import annotations

import gc
import gzip

import pytest

from ingestd.http.body import Body
from ingestd.http.inflate import Gunzip
from tests.support.requests import cut, encoded, event, post, post_chunked
from tests.support.wire import Wire


def test_many_pipelined_requests_of_different_heads_are_answered_in_order() -> None:
    wire = Wire()
    data = b"".join(post(encoded(event(str(i))), headers=[f"X-Request: {i}"]) for i in range(2000))
    for piece in cut(data, range(0, len(data), 100_000)):
        wire.feed(piece)
        wire.site.commit()
    wire.site.commit()
    assert [answer.json["messageId"] for answer in wire.answers()] == list(map(str, range(2000)))


# -- what is left of a refused body -----------------------------------------------------------

GZIP = "Content-Encoding: gzip"
BOMB = gzip.compress(bytes(11 << 20))


def bodies() -> set[int]:
    """The bodies that are in memory now."""
    return {id(one) for one in gc.get_objects() if isinstance(one, Gunzip | Body)}


@pytest.mark.parametrize(
    "request_",
    [
        post(BOMB, headers=[GZIP]),
        post_chunked(BOMB, headers=[GZIP], size=1000),
        post(gzip.compress(bytes(1000))[:-1], headers=[GZIP]),
        post(b"not gzip", headers=[GZIP]),
        post(b"{", headers=[GZIP]),
        post_chunked(bytes(11 << 20), size=100_000),
    ],
    ids=["bomb", "chunked bomb", "cut", "not gzip", "short", "too large"],
)
def test_a_refused_body_is_freed_at_once_and_not_by_the_collector(request_: bytes) -> None:
    good = post(gzip.compress(encoded(event())), headers=[GZIP])
    before = bodies()
    gc.disable()
    try:
        wires = [Wire(), Wire()]
        wires[1].feed(good)
        for wire in wires:
            wire.feed(request_)
            wire.site.commit()
            assert wire.answers()[-1].status in (400, 413)
        left = bodies() - before
    finally:
        gc.enable()
    assert not left
