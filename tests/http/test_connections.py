"""Order and life of answers on a connection: pipelining, keep-alive, shutdown, clients that go away."""

from __future__ import annotations

import gc
import json
import random

import pytest

from ingestd.errors import StorageError
from ingestd.events import Batch
from tests.support.requests import bytewise, encoded, event, head, post
from tests.support.wire import Site, Wire, assert_ended


def numbered(numbers: range) -> bytes:
    """POSTs whose message ids are these numbers, in one pipeline."""
    return b"".join(post(encoded(event(str(i)))) for i in numbers)


def ids(wire: Wire) -> list[str]:
    """The message ids in the answers so far."""
    return [answer.json["messageId"] for answer in wire.answers()]


@pytest.mark.parametrize("commit_bytes", [1, 500, 1 << 30])
def test_pipelined_requests_are_answered_in_order_however_commits_group_them(commit_bytes: int) -> None:
    wire = Wire()
    wire.feed(numbered(range(20)))
    wire.site.commit(bytes_max=commit_bytes)
    assert ids(wire) == [str(i) for i in range(20)]


def test_an_answer_waits_for_those_before_it() -> None:
    wire = Wire()
    for i in range(4):
        wire.feed(numbered(range(i, i + 1)))
    batches = wire.site.take()
    for i in (3, 1, 0, 2):
        wire.site.acknowledge([batches[i]])
        assert ids(wire) == [str(n) for n in range({3: 0, 1: 0, 0: 2, 2: 4}[i])]


def test_answers_that_need_no_commit_wait_for_those_before_them() -> None:
    wire = Wire()
    wire.feed(post(encoded(event("a"))) + head("GET /healthz HTTP/1.1") + post(b"{"))
    assert wire.answers() == []
    assert not wire.is_ended()
    wire.site.commit()
    assert [answer.status for answer in wire.answers()] == [200, 200, 400]
    assert_ended(wire)


def test_an_error_that_ends_the_connection_comes_after_the_answers_before_it() -> None:
    wire = Wire()
    wire.feed(numbered(range(2)) + b"NONSENSE\r\n\r\n")
    assert wire.answers() == []
    assert not wire.is_ended()
    wire.site.commit()
    assert [answer.status for answer in wire.answers()] == [200, 200, 400]
    assert wire.is_ended()


def test_one_failed_commit_touches_only_the_connections_of_its_own_requests() -> None:
    site = Site()
    wires = [Wire(site) for _ in range(3)]
    for i, wire in enumerate(wires):
        wire.feed(numbered(range(i, i + 1)))
    batches = site.take()
    for batch, error in zip(batches, (None, StorageError("once"), None), strict=True):
        site.acknowledge([batch], error)
    for wire in wires:
        wire.feed(numbered(range(3, 4)))
    site.commit()
    assert [[a.status for a in wire.answers()] for wire in wires] == [[200, 200], [500], [200, 200]]
    assert [stored["messageId"] for stored in site.stored] == ["0", "2", "3", "3"]
    assert_ended(wires[1])
    assert not wires[0].is_ended()


def test_connections_are_answered_each_with_its_own() -> None:
    site = Site()
    wires = [Wire(site) for _ in range(5)]
    for i in range(50):
        wires[i % 5].feed(post(encoded(event(str(i)))))
    site.commit(bytes_max=1000)
    for n, wire in enumerate(wires):
        assert ids(wire) == [str(i) for i in range(50) if i % 5 == n]


def test_a_long_pipeline_stops_being_read_until_it_is_answered() -> None:
    wire = Wire(Site(pipeline_max=4))
    for i in range(10):
        wire.feed(post(encoded(event(str(i)))))
    assert wire.site.ring.batches == 4
    while wire.site.ring.batches:
        wire.site.acknowledge(wire.site.take())
    assert ids(wire) == [str(i) for i in range(10)]


# -- keep-alive -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "connection", "is_kept", "said"),
    [
        ("1.1", None, True, None),
        ("1.1", "keep-alive", True, None),
        ("1.1", "close", False, "close"),
        ("1.1", "Close", False, "close"),
        ("1.1", "foo, close", False, "close"),
        ("1.0", None, False, "close"),
        ("1.0", "keep-alive", True, "keep-alive"),
        ("1.0", "Keep-Alive", True, "keep-alive"),
        ("1.0", "close", False, "close"),
    ],
)
@pytest.mark.parametrize("is_probe", [False, True])
def test_a_connection_is_kept_as_the_client_asks(
    version: str, connection: str | None, is_kept: bool, said: str | None, is_probe: bool
) -> None:
    wire = Wire()
    lines = [f"Connection: {connection}"] if connection else []
    if is_probe:
        wire.feed(head(f"GET /healthz HTTP/{version}", lines))
    else:
        wire.feed(post(encoded(event()), headers=lines, version=version))
    wire.site.commit()
    assert wire.answer().headers["Connection"] == said
    assert wire.is_ended() is not is_kept
    wire.feed(numbered(range(1)))
    wire.site.commit()
    assert len(wire.answers()) == 1 + is_kept


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("is_repeat", [False, True])
def test_at_ack_level_memory_a_bulk_request_that_ends_its_connection_is_answered_and_published(
    version: str, is_repeat: bool, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(ack="memory")
    wire = Wire(site)
    if is_repeat:
        wire.feed(post(encoded([event("kept")]), "/v1/bulk-track") * 2)
    wire.feed(
        post(encoded([event("a"), event("b")]), "/v1/bulk-track", ["Connection: close"], version=version)
    )
    last = wire.answers()[-1]
    assert (last.status, last.json["messageIds"]) == (200, ["a", "b"])
    assert last.headers["Connection"] == "close"
    assert wire.is_ended()
    assert not site.ring.is_gathering
    site.commit()
    assert [stored["messageId"] for stored in site.stored] == ["kept"] * 2 * is_repeat + ["a", "b"]
    assert caplog.records == []
    assert site.inflight_bytes == 0
    wire.half_close()
    assert wire.is_closed()


def test_what_follows_connection_close_is_not_a_request() -> None:
    wire = Wire()
    closing = post(encoded(event("last")), headers=["Connection: close"])
    data = closing + numbered(range(3))
    wire.feed(data, bytewise(data))
    wire.site.commit()
    assert ids(wire) == ["last"]
    assert [stored["messageId"] for stored in wire.site.stored] == ["last"]


def test_empty_lines_between_requests_are_passed_over() -> None:
    wire = Wire()
    wire.feed(b"\r\n\r\n" + numbered(range(1)) + b"\r\n" + numbered(range(1, 2)))
    wire.site.commit()
    assert ids(wire) == ["0", "1"]


def test_a_head_that_arrives_with_the_end_of_a_large_body_is_not_too_large() -> None:
    wire = Wire()
    large = post(encoded(event("large", properties={"pad": "x" * 50_000})))
    small = post(encoded(event("small")))
    wire.feed(large + small[:40])
    wire.feed(small[40:])
    wire.site.commit()
    assert ids(wire) == ["large", "small"]


@pytest.mark.parametrize("sent_before", [0, 2])
@pytest.mark.parametrize("begun", [1, 8, 40])
def test_the_body_before_a_head_does_not_count_into_the_head(sent_before: int, begun: int) -> None:
    """A body on one line, longer than a head may be, and in the same read the first bytes of the next."""
    wire = Wire()
    large = post(json.dumps(event("large", pad="x" * 20_000), separators=(",", ":")).encode())
    assert len(large) > wire.site.settings.header_bytes_max
    wire.feed(numbered(range(sent_before)))
    small = post(encoded(event("small")), headers=["X-Other: head"])
    wire.feed(b"", [large + small[:begun], small[begun:]])
    wire.site.commit()
    assert ids(wire) == [*map(str, range(sent_before)), "large", "small"]


# -- clients that go away ---------------------------------------------------------------------


def test_a_client_that_is_gone_before_its_ack_harms_nothing() -> None:
    site = Site()
    gone, other = Wire(site), Wire(site)
    gone.feed(post(encoded(event("gone"))))
    other.feed(post(encoded(event("other"))))
    gone.vanish(ConnectionResetError())
    site.commit()
    assert ids(other) == ["other"]
    assert gone.transport.received == b""
    assert [stored["messageId"] for stored in site.stored] == ["gone", "other"]


def test_a_client_that_is_gone_amid_its_body_gives_the_budget_back() -> None:
    site = Site()
    for data in (post(b"x" * 5000)[:-1], post(b"x" * 5000)[:40], b"", b"P"):
        wire = Wire(site)
        wire.feed(data)
        wire.vanish(ConnectionResetError())
    assert site.inflight_bytes == 0
    assert site.ring.batches == 0


def test_a_half_closed_client_still_gets_its_answers() -> None:
    wire = Wire()
    wire.feed(numbered(range(3)))
    wire.half_close()
    assert not wire.is_closed()
    wire.site.commit()
    assert ids(wire) == ["0", "1", "2"]
    assert wire.is_ended()


@pytest.mark.parametrize("sent", [0, 1, 60, -1])
def test_a_half_closed_client_with_nothing_due_is_closed(sent: int) -> None:
    wire = Wire()
    wire.feed(numbered(range(1))[:sent])
    wire.half_close()
    assert wire.is_closed()
    assert wire.site.ring.batches == 0


# -- shutdown ---------------------------------------------------------------------------------


def test_a_drain_closes_idle_connections_and_answers_the_busy_ones() -> None:
    site = Site()
    idle, waiting, sending = Wire(site), Wire(site), Wire(site)
    idle.feed(post(encoded(event("idle"))))
    site.commit()
    waiting.feed(post(encoded(event("waiting"))))
    request = post(encoded(event("sending")))
    sending.feed(request[:50])
    site.drain()
    assert (idle.is_closed(), waiting.is_ended(), sending.is_ended()) == (True, False, False)
    sending.feed(request[50:])
    site.commit()
    assert (ids(waiting), ids(sending)) == (["waiting"], ["sending"])
    assert (waiting.is_ended(), sending.is_ended()) == (True, True)
    assert sending.answer().headers["Connection"] == "close"


def test_a_connection_that_has_asked_nothing_yet_may_ask_once_while_the_server_drains() -> None:
    """It was made before the stop, and its first request may be on its way."""
    site = Site()
    early, silent = Wire(site), Wire(site)
    site.drain()
    late = Wire(site)
    for number, wire in enumerate((early, late)):
        wire.feed(numbered(range(number, number + 1)))
    site.commit()
    for number, wire in enumerate((early, late)):
        assert ids(wire) == [str(number)]
        assert wire.answer().headers["Connection"] == "close"
        assert wire.is_ended()
    assert not silent.is_closed()
    site.tick(2)
    assert silent.is_closed()
    assert silent.transport.received == b""


def test_a_server_that_drains_is_alive_and_not_ready() -> None:
    for target, status in (("/healthz", 200), ("/readyz", 503)):
        site = Site()
        wire = Wire(site)
        wire.feed(b"G")
        site.drain()
        wire.feed(head(f"GET {target} HTTP/1.1")[1:])
        assert wire.answer("GET").status == status


def test_random_traffic_on_many_connections_is_answered_in_order() -> None:
    rng = random.Random(7)
    site = Site()
    wires = [Wire(site) for _ in range(8)]
    sent: list[list[str]] = [[] for _ in wires]
    for i in range(400):
        n = rng.randrange(8)
        sent[n].append(str(i))
        wires[n].feed(post(encoded(event(str(i)))))
        if rng.random() < 0.1:
            site.acknowledge(site.take(rng.choice([1, 400, 4000])))
    site.commit()
    assert [ids(wire) for wire in wires] == sent


@pytest.mark.parametrize("target", ["/v1/track", "/v1/bulk-track"])
def test_an_answered_batch_is_let_go_without_waiting_for_a_collection(target: str) -> None:
    wire = Wire()
    gc.disable()
    try:
        for i in range(3):
            one = event(f"let go {i}")
            wire.feed(post(encoded(one if target == "/v1/track" else [one]), target))
        wire.site.commit()
        assert [answer.status for answer in wire.answers()] == [200] * 3
        held = [one for one in gc.get_objects() if isinstance(one, Batch) and b"let go" in one.lines]
        assert held == []
    finally:
        gc.enable()
