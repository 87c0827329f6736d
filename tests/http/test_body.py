"""Bodies: lengths, chunks, trailers, gzip, and limits that are exact in every coding."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest
import zstandard

from ingestd.http.decoder import compressed_bytes_max
from ingestd.http.unzstd import STATE_BYTES
from tests.support.requests import bytewise, chunks, cut, encoded, event, head, post, post_chunked
from tests.support.wire import Answer, Site, Wire

LIMIT = 4096
BODY = encoded(event("m"))
GZIP = "Content-Encoding: gzip"


def of_size(size: int) -> bytes:
    """A valid event whose body has exactly this many bytes."""
    bare = len(encoded(event(properties={"pad": ""})))
    body = encoded(event(properties={"pad": "x" * (size - bare)}))
    assert len(body) == size
    return body


def stored(data: bytes) -> bytes:
    """Gzip that does not compress: larger than what it holds."""
    packer = zlib.compressobj(0, wbits=31)
    return packer.compress(data) + packer.flush()


CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "Content-Length": post,
    "chunked": lambda body: post_chunked(body, size=100),
    "gzip": lambda body: post(gzip.compress(body), headers=[GZIP]),
    "stored gzip": lambda body: post(stored(body), headers=[GZIP]),
    "deflate": lambda body: post(zlib.compress(body), headers=["Content-Encoding: deflate"]),
    "stored deflate": lambda body: post(zlib.compress(body, 0), headers=["Content-Encoding: deflate"]),
    "zstd": lambda body: post(zstandard.compress(body), headers=["Content-Encoding: zstd"]),
    "chunked zstd": lambda body: post_chunked(
        zstandard.compress(body), headers=["Content-Encoding: zstd"], size=10
    ),
    "zstd frames": lambda body: post(
        zstandard.compress(body[:50]) + zstandard.compress(body[50:]), headers=["Content-Encoding: ZSTD"]
    ),
    "chunked gzip": lambda body: post_chunked(gzip.compress(body), headers=[GZIP], size=10),
    "gzip members": lambda body: post(
        gzip.compress(body[:50]) + gzip.compress(body[50:]), headers=["Content-Encoding: x-gzip"]
    ),
}


def answered(request: bytes, pieces: list[bytes], limit: int = LIMIT) -> Answer:
    """The answer, once all budget that the request took has been given back."""
    site = Site(body_bytes_max=limit)
    wire = Wire(site)
    wire.feed(request, pieces)
    site.commit()
    assert site.inflight_bytes == 0
    return wire.answer()


@pytest.mark.parametrize("coding", CODINGS)
def test_the_limit_is_exact_in_every_coding(coding: str) -> None:
    for size, status in ((LIMIT - 1, 200), (LIMIT, 200), (LIMIT + 1, 413), (LIMIT * 4, 413)):
        request = CODINGS[coding](of_size(size))
        for pieces in ([request], bytewise(request), cut(request, range(0, len(request), 333))):
            answer = answered(request, pieces)
            assert answer.status == status, (size, len(pieces))
            if status == 413:
                assert answer.json["error"] == "Payload exceeds maximum allowed size (10MB)."
                assert answer.detail == "the uncompressed body may have 4096 bytes at most"


@pytest.mark.parametrize("coding", CODINGS)
def test_the_default_limit_takes_ten_megabytes_in_either_reading(coding: str) -> None:
    for size, status in ((10_000_000, 200), (10 * 1024 * 1024, 200), (10 * 1024 * 1024 + 1, 413)):
        body = of_size(size)
        request = post_chunked(body, size=60_000) if coding == "chunked" else CODINGS[coding](body)
        pieces = cut(request, range(0, len(request), 256 * 1024))
        assert answered(request, pieces, 10 * 1024 * 1024).status == status


@pytest.mark.parametrize(
    ("length", "lines"),
    [(LIMIT + 1, []), (10**17, []), (compressed_bytes_max(LIMIT) + 1, [GZIP])],
)
def test_a_length_over_the_limit_is_refused_before_the_body(length: int, lines: list[str]) -> None:
    wire = Wire(Site(body_bytes_max=LIMIT))
    wire.feed(head("POST /v1/track HTTP/1.1", [f"Content-Length: {length}", *lines]))
    assert wire.answer().status == 413
    assert wire.is_ended()


def test_a_chunked_body_is_refused_as_soon_as_it_passes_the_limit() -> None:
    wire = Wire(Site(body_bytes_max=LIMIT))
    wire.feed(head("POST /v1/track HTTP/1.1", ["Transfer-Encoding: chunked"]))
    for sent in range(0, LIMIT, 512):
        assert wire.answers() == [], sent
        wire.feed(b"200\r\n" + b" " * 512 + b"\r\n")
    wire.feed(b"1\r\n ")
    assert wire.answer().status == 413


BOMBS: dict[str, bytes] = {
    "gzip": gzip.compress(bytes(5_000_000)),
    "deflate": zlib.compress(bytes(5_000_000)),
    "zstd": zstandard.compress(b"".join(b"%07d" % i for i in range(50_000))),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_long_before_its_end_and_never_counts_more_than_the_limit(name: str) -> None:
    site = Site(body_bytes_max=LIMIT)
    wire = Wire(site)
    bomb = BOMBS[name]
    lines = ["Transfer-Encoding: chunked", f"Content-Encoding: {name}"]
    wire.feed(head("POST /v1/track HTTP/1.1", lines))
    fed = 0
    while not wire.is_ended():
        wire.feed(b"14\r\n" + bomb[fed : fed + 20] + b"\r\n")
        fed += 20
        # zstd's window and state count as well.
        assert site.inflight_bytes <= (2 * LIMIT + STATE_BYTES if name == "zstd" else LIMIT)
    assert wire.answer().status == 413
    assert fed < len(bomb)


@pytest.mark.parametrize("name", ["gzip", "deflate", "zstd"])
def test_a_refusal_names_its_coding(name: str) -> None:
    request = post(b"what is none of them", headers=[f"Content-Encoding: {name}"])
    answer = answered(request, [request])
    assert (answer.status, answer.code) == (400, f"invalid_{name}")
    assert answer.detail.startswith(f"body: not valid {name}: ")


@pytest.mark.parametrize("name", ["br", "gzip, zstd", "zstd, zstd", "gzip, gzip", "bzip2"])
def test_an_encoding_that_is_not_known_is_415_and_those_that_are_stand_in_the_answer(name: str) -> None:
    request = post(BODY, headers=[f"Content-Encoding: {name}"])
    answer = answered(request, [request])
    assert (answer.status, answer.code) == (415, "unsupported_encoding")
    assert answer.headers["Accept-Encoding"] == "gzip, deflate, zstd, identity"
    assert answer.detail == "send one Content-Encoding of gzip, deflate, zstd, identity"


def test_many_zstd_bodies_that_have_just_begun_are_bounded_by_the_budget() -> None:
    """Each has state that is larger than all that it has sent."""
    site = Site(inflight_bytes_max=4 * STATE_BYTES)
    packed = zstandard.compress(BODY)
    begun = head("POST /v1/track HTTP/1.1", [f"Content-Length: {len(packed)}", "Content-Encoding: zstd"])
    wires = [Wire(site) for _ in range(8)]
    for wire in wires:
        wire.feed(begun + packed[:20])
    assert site.inflight_bytes <= 4 * STATE_BYTES
    refused = [wire for wire in wires if wire.answers()]
    assert {wire.answer().status for wire in refused} <= {429}
    for wire in wires:
        if wire not in refused:
            wire.feed(packed[20:])
    site.commit()
    site.tick(11)
    assert {wire.answer().status for wire in wires} == {200, 429}
    assert site.inflight_bytes == 0


@pytest.mark.parametrize(
    "packed",
    [b"", BODY, gzip.compress(BODY)[:-1], gzip.compress(BODY) + b"{}", gzip.compress(BODY)[:3]],
    ids=["empty", "not gzip", "truncated", "garbage after", "only magic"],
)
def test_bad_gzip_is_400_and_the_next_request_is_itself(packed: bytes) -> None:
    for request in (post(packed, headers=[GZIP]), post_chunked(packed, headers=[GZIP])):
        wire = Wire()
        wire.feed(request, bytewise(request))
        wire.feed(post(encoded(event("after"))))
        wire.site.commit()
        first, *rest = wire.answers()
        assert (first.status, first.code) == (400, "invalid_gzip")
        assert [answer.json["messageId"] for answer in rest] == ([] if wire.is_ended() else ["after"])


@pytest.mark.parametrize("lines", [[], ["Content-Length: 0"], ["Transfer-Encoding: chunked"]])
def test_an_empty_body_is_400(lines: list[str]) -> None:
    body = b"0\r\n\r\n" if "Transfer-Encoding: chunked" in lines else b""
    request = head("POST /v1/track HTTP/1.1", lines) + body
    answer = answered(request, [request])
    assert (answer.status, answer.code) == (400, "invalid_json")


def test_an_empty_gzipped_body_is_400() -> None:
    request = post(gzip.compress(b""), headers=[GZIP])
    assert answered(request, [request]).code == "invalid_json"


@pytest.mark.parametrize("size", [1, 2, 3, 16, 1000])
def test_chunks_of_any_size_make_the_same_body(size: int) -> None:
    site = Site()
    for request in (
        post_chunked(BODY, size=size),
        post_chunked(gzip.compress(BODY), headers=[GZIP], size=size),
    ):
        wire = Wire(site)
        wire.feed(request, bytewise(request))
        site.commit()
        assert wire.answer().json["messageId"] == "m"
    first, second = site.stored
    assert first | {"receivedAt": ""} == second | {"receivedAt": ""}


HARMLESS_TRAILERS = [
    "X-Checksum: 1",
    "Host: a b",
    "Host: another.example",
    "Authorization: Bearer other",
    "Content-Encoding: gzip",
    "Content-Encoding: br",
    "Content-Type: text/plain",
    "Expect: 200-ok",
    "Upgrade: h2c",
    "Connection: upgrade",
]


@pytest.mark.parametrize("trailer", HARMLESS_TRAILERS)
def test_trailers_change_neither_their_request_nor_the_next(trailer: str) -> None:
    request = post_chunked(BODY, trailers=[trailer, trailer])
    for pieces in ([request], bytewise(request)):
        wire = Wire()
        wire.feed(request, pieces)
        wire.feed(post(encoded(event("after"))))
        wire.site.commit()
        assert [answer.json["messageId"] for answer in wire.answers()] == ["m", "after"]
        assert not wire.is_ended()


@pytest.mark.parametrize(
    "trailer",
    ["Content-Length: 3", "Transfer-Encoding: gzip", "Transfer-Encoding: chunked", "Connection: close"],
)
def test_trailers_about_framing_never_shift_the_next_request(trailer: str) -> None:
    request = post_chunked(BODY, trailers=[trailer])
    for pieces in ([request], bytewise(request)):
        wire = Wire()
        wire.feed(request, pieces)
        wire.feed(post(encoded(event("after"))))
        wire.site.commit()
        first, *rest = wire.answers()
        assert first.status in (200, 400)
        assert wire.is_ended() or [answer.json["messageId"] for answer in rest] == ["after"]
        ids = [line["messageId"] for line in wire.site.stored]
        assert ids == [answer.json["messageId"] for answer in (first, *rest) if answer.status == 200]


def test_trailers_without_end_are_refused() -> None:
    coded = chunks(BODY, trailers=[f"X-{i}: v" for i in range(200)])
    request = head("POST /v1/track HTTP/1.1", ["Transfer-Encoding: chunked"]) + coded
    for pieces in ([request], bytewise(request)):
        assert answered(request, pieces).code == "header_too_large"


def test_the_body_of_a_probe_is_read_over() -> None:
    wire = Wire()
    inner = post(encoded(event("inner")))
    wire.feed(head("GET /healthz HTTP/1.1", [f"Content-Length: {len(inner)}"]) + inner)
    wire.feed(post(encoded(event("after"))))
    wire.site.commit()
    assert [answer.status for answer in wire.answers(["GET"])] == [200, 200]
    assert [line["messageId"] for line in wire.site.stored] == ["after"]
