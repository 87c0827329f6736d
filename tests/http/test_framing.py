"""What the coding of a body may cost beside the body: chunk headers, trailers, and what is thrown away."""

from __future__ import annotations

from tests.support.requests import cut, encoded, event, post
from tests.support.wire import Wire


def test_many_pipelined_requests_of_different_heads_are_answered_in_order() -> None:
    wire = Wire()
    data = b"".join(post(encoded(event(str(i))), headers=[f"X-Request: {i}"]) for i in range(2000))
    for piece in cut(data, range(0, len(data), 100_000)):
        wire.feed(piece)
        wire.site.commit()
    wire.site.commit()
    assert [answer.json["messageId"] for answer in wire.answers()] == list(map(str, range(2000)))
