"""The same bytes read by ingestd and by h11: what ingestd reads, h11 reads as the same request."""

from __future__ import annotations

import gzip
import itertools
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.http.disagreements import BY_CODE, BY_NAME, CLOSE_WINS, ENDS
from tests.http.guard_cases import BODY, CASES, ZSTD_BODY
from tests.http.wild_cases import READ, REFUSED, WAITING
from tests.support.readings import Read, Reading, ours, theirs
from tests.support.requests import bytewise, chunks, encoded, event, head, post, post_chunked

AFTER: Final = post(encoded(event("after")))
BEFORE: Final = post(encoded(event("before")), "/v1/track?first")
ALL: Final = {case.name: case.raw for case in CASES} | READ | REFUSED | WAITING
BYTEWISE_BYTES_MAX: Final = 3000
"""Larger ones are large, not intricate."""

READ_AFTER: Final = Read(b"POST", b"/v1/track", encoded(event("after")))
READ_BEFORE: Final = Read(b"POST", b"/v1/track?first", encoded(event("before")))

each_request = pytest.mark.parametrize("name", ALL, ids=[name[:40] for name in ALL])


def verdict(reading: Reading) -> str:
    """What became of the first request."""
    if reading.requests:
        return "read"
    return "waits" if reading.refused is None else "refused"


def explanation(name: str, code: str | None) -> list[str]:
    """The sentences of the table that explain this refusal."""
    if code is not None and code in BY_CODE:
        return [BY_CODE[code]]
    return [why for why, names in BY_NAME.items() if name in names]


def agree(mine: Reading, other: Reading) -> None:
    """All that ingestd has read, h11 has read too, and it has not overlooked any."""
    count = len(mine.requests)
    assert mine.requests == other.requests[:count]
    if mine.refused is None and all(mine.keeps):
        assert count == len(other.requests)
        assert other.refused is None


# -- the table ----------------------------------------------------------------------------------


@each_request
def test_what_ingestd_reads_h11_reads_as_the_same_request(name: str) -> None:
    agree(ours([ALL[name] + AFTER]), theirs(ALL[name] + AFTER))


@each_request
def test_what_ingestd_refuses_and_h11_does_not_is_explained_once(name: str) -> None:
    mine, other = ours([ALL[name] + AFTER]), theirs(ALL[name] + AFTER)
    if verdict(mine) == verdict(other):
        assert not [names for names in BY_NAME.values() if name in names]
        return
    assert (verdict(mine), verdict(other)) in {("refused", "read"), ("refused", "waits")}
    assert len(explanation(name, mine.refused)) == 1, mine.refused


def test_the_table_has_no_line_that_explains_nothing() -> None:
    codes: set[str | None] = set()
    for raw in ALL.values():
        mine, other = ours([raw + AFTER]), theirs(raw + AFTER)
        if verdict(mine) != verdict(other):
            codes.add(mine.refused)
    assert codes == {"bad_request", *BY_CODE}
    named = [name for names in [*BY_NAME.values(), *ENDS.values(), CLOSE_WINS] for name in names]
    assert set(named) <= set(ALL)
    assert len(named) == len(set(named))


@each_request
def test_both_agree_on_whether_another_request_may_follow(name: str) -> None:
    mine, other = ours([ALL[name]]), theirs(ALL[name])
    is_explained = any(name in names for names in ENDS.values())
    assert (mine.keeps == other.keeps[: len(mine.keeps)]) is not is_explained


@pytest.mark.parametrize("name", CLOSE_WINS)
def test_close_wins_over_keep_alive_on_http_1_0_too(name: str) -> None:
    assert ours([ALL[name]]).keeps == [False]


# -- what others say of these requests ----------------------------------------------------------


@pytest.mark.parametrize("name", READ, ids=[name[:40] for name in READ])
def test_what_others_hold_to_be_right_is_read(name: str) -> None:
    mine = ours([READ[name]])
    assert (len(mine.requests), mine.refused) == (1, None)


@pytest.mark.parametrize("name", REFUSED, ids=[name[:40] for name in REFUSED])
def test_what_others_hold_to_be_wrong_is_refused_and_nothing_after_it_is_read(name: str) -> None:
    for pieces in ([REFUSED[name] + AFTER], bytewise(REFUSED[name][:BYTEWISE_BYTES_MAX] + AFTER)):
        mine = ours(pieces)
        assert mine.requests == []
        assert 400 <= mine.status <= 505


@pytest.mark.parametrize("name", WAITING)
def test_what_is_not_whole_is_waited_for(name: str) -> None:
    mine = ours([WAITING[name]])
    assert (mine.requests, mine.refused) == ([], None)


# -- where a request ends -----------------------------------------------------------------------


@each_request
def test_a_request_ends_at_the_very_byte_where_h11_says(name: str) -> None:
    raw = ALL[name]
    if len(raw) > BYTEWISE_BYTES_MAX:
        raw = raw[:BYTEWISE_BYTES_MAX]
    stream = BEFORE + raw + AFTER
    mine, other = ours(bytewise(stream)), theirs(stream)
    agree(mine, other)
    assert mine.requests[0] == READ_BEFORE
    assert mine.ends == other.ends[: len(mine.ends)]
    assert mine.requests == ours([stream]).requests


def test_after_every_request_that_is_read_the_next_one_is_read_as_itself() -> None:
    followed = 0
    for raw in ALL.values():
        mine = ours([raw + AFTER])
        if mine.requests and mine.keeps[0] and mine.refused is None:
            assert mine.requests[1:] == [READ_AFTER]
            followed += 1
    assert followed > 80


def test_all_good_requests_in_one_stream_are_read_as_each_alone() -> None:
    alone = [(raw, reading) for raw in READ.values() if (reading := ours([raw])).keeps == [True]]
    stream = b"".join(raw for raw, _ in alone)
    mine = ours([stream])
    assert mine.refused is None
    assert mine.requests == [reading.requests[0] for _, reading in alone]
    agree(mine, theirs(stream))


SPACED: Final = [b"POST  /v1/track HTTP/1.1\r\n", b"POST /v1/track  HTTP/1.1\r\n"]


@pytest.mark.parametrize("line", SPACED)
def test_a_request_line_after_a_length_is_judged_by_itself(line: bytes) -> None:
    bad = line + AFTER.partition(b"\r\n")[2]
    assert ours([BEFORE + bad + AFTER]).requests == [READ_BEFORE]


@pytest.mark.parametrize("line", SPACED)
def test_a_request_line_after_chunks_is_judged_by_itself(line: bytes) -> None:
    bad = line + AFTER.partition(b"\r\n")[2]
    chunked = post_chunked(encoded(event("before")), "/v1/track?first")
    assert ours([chunked + bad + AFTER]).requests == [READ_BEFORE]


# -- mutations ----------------------------------------------------------------------------------

_GZIPPED: Final = gzip.compress(BODY, mtime=0)
_SOUND: Final = [
    post(BODY, "/v1/track?q"),
    post(BODY, version="1.0", headers=["Connection: keep-alive"]),
    post(BODY, headers=["Connection: close", "X-A: b"]),
    post(_GZIPPED, headers=["Content-Encoding: gzip"]),
    post(ZSTD_BODY, headers=["Content-Encoding: zstd"]),
    post_chunked(BODY, size=50),
    post_chunked(BODY, "/v1/bulk-track", size=90, trailers=["X-A: b"]),
    head("POST /v1/track HTTP/1.1", ["Transfer-Encoding: chunked", "X-A: b"])
    + b"1;a=b\r\n{\r\n"
    + chunks(BODY),
    head("GET /healthz HTTP/1.1", auth=False),
    head("HEAD /readyz?a HTTP/1.1", ["Content-Length: 0"], auth=False),
]
_PUT: Final = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b"\r\n ",
        b"\r\n\t",
        b"\x00",
        b" ",
        b"\t",
        b"\x0b",
        b"\x80",
        b"\xff",
    ),
    *(b":", b",", b";", b'"', b"=", b"/", b"?", b"#", b"%", b"*", b"+", b"-", b"0", b"1", b"9", b"a", b"G"),
    *(
        b"0x",
        b"chunked",
        b"identity",
        b"gzip",
        b"deflate",
        b"zstd",
        b"close",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"HTTP/2.0",
        b"GET ",
        b"POST ",
    ),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n"),
    *(b"Connection: close\r\n", b"X: a\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"GET /healthz HTTP/1.1\r\n"),
]
_changes: Final = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(_PUT) | st.binary(max_size=2) | st.just(b""),
        st.integers(0, 4),
    ),
    min_size=1,
    max_size=3,
)


def changed(raw: bytes, changes: list[tuple[float, bytes, int]]) -> bytes:
    """`raw` with bytes put in and taken out; most of the places are in its head."""
    for place, put, taken in changes:
        at = int(place * place * (len(raw) + 1))
        raw = raw[:at] + put + raw[at + taken :]
    return raw


MUTATIONS: Final = settings(deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.too_slow])


@MUTATIONS
@given(st.sampled_from(_SOUND), _changes)
def test_whatever_of_a_changed_request_ingestd_reads_h11_reads_alike(
    sound: bytes, changes: list[tuple[float, bytes, int]]
) -> None:
    stream = BEFORE + changed(sound, changes) + AFTER
    agree(ours([stream]), theirs(stream))


@MUTATIONS
@given(st.sampled_from(_SOUND), _changes)
def test_whatever_of_a_changed_request_is_read_byte_by_byte_ends_where_h11_says(
    sound: bytes, changes: list[tuple[float, bytes, int]]
) -> None:
    stream = changed(sound, changes) + AFTER
    mine, other = ours(bytewise(stream)), theirs(stream)
    agree(mine, other)
    assert mine.ends == other.ends[: len(mine.ends)]


def test_the_changes_leave_many_requests_readable_and_refuse_many() -> None:
    places = [i / 40 for i in range(40)]
    streams = [
        changed(sound, [(place, put, 0)])
        for sound, place, put in itertools.product(_SOUND, places, _PUT[::5])
    ]
    read = sum(bool(ours([stream]).requests) for stream in streams)
    assert len(streams) // 10 < read < len(streams) * 9 // 10
