"""A head that has passed is recognised by its bytes when it comes again; a near one must not be.

The proof is by comparison: whatever is sent after some good requests is answered, to the byte, as it
is on a fresh connection, where the parser reads it.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestd.http.requests import RequestReader
from tests.http.test_rounds import MADE, judged
from tests.http.test_splits import UNHURRIED
from tests.support.requests import SECRET, bytewise, cut, encoded, event, head, post, post_chunked
from tests.support.wire import Site, Wire, key

BODY = encoded(event("m"))
AFTER = post(encoded(event("after")))
AUTH = f"Authorization: Bearer {SECRET}"


def request(*lines: str, body: bytes = BODY, start: str = "POST /v1/track HTTP/1.1") -> bytes:
    """A POST of exactly these lines; `@` in them stands for the length of its body."""
    text = "\r\n".join([start, *lines, "", ""]).replace("@", str(len(body)))
    return text.encode("latin-1") + body


SHAPES = {
    "plain": request("Host: a", AUTH, "Content-Length: @"),
    "length first": request("Content-Length: @", "Host: a", AUTH),
    "length amid": request("Host: a", "content-length: @", "X-A: Content-Length: 5", AUTH),
    "space around": request("Host: a", AUTH, "CONTENT-LENGTH: \t @ \t", "X: y"),
    "many lines": request("Host: a", AUTH, *(f"X-{i}: {i}" for i in range(30)), "Content-Length: @"),
    "kept 1.0": request(AUTH, "Content-Length: @", "Connection: keep-alive", start="POST /v1/track HTTP/1.0"),
    "query": request("Host: a", AUTH, "Content-Length: @", start="POST /v1/track?Content-Length:9 HTTP/1.1"),
    "bulk": request(
        "Host: a", AUTH, "Content-Length: @", body=b"[" + BODY + b"]", start="POST /v1/bulk-track HTTP/1.1"
    ),
    "gzip": request(
        "Host: a", AUTH, "Content-Encoding: gzip", "Content-Length: @", body=gzip.compress(BODY, mtime=0)
    ),
}


def told(data: bytes, pieces: Iterable[bytes] | None = None, good: bytes = b"", times: int = 0) -> Any:
    """All that becomes of `data`, sent after `times` good requests, until its connection is closed."""
    site = Site()
    wire = Wire(site)
    for _ in range(times):
        wire.feed(good)
        site.commit()
    before, lines_before = len(wire.answers()), len(site.lines)
    assert before == lines_before == times
    wire.feed(data, pieces)
    site.commit()
    seen = [wire.is_ended()]
    for seconds in (11, 61, 80):
        site.tick(seconds)
        seen.append(wire.is_ended())
    assert site.inflight_bytes == 0
    answers = wire.answers()[before:]
    return list(map(judged, answers)), [MADE.sub(b"made", line) for line in site.lines[lines_before:]], seen


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What has been given to the parser."""
    given_to_it: list[bytes] = []
    original = RequestReader._parse

    def parse(self: RequestReader, data: bytes) -> None:
        given_to_it.append(data)
        original(self, data)

    monkeypatch.setattr(RequestReader, "_parse", parse)
    return given_to_it


# -- what is recognised -----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [name for name in SHAPES if name != "space around"])
def test_a_repeated_head_is_not_parsed_again(shape: str, parsed: list[bytes]) -> None:
    good = SHAPES[shape]
    wire = Wire()
    for pieces in ([good], [good * 3], cut(good * 2, [len(good) - 5, len(good)])):
        wire.feed(b"", pieces)
    wire.site.commit()
    assert parsed == [good]
    assert [answer.status for answer in wire.answers()] == [200] * 6
    assert len(wire.site.lines) == 6


def test_only_the_digits_of_the_length_may_differ(parsed: list[bytes]) -> None:
    wire = Wire()
    bodies = [encoded(event("m" * size)) for size in (1, 9, 10, 500, 20_000, 70_000, 700_000, 3)]
    for body in bodies:
        wire.feed(post(body))
    wire.site.commit()
    assert len(parsed) == 1
    assert [answer.json["messageId"] for answer in wire.answers()] == [
        "m" * s for s in (1, 9, 10, 500, 20_000, 70_000, 700_000, 3)
    ]


NEVER = {
    "chunked": post_chunked(BODY),
    "Expect": post(BODY, headers=["Expect: 100-continue"]),
    "a probe": head("GET /healthz HTTP/1.1", ["Content-Length: 0"]),
}


@pytest.mark.parametrize("kind", NEVER)
def test_heads_that_are_not_plain_are_parsed_each_time(kind: str, parsed: list[bytes]) -> None:
    wire = Wire()
    for _ in range(4):
        wire.feed(NEVER[kind])
    wire.site.commit()
    assert len(parsed) == 4
    assert [answer.status for answer in wire.answers()] == [200] * 4


def test_after_a_few_other_heads_a_client_is_no_longer_learned_from(parsed: list[bytes]) -> None:
    wire = Wire()
    for i in range(20):
        wire.feed(post(BODY, headers=[f"X-Request: {i}"]))
    wire.feed(post(BODY, headers=["X-Request: 19"]) * 2)
    wire.site.commit()
    assert len(parsed) == 21
    assert [answer.status for answer in wire.answers()] == [200] * 22


# -- what is near -----------------------------------------------------------------------------

PLAIN = "Content-Length: @"
NEAR = {
    "an extra header": request("Host: a", AUTH, PLAIN, "X: y"),
    "an extra header before": request("X: y", "Host: a", AUTH, PLAIN),
    "a header less": request("Host: a", PLAIN),
    "another case": request("host: a", AUTH, PLAIN),
    "another Host": request("Host: b", AUTH, PLAIN),
    "a bad Host": request("Host: a b", AUTH, PLAIN),
    "another key": request("Host: a", f"{AUTH}x", PLAIN),
    "a shorter key": request("Host: a", AUTH[:-1], PLAIN),
    "another scheme": request("Host: a", f"Authorization: Basic {SECRET}", PLAIN),
    "another target": request("Host: a", AUTH, PLAIN, start="POST /v1/trick HTTP/1.1"),
    "another call": request("Host: a", AUTH, PLAIN, start="POST /v1/bulk-track HTTP/1.1"),
    "a query": request("Host: a", AUTH, PLAIN, start="POST /v1/track?x HTTP/1.1"),
    "another method": request("Host: a", AUTH, PLAIN, start="PUT /v1/track HTTP/1.1"),
    "another version": request("Host: a", AUTH, PLAIN, start="POST /v1/track HTTP/1.0"),
    "an unknown version": request("Host: a", AUTH, PLAIN, start="POST /v1/track HTTP/1.2"),
    "two lengths": request("Host: a", AUTH, PLAIN, PLAIN),
    "two other lengths": request("Host: a", AUTH, PLAIN, "Content-Length: 5"),
    "a length and chunked": request("Host: a", AUTH, PLAIN, "Transfer-Encoding: chunked"),
    "gzip all at once": request("Host: a", AUTH, PLAIN, "Content-Encoding: gzip"),
    "a close": request("Host: a", AUTH, PLAIN, "Connection: close"),
    "an Expect": request("Host: a", AUTH, PLAIN, "Expect: 100-continue"),
    "an Upgrade": request("Host: a", AUTH, PLAIN, "Upgrade: h2c"),
    "LF only": request("Host: a", AUTH, PLAIN).replace(b"\r\n", b"\n"),
    "LF at the end": request("Host: a", AUTH, PLAIN).replace(b"\r\n\r\n", b"\n\n"),
    "one LF": request("Host: a", AUTH, PLAIN).replace(b"\r\nHost", b"\nHost"),
    "empty lines before": b"\r\n\r\n" + request("Host: a", AUTH, PLAIN),
    "a space before": b" " + request("Host: a", AUTH, PLAIN),
    "nothing of the end": request("Host: a", AUTH, PLAIN)[: -len(BODY) - 2],
    **{
        f"length {length!r}": request("Host: a", AUTH, f"Content-Length:{length}")
        for length in (
            "@", "  @", " \t@", " @ ", " @\t", " +@", " -@", " 0@", " 00000@", " @, @",
            " @;", " @.0", " 0x@", " 1_0", " L", "", " ", " 0", " 1", " 1000000000", " 10485760",
            " 10485761", " 99999999999999999", " 999999999999999999", " 9999999999999999999",
            f" {'0' * 15}@", f" {'0' * 16}@", f" {'0' * 40}@", " 18446744073709551616", " ²", " \xb2", " @\r",
            " @\n", " @\rX: y", " @\nX: y", " @\r\n X", " @\0", "\n@", "\r@", "\r\n @",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("near", NEAR)
def test_a_near_repeat_is_answered_as_on_a_fresh_connection(near: str) -> None:
    data = NEAR[near] + AFTER
    fresh = told(data)
    for good in (SHAPES["plain"], SHAPES["length first"]):
        for times in (1, 3):
            assert told(data, good=good, times=times) == fresh
        assert told(data, bytewise(data), good, 1) == fresh


def test_the_near_repeats_are_of_every_kind() -> None:
    assert {told(raw)[0][0][0] for raw in NEAR.values()} >= {200, 400, 401, 404, 405, 408, 413, 505}


_LINES = [b"X: y\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"]
_INSERTS = st.sampled_from(
    [*(b"%c" % byte for byte in b"\r\n \t\0:+-019,x\xff"), b"\r\n", b"\r\n\r\n", *_LINES]
) | st.binary(max_size=3)


@settings(UNHURRIED, max_examples=400)
@given(st.sampled_from(sorted(SHAPES)), st.integers(1, 3), st.data())
def test_damaged_repeats_are_answered_as_on_a_fresh_connection(
    shape: str, times: int, data: st.DataObject
) -> None:
    good = SHAPES[shape]
    ends_at = good.index(b"\r\n\r\n") + 4
    length_at = good.lower().index(b"\r\ncontent-length")
    damaged = good
    for _ in range(data.draw(st.integers(1, 3))):
        places = st.integers(0, ends_at) | st.integers(length_at, length_at + 24)
        at, taken = data.draw(places), data.draw(st.integers(0, 3))
        damaged = damaged[:at] + data.draw(_INSERTS) + damaged[at + taken :]
    sent = good * data.draw(st.integers(0, 2)) + damaged + AFTER
    fresh = told(sent)
    assert told(sent, good=good, times=times) == fresh
    cuts = [place % len(sent) for place in data.draw(st.lists(st.integers(0, 1 << 16), max_size=6))]
    assert told(sent, cut(sent, cuts), good, times) == fresh


# -- bodies of repeats ------------------------------------------------------------------------

LARGE = [encoded(event("l", properties={"pad": "x" * size})) for size in (16 * 1024, 64 * 1024, 600 * 1024)]


@settings(UNHURRIED, max_examples=100)
@given(
    st.lists(
        st.sampled_from([BODY, encoded(event(None)), *LARGE[:2]] * 4 + [b"", b"{", b"\xff"]), max_size=8
    ),
    st.lists(st.integers(0, 1 << 20), max_size=12),
)
def test_repeats_with_any_bodies_in_any_cut_have_the_answers_of_fresh_connections(
    bodies: list[bytes], places: list[int]
) -> None:
    data = b"".join(map(post, bodies)) + AFTER
    answers, lines, seen = told(data, cut(data, [place % len(data) for place in places]), post(BODY), 1)
    alone = [told(post(body)) for body in [*bodies, encoded(event("after"))]]
    # What is behind an error is not read.
    first = next((i for i, one in enumerate(alone) if one[2][0]), len(alone))
    assert answers == [answer for one in alone[: first + 1] for answer in one[0]]
    assert lines == [line for one in alone[:first] for line in one[1]]
    assert seen[0] is (first < len(alone))


def test_a_large_body_of_a_repeat_comes_in_pieces_of_any_size(parsed: list[bytes]) -> None:
    for body in LARGE:
        for size in (1000, 65_536, 262_144):
            data = post(body)
            wire = Wire()
            wire.feed(post(BODY))
            wire.feed(data, cut(data, range(0, len(data), size)))
            wire.feed(post(BODY))
            wire.site.commit()
            assert [answer.json["messageId"] for answer in wire.answers()] == ["m", "l", "m"]
            assert wire.site.inflight_bytes == 0
    assert parsed == [post(BODY)] * 9


@pytest.mark.parametrize("size", [4096, 4097, 5000, 10**9])
def test_a_repeat_over_the_limit_is_413_before_its_body(size: int) -> None:
    wire = Wire(Site(body_bytes_max=4096))
    wire.feed(post(BODY))
    wire.site.commit()
    wire.feed(post(BODY).replace(b"Length: %d" % len(BODY), b"Length: %d" % size)[: -len(BODY)])
    wire.site.commit()
    assert [answer.status for answer in wire.answers()] == ([200] if size == 4096 else [200, 413])
    assert wire.is_ended() is (size > 4096)


def test_many_pipelined_repeats_are_answered_in_order(parsed: list[bytes]) -> None:
    wire = Wire()
    data = b"".join(post(encoded(event(str(i)))) for i in range(5000))
    wire.feed(post(encoded(event("first"))))
    for piece in cut(data, range(0, len(data), 100_000)):
        wire.feed(piece)
        wire.site.commit()
    wire.site.commit()
    assert [answer.json["messageId"] for answer in wire.answers()] == ["first", *map(str, range(5000))]
    assert len(parsed) < 100


# -- what ends it -----------------------------------------------------------------------------


def test_a_revoked_key_stops_at_once_for_repeats_too() -> None:
    wire = Wire()
    wire.feed(post(BODY) * 3)
    wire.feed(post(BODY) * 3)
    wire.site.commit()
    wire.site.keyring.replace([key("ing_another")])
    wire.feed(post(BODY) * 3)
    wire.site.commit()
    assert [answer.status for answer in wire.answers()] == [200] * 6 + [401]
    assert len(wire.site.lines) == 6


def test_a_key_that_changes_its_name_stamps_the_new_one_on_repeats() -> None:
    wire = Wire()
    wire.feed(post(BODY))
    wire.site.keyring.replace([key(name="renamed")])
    wire.feed(post(BODY) * 2)
    wire.site.commit()
    assert [stored["source"] for stored in wire.site.stored] == ["web", "renamed", "renamed"]


def test_during_the_drain_a_repeat_is_the_last_request_of_its_connection() -> None:
    site = Site()
    wire = Wire(site)
    wire.feed(post(BODY) * 2)
    site.drain()
    wire.feed(post(BODY) * 2)
    site.commit()
    answers = wire.answers()
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert [answer.headers["Connection"] for answer in answers] == [None, None, "close"]
    assert wire.is_ended()


def test_a_repeat_whose_body_is_under_way_when_the_drain_begins_is_still_stored() -> None:
    site = Site()
    wire = Wire(site)
    wire.feed(post(BODY))
    site.commit()
    wire.feed(post(BODY)[:-1])
    site.drain()
    wire.feed(BODY[-1:] + AFTER)
    site.commit()
    assert [answer.status for answer in wire.answers()] == [200, 200]
    assert len(site.lines) == 2
    assert wire.is_ended()
