"""Where a chunked body ends, and what its trailers may not change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.http.chunks import Chunks
from tests.support.readings import ours
from tests.support.requests import bytewise, cut, encoded, event, post, post_chunked

_FORMS = st.sampled_from(["%x", "%X", "0%x", "%032x"])
_EXTENSIONS = st.sampled_from(["", ";a", ";a=b", ';a="f0;\\""', ";0"])
_TRAILERS = st.lists(st.sampled_from(["X-A: 1", "0: 0", "X:", "Connection: close", "5: 5"]), max_size=3)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A chunked body whose data looks like what could end it."""
    coded = b""
    for size in draw(st.lists(st.integers(1, 40), max_size=8)):
        header = draw(_FORMS) % size + draw(_EXTENSIONS)
        coded += b"%b\r\n%b\r\n" % (header.encode(), (b"0\r\n\r\n" * size)[:size])
    last = draw(st.sampled_from(["0", "000", "0;a=b"]))
    return coded + "".join(f"{line}\r\n" for line in [last, *draw(_TRAILERS), ""]).encode()


@given(bodies(), st.binary(max_size=30), st.sets(st.integers(0, 500)))
def test_the_end_is_found_however_the_body_is_coded_and_cut(
    coded: bytes, after: bytes, places: set[int]
) -> None:
    chunks, seen = Chunks(), 0
    for piece in cut(coded + after, places):
        end = chunks.walk(piece, 0)
        if seen + len(piece) >= len(coded):
            assert end == len(coded) - seen
            return
        assert end == len(piece)
        seen += len(piece)


@given(st.binary(max_size=20), bodies(), st.binary(max_size=20))
def test_a_walk_may_begin_anywhere(before: bytes, coded: bytes, after: bytes) -> None:
    assert Chunks().walk(before + coded + after, len(before)) == len(before + coded)


# -- trailers -----------------------------------------------------------------------------------

FIELDS = ["Connection: close", "Connection: keep-alive", "Connection: upgrade", "Upgrade: h2c", "Host: other"]
FIELDS += ["Authorization: Bearer other", "Content-Encoding: gzip", "Expect: 100-continue"]
FIELDS += ["Keep-Alive: timeout=0", "Proxy-Connection: close", "Content-Type: text/plain"]


def stream(trailer: str) -> bytes:
    """Requests of both codings with this trailer between them."""
    chunked = [post_chunked(encoded(event(str(i))), trailers=[trailer]) for i in range(3)]
    return b"".join([*chunked, post(encoded(event("3"))), *chunked, post(encoded(event("4")))])


@pytest.mark.parametrize("trailer", FIELDS)
def test_no_trailer_changes_what_is_read_or_ends_the_connection(trailer: str) -> None:
    data = stream(trailer)
    plain = ours([stream("X-A: 1")])
    assert (len(plain.requests), plain.refused) == (8, None)
    halves = [cut(data, [place]) for place in range(0, len(data), 7)]
    for pieces in [[data], bytewise(data), *halves]:
        reading = ours(pieces)
        assert (reading.requests, reading.keeps) == (plain.requests, [True] * 8)
        assert reading.refused is None


def test_a_trailer_does_not_hide_what_is_wrong_after_it() -> None:
    good = post_chunked(encoded(event()), trailers=["Connection: close"])
    for pieces in ([good + b"BAD\r\n\r\n"], bytewise(good + b"BAD\r\n\r\n")):
        reading = ours(pieces)
        assert (len(reading.requests), reading.status) == (1, 400)


@pytest.mark.parametrize("trailer", ["Content-Length: 9", "Transfer-Encoding: chunked"])
def test_what_may_not_stand_in_a_trailer_is_refused(trailer: str) -> None:
    reading = ours([post_chunked(encoded(event()), trailers=[trailer]) + post(encoded(event("2")))])
    assert (reading.requests, reading.status) == ([], 400)
