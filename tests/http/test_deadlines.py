"""Deadlines are absolute: whatever trickles in resets none, and only a test moves this clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.requests import chunks, encoded, event, head, post
from tests.support.wire import Site, Wire

HEADER_S, REQUEST_S, IDLE_S, WRITE_S = 10.0, 60.0, 75.0, 30.0
DRAIN_S_MAX = 30.0
"""How long a connection may take to end after its last answer; the exact time is the server's own."""

REQUEST = post(encoded(event("m")))


def trickle(wire: Wire, data: bytes, seconds: float, step: float = 0.5) -> None:
    """Send `data` byte by byte, evenly over this time."""
    sent = 0
    steps = round(seconds / step)
    for i in range(1, steps + 1):
        upto = len(data) * i // steps
        wire.feed(data[sent:upto])
        sent = upto
        wire.site.tick(step)


def statuses(wire: Wire) -> list[int]:
    """The statuses that the client has seen."""
    return [answer.status for answer in wire.answers()]


# -- the head of a request --------------------------------------------------------------------


def test_a_head_that_does_not_end_in_time_is_408() -> None:
    wire = Wire()
    wire.feed(b"POST /v1/track HTTP/1.1\r\n")
    wire.site.tick(HEADER_S - 0.1)
    assert statuses(wire) == []
    wire.site.tick(0.2)
    assert (wire.answer().status, wire.answer().code) == (408, "request_timeout")
    assert wire.answer().headers["Connection"] == "close"
    assert wire.is_ended()


def test_a_trickled_byte_resets_no_deadline_of_a_head() -> None:
    wire = Wire()
    trickle(wire, b"POST /v1/track HTTP/1.1\r\nHost: a\r\nX: ", HEADER_S - 0.5)
    assert statuses(wire) == []
    trickle(wire, b"xxxx", 2.0)
    assert statuses(wire) == [408]


def test_each_request_of_a_connection_has_a_deadline_of_its_own() -> None:
    wire = Wire()
    for _ in range(3):
        trickle(wire, REQUEST[:40], HEADER_S - 1)
        wire.feed(REQUEST[40:])
        wire.site.commit()
    assert statuses(wire) == [200] * 3
    trickle(wire, REQUEST[:40], HEADER_S + 1)
    assert statuses(wire) == [200] * 3 + [408]


def test_a_head_begun_while_an_answer_is_due_has_its_deadline_from_its_first_byte() -> None:
    wire = Wire()
    wire.feed(REQUEST + REQUEST[:30])
    trickle(wire, REQUEST[30:40], HEADER_S - 1)
    wire.site.commit()
    trickle(wire, REQUEST[40:50], 2.0)
    assert statuses(wire) == [200, 408]


def test_a_timeout_is_answered_after_the_answers_before_it() -> None:
    wire = Wire()
    wire.feed(REQUEST + REQUEST[:30])
    wire.site.tick(HEADER_S + 1)
    assert statuses(wire) == []
    wire.site.commit()
    assert statuses(wire) == [200, 408]
    assert wire.is_ended()


def test_a_new_connection_that_says_nothing_is_closed_without_an_answer() -> None:
    for data in (b"", b"\r\n", b"\r\n\r\n\r\n"):
        wire = Wire()
        wire.feed(data)
        wire.site.tick(IDLE_S + 0.1)
        assert wire.is_closed()
        assert statuses(wire) == []


# -- the whole request ------------------------------------------------------------------------


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_that_does_not_end_in_time_is_408(is_chunked: bool) -> None:
    body = encoded(event("m", properties={"pad": "x" * 500}))
    lines = ["Transfer-Encoding: chunked"] if is_chunked else [f"Content-Length: {len(body)}"]
    coded = chunks(body, 1) if is_chunked else body
    wire = Wire()
    wire.feed(head("POST /v1/track HTTP/1.1", lines))
    trickle(wire, coded[:-10], REQUEST_S - 1)
    assert statuses(wire) == []
    trickle(wire, coded[-10:-5], 2)
    assert (wire.answer().status, wire.answer().code) == (408, "request_timeout")
    assert wire.site.inflight_bytes == 0


def test_the_time_of_the_head_counts_into_the_time_of_the_request() -> None:
    wire = Wire()
    trickle(wire, REQUEST[:40], HEADER_S - 1)
    wire.feed(REQUEST[40:-1])
    wire.site.tick(REQUEST_S - HEADER_S)
    assert statuses(wire) == []
    wire.site.tick(1.1)
    assert statuses(wire) == [408]


def test_a_body_that_ends_just_in_time_is_taken() -> None:
    wire = Wire()
    wire.feed(REQUEST[:-1])
    wire.site.tick(REQUEST_S - 0.1)
    wire.feed(REQUEST[-1:])
    wire.site.commit()
    assert statuses(wire) == [200]


def test_a_slow_disk_is_never_held_against_the_client() -> None:
    wire = Wire()
    wire.feed(REQUEST)
    for _ in range(100):
        wire.site.tick(IDLE_S)
    wire.site.commit()
    assert statuses(wire) == [200]
    assert not wire.is_ended()


def test_a_slow_disk_is_not_held_against_a_head_that_the_server_has_stopped_reading() -> None:
    wire = Wire(Site(pipeline_max=4))
    wire.feed(REQUEST * 4 + REQUEST[:30])
    wire.feed(REQUEST[30:])
    wire.site.tick(HEADER_S + 1)
    wire.site.commit()
    wire.site.commit()
    assert statuses(wire) == [200] * 5


def test_a_half_closed_client_waits_for_a_slow_disk_whatever_else_it_had_begun() -> None:
    wire = Wire()
    wire.feed(REQUEST + REQUEST[:30])
    wire.half_close()
    wire.site.tick(REQUEST_S)
    wire.site.commit()
    assert statuses(wire) == [200]
    assert wire.is_ended()


# -- between requests -------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"\r\n"])
def test_an_idle_connection_is_closed_in_time_even_if_it_trickles_line_ends(sent: bytes) -> None:
    wire = Wire()
    wire.feed(REQUEST)
    wire.site.commit()
    for _ in range(int(IDLE_S) - 1):
        wire.site.tick(1)
        wire.feed(sent)
    assert not wire.is_closed()
    wire.site.tick(1.1)
    assert wire.is_closed()
    assert statuses(wire) == [200]


def test_the_idle_time_begins_with_the_answer() -> None:
    wire = Wire()
    wire.feed(REQUEST)
    wire.site.tick(IDLE_S - 1)
    wire.site.commit()
    wire.site.tick(IDLE_S - 1)
    wire.feed(REQUEST)
    wire.site.commit()
    assert statuses(wire) == [200, 200]


# -- a client that does not read --------------------------------------------------------------


def unread_answers(site: Site, count: int = 40) -> Wire:
    """A client that sends requests with large answers and reads none of them."""
    wire = Wire(site)
    wire.stop_reading()
    wire.feed(post(encoded([event("x" * 4000)]), "/v1/bulk-track") * count)
    site.commit()
    assert wire.transport.get_write_buffer_size() > 64 * 1024
    return wire


def test_a_client_that_does_not_read_is_not_read_from_and_then_cut_off() -> None:
    site = Site()
    wire = unread_answers(site)
    wire.feed(REQUEST * 10)
    assert site.ring.batches == 0
    site.tick(WRITE_S - 0.1)
    assert not wire.is_closed()
    site.tick(0.2)
    assert wire.transport.aborted
    assert wire.is_closed()
    other = Wire(site)
    other.feed(REQUEST)
    site.commit()
    assert statuses(other) == [200]


def test_a_client_that_reads_again_in_time_is_served_on() -> None:
    wire = unread_answers(Site())
    wire.feed(REQUEST * 10)
    wire.site.tick(WRITE_S - 1)
    wire.read_on()
    wire.site.commit()
    assert statuses(wire) == [200] * 50
    wire.site.tick(WRITE_S)
    assert not wire.is_closed()


def test_not_reading_for_a_while_does_not_extend_the_deadline_of_a_head() -> None:
    site = Site()
    wire = Wire(site)
    wire.stop_reading()
    wire.feed(post(encoded([event("x" * 4000)]), "/v1/bulk-track") * 40 + REQUEST[:30])
    site.commit()
    site.tick(HEADER_S - 1)
    wire.read_on()
    trickle(wire, REQUEST[30:40], 2.0)
    assert statuses(wire) == [200] * 40 + [408]


def test_an_error_that_is_not_read_does_not_hold_the_connection() -> None:
    wire = unread_answers(Site())
    wire.vanish(None)
    wire = Wire()
    wire.stop_reading()
    wire.feed(b"BAD\r\n\r\n")
    wire.site.tick(max(DRAIN_S_MAX, WRITE_S))
    assert wire.is_closed()


def test_a_half_closed_client_that_never_reads_its_answer_is_aborted() -> None:
    """The answer is small, so nothing tells the server that it is not read but a close that never ends."""
    wire = Wire()
    wire.feed(REQUEST)
    wire.half_close()
    wire.stop_reading()
    wire.site.commit()
    assert wire.is_ended()
    wire.site.tick(WRITE_S - 0.1)
    assert not wire.is_closed()
    wire.site.tick(0.2)
    assert wire.transport.aborted
    assert wire.is_closed()
    assert wire.site.hub.connections == set()


# -- after the last answer --------------------------------------------------------------------

LAST: dict[str, Callable[[], bytes]] = {
    "an error": lambda: b"BAD\r\n\r\n",
    "401": lambda: head("POST /v1/track HTTP/1.1", ["Content-Length: 10000000"], auth=False),
    "413": lambda: head("POST /v1/track HTTP/1.1", ["Content-Length: 100000000"]),
    "Connection: close": lambda: post(encoded(event()), headers=["Connection: close"]),
}


@pytest.mark.parametrize("last", LAST.values(), ids=LAST)
def test_after_the_last_answer_the_client_has_time_to_read_it_and_no_more(last: Callable[[], bytes]) -> None:
    wire = Wire()
    wire.feed(last())
    wire.site.commit()
    assert wire.is_ended()
    assert not wire.is_closed()
    for _ in range(int(DRAIN_S_MAX)):
        wire.site.tick(1)
        wire.feed(b"x")
    assert wire.is_closed()
    assert len(wire.answers()) == 1


@pytest.mark.parametrize("last", LAST.values(), ids=LAST)
def test_after_the_last_answer_only_so_many_bytes_are_read(last: Callable[[], bytes]) -> None:
    wire = Wire(Site(body_bytes_max=100_000))
    wire.feed(last())
    wire.site.commit()
    fed = 0
    while not wire.is_closed():
        assert fed <= 200_000
        wire.feed(bytes(10_000))
        fed += 10_000
    assert fed >= 50_000
    assert len(wire.answers()) == 1


def test_a_flood_behind_a_refusal_waits_in_the_kernel_until_what_is_owed_is_sent() -> None:
    wire = Wire(Site(body_bytes_max=100_000))
    wire.feed(REQUEST + b"BAD\r\n\r\n")
    for _ in range(10):
        wire.feed(bytes(10_000))
        assert wire.transport.is_reading()
    wire.feed(bytes(10_000))
    assert not wire.transport.is_reading()
    assert not wire.is_closed()
    wire.site.commit()
    assert [answer.status for answer in wire.answers()] == [200, 400]
    assert wire.transport.is_reading()
    assert not wire.is_closed()
    for _ in range(11):
        wire.feed(bytes(10_000))
    assert wire.is_closed()


@pytest.mark.parametrize("last", LAST.values(), ids=LAST)
def test_a_client_that_closes_after_the_last_answer_is_closed_at_once(last: Callable[[], bytes]) -> None:
    wire = Wire()
    wire.feed(last())
    wire.site.commit()
    wire.half_close()
    assert wire.is_closed()
