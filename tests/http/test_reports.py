"""What the log says of requests: which ones, what of them, and what never."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestd.errors import StorageError
from ingestd.service.logs import Lines
from tests.support.requests import SECRET, chunks, encoded, event, head, post, post_chunked
from tests.support.wire import Site, Wire

PEER: Final = "192.0.2.1:5555"


class Told(logging.Handler):
    """Keeps what is said of requests, and every line as it would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[dict[str, Any]] = []
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += [Lines("text").format(record), Lines("json").format(record)]
        if record.name == "ingestd.request":
            fields = {name: value for name, value in vars(record)["fields"].items() if value is not None}
            self.records.append({"level": record.levelname, "message": record.getMessage(), **fields})

    def one(self) -> dict[str, Any]:
        [record] = self.records
        return record


@pytest.fixture(name="told")
def _told() -> Iterator[Told]:
    told, root = Told(), logging.getLogger()
    before = root.level
    root.addHandler(told)
    root.setLevel(logging.DEBUG)
    yield told
    root.removeHandler(told)
    root.setLevel(before)


def feed(site: Site, data: bytes) -> Wire:
    """A connection that has sent this and has gone."""
    wire = Wire(site)
    wire.feed(data)
    site.commit()
    wire.vanish(None)
    return wire


# -- refused requests ------------------------------------------------------------------------


def test_a_refused_request_is_told_of_with_what_is_known_of_it(told: Told) -> None:
    feed(Site(), post(encoded(event(timestamp=5))))
    assert told.one() == {
        "level": "INFO", "message": "refused", "method": "POST", "route": "/v1/track", "status": 400,
        "code": "invalid_event", "detail": "$.timestamp: expected an RFC 3339 date-time, got `int`",
        "key": "web", "peer": PEER,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (head("POST /v1/track HTTP/1.1", ["Content-Length: 2"], auth=False),
         {"method": "POST", "route": "/v1/track", "status": 401, "code": "unauthorized"}),
        (head("GET /v1/secret?of=mine HTTP/1.1"), {"method": "GET", "route": "other", "status": 404}),
        (head("DELETE /v1/track?x=mine HTTP/1.1"), {"method": "DELETE", "route": "/v1/track", "status": 405}),
        (head("POST /v1/track HTTP/1.1", [f"Content-Length: {1 << 40}"]),
         {"method": "POST", "route": "/v1/track", "status": 413, "key": "web"}),
        (head("POST /v1/track HTTP/1.1", host=False), {"method": "POST", "code": "missing_host"}),
        (b"nonsense\r\n\r\n", {"route": "other", "status": 400, "code": "bad_request"}),
        (post(b"{}" * 9000, headers=["Content-Encoding: gzip"]), {"code": "invalid_gzip", "key": "web"}),
        (post_chunked(b"[[]]", "/v1/bulk-track"), {"route": "/v1/bulk-track", "code": "invalid_event"}),
    ],
)  # fmt: skip
def test_each_way_of_refusing_is_told_of(told: Told, request_: bytes, said: dict[str, Any]) -> None:
    feed(Site(), request_)
    record = told.one()
    assert said.items() <= record.items()
    assert record["peer"] == PEER
    assert ("key" in record) is ("key" in said or "/v1/bulk-track" in said.values())


def test_a_timeout_tells_whose_request_it_was(told: Told) -> None:
    wire = Wire()
    wire.feed(post(encoded(event()))[:-5])
    wire.site.tick(61)
    assert {"status": 408, "key": "web", "route": "/v1/track"}.items() <= told.one().items()


def test_a_request_without_a_key_is_not_told_of_with_the_key_of_the_one_before(told: Told) -> None:
    feed(Site(), post(encoded(event())) + head("POST /v1/track HTTP/1.1", ["Content-Length: 2"], auth=False))
    assert "key" not in told.one()


def test_one_that_repeats_a_head_is_told_of_like_the_first(told: Told) -> None:
    good, bad = post(encoded(event())), post(encoded(event(event=7)))
    feed(Site(), good * 3 + bad)
    assert {"method": "POST", "route": "/v1/track", "key": "web"}.items() <= told.one().items()


def test_what_the_server_is_to_blame_for_is_a_warning(told: Told) -> None:
    site = Site(not_ready=lambda: "storage fails")
    feed(site, head("GET /readyz HTTP/1.1", auth=False))
    wire = Wire(site)
    wire.feed(post(encoded(event())))
    site.commit(StorageError("no space left"))
    levels = [(record["level"], record["status"], record["code"]) for record in told.records]
    assert levels == [("WARNING", 503, "not_ready"), ("WARNING", 500, "storage_failed")]


def test_a_connection_too_many_is_told_of(told: Told) -> None:
    site = Site(connections_max=1)
    first, second = Wire(site), Wire(site)
    assert (told.one()["status"], told.one()["peer"]) == (503, PEER)
    for wire in (first, second):
        wire.vanish(None)


def test_what_is_sent_after_the_last_answer_is_not_told_of(told: Told) -> None:
    feed(Site(), post(b"x") * 5)
    assert len(told.records) == 1


# -- the rate --------------------------------------------------------------------------------


def test_so_many_are_told_of_in_a_second_and_the_others_counted(told: Told) -> None:
    site = Site(error_log_per_s=3)
    for _ in range(20):
        feed(site, post(b"x"))
    feed(site, head("GET /nothing HTTP/1.1"))
    assert [record["code"] for record in told.records] == ["invalid_json"] * 3 + ["not_found"]
    told.records.clear()
    site.tick(0.5)
    assert told.records == []
    site.tick(0.5)
    assert told.one() == {"level": "INFO", "message": "17 more were refused", "invalid_json": 17}
    feed(site, post(b"x"))
    assert len(told.records) == 2


def test_none_at_all_if_that_is_asked_for(told: Told) -> None:
    site = Site(error_log_per_s=0)
    feed(site, post(b"x"))
    site.tick(2)
    assert told.records == []


def test_what_the_level_hides_is_not_counted_either(told: Told) -> None:
    logging.getLogger().setLevel(logging.WARNING)
    site = Site(error_log_per_s=1, not_ready=lambda: "storage fails")
    for _ in range(3):
        feed(site, post(b"x"))
    feed(site, head("GET /readyz HTTP/1.1", auth=False))
    site.tick(2)
    assert told.one()["status"] == 503


# -- the log of requests ---------------------------------------------------------------------


def test_by_default_what_is_answered_200_is_not_told_of(told: Told) -> None:
    feed(Site(), post(encoded(event())) * 3 + head("GET /healthz HTTP/1.1"))
    assert told.records == []


def test_if_asked_for_each_request_is_told_of_once(told: Told) -> None:
    site, small, both = Site(request_log=True), encoded(event()), encoded([event("a"), event("b")])
    feed(
        site,
        post(small) * 3
        + post(both, "/v1/bulk-track?x=1")
        + post(gzip.compress(small), headers=["Content-Encoding: gzip"])
        + head("POST /v1/track HTTP/1.1", ["Transfer-Encoding: chunked"])
        + chunks(small)
        + head("HEAD /healthz HTTP/1.1")
        + post(b"{}"),
    )
    durations = [record.pop("duration_ms") for record in told.records]
    assert all(duration >= 0 for duration in durations)
    base = {"level": "INFO", "message": "answered", "status": 200, "peer": PEER}
    track = {"method": "POST", "route": "/v1/track", "bytes": len(small), "events": 1, "key": "web"}
    bulk = {"route": "/v1/bulk-track", "bytes": len(both), "events": 2}
    page = {"method": "HEAD", "route": "/healthz", "bytes": 0}
    refused = {"message": "refused", "status": 400, "code": "invalid_event", "bytes": 2}
    [detail] = [record.pop("detail") for record in told.records if "detail" in record]
    assert detail.startswith("$: ")
    key = ("level", "message", "status", "route", "bytes")
    assert sorted(told.records, key=lambda record: [str(record[name]) for name in key]) == sorted(
        [base | track] * 5 + [base | track | bulk, base | page]
        + [{**base, "method": "POST", "route": "/v1/track", "key": "web", **refused}],
        key=lambda record: [str(record[name]) for name in key],
    )  # fmt: skip


@pytest.mark.parametrize("ack", ["fsync", "memory"])
def test_a_full_round_and_a_large_body_are_told_of_one_by_one(told: Told, ack: str) -> None:
    site = Site(request_log=True, ack=ack)
    many = encoded([event(f"m-{n}", properties={"pad": "x" * 1000}) for n in range(700)])
    with site.one_round():
        wires = [Wire(site) for _ in range(20)]
        for wire in wires:
            wire.feed(post(encoded(event())) * 40)
    site.commit()
    feed(site, post(many, "/v1/bulk-track"))
    assert [record["events"] for record in told.records] == [1] * 800 + [700]
    assert told.records[-1]["bytes"] == len(many)


def test_each_refused_request_is_told_of_past_the_rate_if_every_request_is(told: Told) -> None:
    site = Site(request_log=True, error_log_per_s=1)
    for _ in range(20):
        feed(site, post(b"x"))
    assert len(told.records) == 20


# -- peers behind proxies --------------------------------------------------------------------


def test_whom_a_proxy_speaks_for_is_told_only_if_the_proxy_is_trusted(told: Told) -> None:
    bad = post(b"x", headers=["X-Forwarded-For: 198.51.100.7"])
    feed(Site(), bad)
    feed(Site(trusted_proxies="10.0.0.0/8"), bad)
    feed(Site(trusted_proxies="192.0.2.0/24"), bad)
    assert [record["peer"] for record in told.records] == [PEER, PEER, "198.51.100.7"]


def test_each_request_of_a_proxy_s_connection_may_be_somebody_else_s(told: Told) -> None:
    def of(address: str) -> bytes:
        return post(encoded(event()), headers=[f"X-Forwarded-For: {address}"])

    feed(
        Site(request_log=True, trusted_proxies="192.0.2.1"),
        of("198.51.100.7") * 2 + of("198.51.100.8") + post(encoded(event())),
    )
    assert [record["peer"] for record in told.records] == ["198.51.100.7"] * 2 + ["198.51.100.8", PEER]


def test_forwarded_headers_change_nothing_else(told: Told) -> None:
    site = Site(trusted_proxies="192.0.2.1")
    wire = Wire(site)
    lines = ["X-Forwarded-For: 198.51.100.7", "Forwarded: for=198.51.100.8", "X-Forwarded-For: 10.0.0.1"]
    wire.feed(post(encoded(event()), headers=lines))
    site.commit()
    assert wire.answer().status == 200
    assert "198.51" not in json.dumps(site.stored)
    assert told.records == []


# -- what is never told ----------------------------------------------------------------------

CANARY: Final = b"cAnArY"
DIGITS: Final = b"73917"
"""In a number a letter would be a mistake of another kind."""
KINDS: Final = (
    CANARY,
    b'"cAnArY"',
    b"cAnArY: cAnArY\r\n",
    b"\r\nX-cAnArY: cAnArY",
    b"%cAnArY=",
    b"\xffcAnArY\xff",
    b"\\ud800cAnArY",
    DIGITS * 9,
    b"1e9" + DIGITS,
    b',"cAnArY":[{"cAnArY":{}}]',
)
BASES: Final = (
    post(encoded(event(properties={"n": 1.5, "deep": [[{}]]})), "/v1/track?a=b"),
    post(encoded([event("a"), event("b", userId="u")]), "/v1/bulk-track", ["X-Forwarded-For: 198.51.100.7"]),
    post_chunked(encoded(event()), size=40, trailers=["X-Last: 1"]),
    head("GET /readyz?x=y HTTP/1.1", ["Forwarded: for=198.51.100.7;by=10.0.0.1", "Cookie: a=b"]),
)


def assert_silent(told: Told, *words: bytes) -> None:
    text = "\n".join(told.lines)
    for word in (SECRET.encode(), *words):
        assert word.decode() not in text, text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", BASES, ids=["track", "bulk", "chunked", "page"])
def test_neither_key_nor_content_is_told_wherever_it_stands(told: Told, base: bytes, kind: bytes) -> None:
    site = Site(request_log=True, trusted_proxies="192.0.2.1")
    for at in range(len(base) + 1):
        feed(site, base[:at] + kind + base[at:])
    assert len(told.records) >= len(base)
    assert_silent(told, CANARY, DIGITS)


@settings(max_examples=200)
@given(st.data())
def test_nothing_of_odd_values_is_told(data: st.DataObject) -> None:
    """The values of an event, each replaced by something that is refused, or is not."""
    word = st.sampled_from(["cAnArY", "cAnArY\n", "\x00cAnArY", "\ud800cAnArY"])
    number = st.sampled_from([int(DIGITS * 9), 73917.5, -73917])
    value = st.recursive(
        word | number | st.none(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(word, inner, max_size=3),
    )
    fields = data.draw(
        st.dictionaries(
            st.sampled_from(["event", "properties", "timestamp", "messageId", "source", "cAnArY"]),
            value,
            max_size=3,
        )
    )
    body = event() | fields
    site, told, root = Site(request_log=True), Told(), logging.getLogger()
    before = root.level
    root.addHandler(told)
    root.setLevel(logging.DEBUG)
    try:
        feed(site, post(encoded(body)))
        feed(site, post(encoded([event(), body]), "/v1/bulk-track"))
    finally:
        root.removeHandler(told)
        root.setLevel(before)
    assert len(told.records) == 2
    assert_silent(told, CANARY, DIGITS)


def test_a_number_that_is_refused_is_quoted_to_the_client_and_not_to_the_log(told: Told) -> None:
    large = json.dumps([event(properties={"n": 1}), event(properties={"n": "N"})]).replace('"N"', "1e73917")
    wire = feed(Site(), post(large.encode(), "/v1/bulk-track"))
    assert "1e73917" in wire.answer().detail
    assert told.one()["detail"] == "$[1]: the number … is beyond 1.7976931348623157e308"


def test_a_bug_tells_nothing_of_the_event_that_it_stumbled_over(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> None:
        raise KeyError(f"cannot take {CANARY.decode()}")

    monkeypatch.setattr("ingestd.events._validated", bug)
    site = Site()
    with pytest.MonkeyPatch.context() as quiet:
        # That it is an error is what the other tests of the wire must not see.
        quiet.setattr("ingestd.http.exchange.log.error", logging.getLogger("ingestd.http").warning)
        feed(site, post(encoded([event()]), "/v1/bulk-track"))
    assert any("KeyError" in line for line in told.lines)
    assert_silent(told, CANARY)
