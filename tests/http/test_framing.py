"""What the coding of a body may cost beside the body: chunk headers, trailers, and what is thrown away."""

from __future__ import annotations

import gc
import gzip

import pytest
import zstandard

from ingestd.http.body import Body
from ingestd.http.decoder import Decoder
from tests.support.requests import chunks, cut, encoded, event, head, post, post_chunked
from tests.support.wire import Site, Wire


def test_many_pipelined_requests_of_different_heads_are_answered_in_order() -> None:
    wire = Wire()
    data = b"".join(post(encoded(event(str(i))), headers=[f"X-Request: {i}"]) for i in range(2000))
    for piece in cut(data, range(0, len(data), 100_000)):
        wire.feed(piece)
        wire.site.commit()
    wire.site.commit()
    assert [answer.json["messageId"] for answer in wire.answers()] == list(map(str, range(2000)))


# -- chunks -----------------------------------------------------------------------------------

CHUNKED = head("POST /v1/track HTTP/1.1", ["Transfer-Encoding: chunked"])


def upload(coded: bytes, piece: int) -> Wire:
    """A chunked POST in pieces of this size, from a client that stops once it is refused."""
    wire = Wire()
    wire.feed(CHUNKED)
    for part in cut(coded, range(0, len(coded), piece)):
        if not wire.is_ended():
            wire.feed(part)
    wire.site.commit()
    assert wire.site.inflight_bytes == 0
    return wire


@pytest.mark.parametrize("piece", [1000, 16_384])
def test_chunks_whose_framing_outweighs_the_body_without_end_are_refused(piece: int) -> None:
    body = encoded(event("m", properties={"pad": "x" * 100_000}))
    wire = upload(chunks(body, 1), piece)
    answer = wire.answer()
    assert (answer.status, answer.code) == (400, "chunks_too_small")
    assert wire.is_ended()
    assert wire.site.lines == []


@pytest.mark.parametrize("piece", [1000, 262_144])
def test_extensions_of_chunks_are_framing_too(piece: int) -> None:
    body = encoded(event())
    coded = b"".join(b"1;%b\r\n%c\r\n" % (b"x" * 2000, byte) for byte in body) + b"0\r\n\r\n"
    assert upload(coded, min(piece, len(coded) - 5)).answer().code == "chunks_too_small"


def test_one_chunk_header_without_end_is_refused() -> None:
    assert upload(b"1;" + b"x" * 300_000, 10_000).answer().status == 400
    assert upload(b"0" * 300_000, 10_000).answer().status == 400


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("piece", [1, 100, 10_000])
def test_a_small_body_in_chunks_of_any_size_passes(size: int, piece: int) -> None:
    body = encoded(event("m", properties={"pad": "x" * 5000}))
    assert upload(chunks(body, size), piece).answer().status == 200


def test_a_large_body_passes_in_chunks_that_outweigh_their_headers() -> None:
    body = encoded(event("m", properties={"pad": "x" * 3_000_000}))
    assert upload(chunks(body, 64), 65_536).answer().status == 200


def test_framing_is_counted_for_each_body_alone() -> None:
    body = encoded(event("m", properties={"pad": "x" * 10_000}))
    wire = Wire()
    for _ in range(5):
        data = CHUNKED + chunks(body, 1)
        wire.feed(data, cut(data, range(0, len(data), 7000)))
    wire.site.commit()
    assert [answer.status for answer in wire.answers()] == [200] * 5


def test_chunks_of_a_body_that_nobody_wants_are_bounded_too() -> None:
    for coded in (chunks(b"x" * 100_000, 1), chunks(b"x" * 100_000, 1000)):
        wire = Wire()
        wire.feed(head("GET /healthz HTTP/1.1", ["Transfer-Encoding: chunked"]))
        wire.feed(coded, cut(coded, range(0, len(coded), 10_000)))
        assert wire.answer("GET").status in (400, 413)
        assert wire.is_ended()


# -- trailers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [90, 97, 98, 99, 5000])
def test_trailers_count_as_headers_do(count: int) -> None:
    coded = chunks(encoded(event()), trailers=[f"X-{i}: v" for i in range(count)])
    for piece in (17, len(coded)):
        answer = upload(coded, piece).answer()
        # Three headers stand in the head.
        assert (answer.status, answer.code) == ((200, None) if count <= 97 else (431, "header_too_large"))


@pytest.mark.parametrize("piece", [100, 1000, 262_144])
def test_long_trailers_are_refused(piece: int) -> None:
    for trailers in ([f"X: {'v' * 20_000}"], [f"X-{i}: {'v' * 1000}" for i in range(17)]):
        assert upload(chunks(encoded(event()), trailers=trailers), piece).answer().code == "header_too_large"


def test_a_trailer_without_end_is_refused_long_before_its_end() -> None:
    wire = upload(chunks(encoded(event()))[:-2] + b"X: " + b"v" * 500_000, 1000)
    assert wire.answer().status in (400, 431)


# -- what is thrown away ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "refused", [b"BAD\r\n\r\n", head("POST /v1/track HTTP/1.1", ["Content-Length: 9"], auth=False)]
)
def test_after_a_refusal_what_comes_is_read_up_to_the_limit_so_that_the_answer_arrives(
    refused: bytes,
) -> None:
    site = Site(body_bytes_max=100_000)
    wire = Wire(site)
    wire.feed(refused)
    assert wire.is_ended()
    for _ in range(10):
        assert not wire.is_closed()
        wire.feed(b"x" * 10_000)
    assert not wire.is_closed()
    wire.feed(b"x")
    assert wire.is_closed()
    assert len(wire.answers()) == 1


def test_a_refused_client_that_goes_on_sending_slowly_is_closed_after_a_while() -> None:
    wire = Wire()
    wire.feed(b"BAD\r\n\r\n")
    for _ in range(4):
        wire.site.tick(1)
        wire.feed(b"x")
        assert not wire.is_closed()
    wire.site.tick(2)
    assert wire.is_closed()


def test_what_comes_after_the_last_request_is_thrown_away_within_the_same_limit() -> None:
    wire = Wire(Site(body_bytes_max=100_000))
    wire.feed(post(encoded(event()), headers=["Connection: close"]))
    for _ in range(11):
        wire.feed(b"x" * 10_000)
    assert not wire.transport.is_reading()
    wire.site.commit()
    assert wire.answer().status == 200
    for _ in range(11):
        assert not wire.is_closed()
        wire.feed(b"x" * 10_000)
    assert wire.is_closed()


# -- what is left of a refused body -----------------------------------------------------------

GZIP = "Content-Encoding: gzip"
BOMB = gzip.compress(bytes(11 << 20))


def bodies() -> set[int]:
    """The bodies that are in memory now."""
    return {id(one) for one in gc.get_objects() if isinstance(one, Decoder | Body)}


@pytest.mark.parametrize(
    "request_",
    [
        post(BOMB, headers=[GZIP]),
        post_chunked(BOMB, headers=[GZIP], size=1000),
        post(gzip.compress(bytes(1000))[:-1], headers=[GZIP]),
        post(b"not gzip", headers=[GZIP]),
        post(zstandard.compress(bytes(11 << 20)), headers=["Content-Encoding: zstd"]),
        post(b"not zstd", headers=["Content-Encoding: zstd"]),
        post(b"{", headers=[GZIP]),
        post_chunked(bytes(11 << 20), size=100_000),
    ],
    ids=["bomb", "chunked bomb", "cut", "not gzip", "zstd bomb", "not zstd", "short", "too large"],
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
