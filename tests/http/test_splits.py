"""However a client's bytes are cut and whenever commits happen, the answers are the same."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.http.guard_cases import CASES
from tests.support.requests import cut, encoded, event, head, post, post_chunked
from tests.support.wire import Site, Wire


def _in_two(pack: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda body: pack(body[: len(body) // 2]) + pack(body[len(body) // 2 :])


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": _in_two(gzip.compress),
    "deflate": zlib.compress,
    "zstd": _in_two(zstandard.compress),
}

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""How fast examples are made says nothing on a noisy machine."""

_text = st.text(max_size=30)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=6,
)
_events = st.builds(
    lambda name, properties, message_id: event(message_id, event=name, properties=properties),
    _text,
    st.dictionaries(_text, _values, max_size=4),
    st.text(min_size=1, max_size=20),
)
_single = st.tuples(st.just("/v1/track"), _events.map(encoded))
_bulk = st.tuples(st.just("/v1/bulk-track"), st.lists(_events, min_size=1, max_size=5).map(encoded))
_invalid = st.tuples(
    st.sampled_from(["/v1/track", "/v1/bulk-track"]), st.sampled_from([b"", b"{}", b"[]", b"nul"])
)
_headers = st.lists(
    st.tuples(st.sampled_from(["X-A", "x-b", "User-Agent", "Accept"]), st.text("abc =;,", max_size=30)).map(
        lambda pair: f"{pair[0]}: {pair[1].strip()}"
    ),
    max_size=5,
)


@st.composite
def post_requests(draw: st.DrawFn) -> tuple[str, bytes]:
    """A POST in one of the codings; most of them are accepted."""
    target, body = draw(_single | _bulk if draw(st.integers(0, 9)) else _invalid)
    headers = draw(_headers)
    name = draw(st.sampled_from([None, *PACKERS]))
    if name is not None:
        body = PACKERS[name](body)
        headers = [*headers, f"Content-Encoding: {name}"]
    if draw(st.booleans()):
        trailers = draw(st.lists(st.just("X-Trailer: 1"), max_size=2))
        size = draw(st.integers(1, 60))
        return "POST", post_chunked(body, target, headers, size=size, trailers=trailers)
    if draw(st.booleans()):
        headers = [*headers, "Expect: 100-continue"]
    return "POST", post(body, target, headers)


_probes = st.tuples(st.sampled_from(["GET", "HEAD"]), st.sampled_from(["/healthz", "/readyz?x=1"])).map(
    lambda probe: (probe[0], head(f"{probe[0]} {probe[1]} HTTP/1.1"))
)
_pipelines = st.lists(post_requests() | post_requests() | _probes, min_size=1, max_size=8)
_cuts = st.lists(st.integers(0, 1 << 16), max_size=30)


def outcome(pieces: Sequence[bytes], methods: list[str], commits: Sequence[bool] = ()) -> Any:
    """Answers without their Date, and stored lines without their time."""
    site = Site()
    wire = Wire(site)
    for i, piece in enumerate(pieces):
        wire.feed(piece)
        if i < len(commits) and commits[i]:
            site.commit(bytes_max=1)
    site.commit()
    answers = wire.answers(methods)
    assert site.inflight_bytes == 0 or not wire.is_ended()
    lines = [line | {"receivedAt": None} for line in site.stored]
    for answer in answers:
        del answer.headers["Date"]
    return [(a.status, a.headers.items(), a.body) for a in answers], lines, wire.is_ended()


@settings(UNHURRIED, max_examples=150)
@given(_pipelines, _cuts, st.lists(st.booleans(), max_size=30))
def test_a_pipeline_in_any_cut_has_the_answers_of_the_whole(
    pipeline: list[tuple[str, bytes]], cuts: list[int], commits: list[bool]
) -> None:
    methods = [method for method, _ in pipeline]
    data = b"".join(request for _, request in pipeline)
    whole = outcome([data], methods)
    statuses = [status for status, *_ in whole[0]]
    assert statuses == [200] * len(pipeline) or statuses == [200] * (len(statuses) - 1) + [400]
    assert outcome(cut(data, [place % len(data) for place in cuts]), methods, commits) == whole


@settings(UNHURRIED, max_examples=100)
@given(_pipelines)
def test_a_pipeline_has_the_answers_of_its_requests_one_at_a_time(pipeline: list[tuple[str, bytes]]) -> None:
    methods = [method for method, _ in pipeline]
    alone = [outcome([request], [method]) for method, request in pipeline]
    answers, lines, is_ended = outcome([b"".join(request for _, request in pipeline)], methods)
    # What is behind an error is not read.
    first = next((i for i, one in enumerate(alone) if one[2]), len(alone))
    assert answers == [one for answers, _, _ in alone[: first + 1] for one in answers]
    assert lines == [one for _, lines, _ in alone[:first] for one in lines]
    assert is_ended is (first < len(alone))


_SEEDS = [case.raw for case in CASES if len(case.raw) < 1000]


@settings(UNHURRIED, max_examples=300)
@given(
    st.lists(st.sampled_from(_SEEDS), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(max_size=3), st.integers(0, 3)), max_size=4),
    _cuts,
)
def test_damaged_requests_are_answered_alike_in_any_cut_and_never_with_500(
    seeds: list[bytes], damage: list[tuple[int, bytes, int]], cuts: list[int]
) -> None:
    data = b"".join(seeds)
    for place, put, taken in damage:
        at = place % (len(data) + 1)
        data = data[:at] + put + data[at + taken :]
    whole = Wire()
    whole.feed(data)
    whole.site.commit()
    pieced = Wire()
    pieced.feed(data, cut(data, [place % (len(data) + 1) for place in cuts]))
    pieced.site.commit()
    received = [bytes(wire.transport.received) for wire in (whole, pieced)]
    codes = [[part.split(b'"', 1)[0] for part in data.split(b'"code":"')[1:]] for data in received]
    assert codes[0] == codes[1]
    assert b"HTTP/1.1 500" not in received[0] + received[1]
    assert whole.is_ended() is pieced.is_ended()
    assert len(whole.site.lines) == len(pieced.site.lines)
