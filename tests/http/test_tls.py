"""Requests, handshakes and ends over TLS, by the real layer and OpenSSL as the client."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import certificates
from tests.support.requests import bytewise, encoded, event, head, post
from tests.support.tls import MIB, Contexts, TlsWire
from tests.support.wire import Site, parse_answers


@pytest.fixture(name="contexts", scope="module")
def _contexts(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    return Contexts(certificates.make(tmp_path_factory.mktemp("tls")))


def test_a_request_is_answered_and_http_1_1_agreed_on(contexts: Contexts) -> None:
    wire = TlsWire(contexts)
    assert (wire.tls.version(), wire.tls.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
    wire.feed(post(encoded(event())) * 2)
    wire.site.commit()
    assert [answer.status for answer in wire.answers()] == [200, 200]
    assert len(wire.site.stored) == 2
    assert not wire.has_end


def test_every_byte_may_come_alone(contexts: Contexts) -> None:
    wire = TlsWire(contexts, shakes=False)
    while True:
        try:
            wire.tls.do_handshake()
        except ssl.SSLWantReadError:
            wire.deliver(bytewise(wire.pending()))
        else:
            break
    wire.tls.write(post(encoded(event())))
    wire.deliver(bytewise(wire.pending()))
    wire.site.commit()
    assert [answer.status for answer in wire.answers()] == [200]


def test_a_request_that_comes_with_the_last_of_the_handshake_is_read(contexts: Contexts) -> None:
    wire = TlsWire(contexts, shakes=False)
    with pytest.raises(ssl.SSLWantReadError):
        wire.tls.do_handshake()
    wire.exchange()
    wire.tls.do_handshake()
    wire.feed(post(encoded(event())))
    wire.site.commit()
    assert [answer.status for answer in wire.answers()] == [200]


def test_large_bodies_and_answers_pass(contexts: Contexts) -> None:
    wire = TlsWire(contexts)
    events = [event(f"m-{n:06}", properties={"pad": "x" * 100}) for n in range(20_000)]
    wire.feed(post(encoded(events), "/v1/bulk-track"), pieces=200_000)
    wire.site.commit()
    [answer] = wire.answers()
    assert (answer.status, len(answer.json["messageIds"])) == (200, 20_000)


# -- handshakes ------------------------------------------------------------------------------


def test_a_handshake_that_is_not_finished_counts_as_a_connection_until_its_deadline(
    contexts: Contexts,
) -> None:
    site = Site(tls_handshake_timeout_s=5)
    silent = TlsWire(contexts, site, shakes=False)
    begun = TlsWire(contexts, site, shakes=False)
    with pytest.raises(ssl.SSLWantReadError):
        begun.tls.do_handshake()
    begun.deliver(bytewise(begun.pending())[:-1])
    done = TlsWire(contexts, site)
    assert len(site.hub.connections) == 3
    site.tick(4.9)
    assert not silent.is_closed()
    assert not begun.is_closed()
    site.tick(0.2)
    assert silent.is_closed()
    assert begun.is_closed()
    assert not done.is_closed()
    assert len(site.hub.connections) == 1


def test_a_connection_too_many_is_closed_before_it_costs_a_handshake(contexts: Contexts) -> None:
    site = Site(connections_max=2)
    kept = [TlsWire(contexts, site), TlsWire(contexts, site, shakes=False)]
    third = TlsWire(contexts, site, shakes=False)
    assert third.is_closed()
    assert third.raw.received == b""
    kept[1].shake()
    for wire in kept:
        wire.feed(head("GET /healthz HTTP/1.1"))
        assert [answer.status for answer in wire.answers()] == [200]
        wire.vanish()
    assert len(site.hub.connections) == 0


def test_plain_http_is_answered_in_plain_words(contexts: Contexts, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    wire = TlsWire(contexts, shakes=False)
    wire.deliver([post(encoded(event()))])
    [answer] = parse_answers(bytes(wire.raw.received))
    assert (answer.status, answer.code) == (400, "tls_required")
    assert wire.is_closed()
    assert not wire.raw.aborted
    assert [vars(record)["fields"]["why"] for record in caplog.records] == ["http request"]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=300), max_size=4))
def test_whatever_is_no_handshake_ends_the_connection_and_nothing_else(
    contexts: Contexts, pieces: list[bytes]
) -> None:
    site = Site()
    wire = TlsWire(contexts, site, shakes=False)
    wire.deliver(pieces)
    site.tick(11)
    assert wire.is_closed()
    assert len(site.hub.connections) == 0


def test_a_client_that_leaves_in_its_handshake_leaves_nothing(contexts: Contexts) -> None:
    site = Site()
    wire = TlsWire(contexts, site, shakes=False)
    assert wire.server.eof_received() is False
    wire.vanish()
    assert len(site.hub.connections) == 0


def test_a_stop_gives_a_handshake_a_second(contexts: Contexts) -> None:
    site = Site()
    silent, asking = (TlsWire(contexts, site, shakes=False) for _ in range(2))
    site.drain()
    asking.shake()
    asking.feed(post(encoded(event())))
    site.commit()
    assert [answer.headers["Connection"] for answer in asking.answers()] == ["close"]
    site.tick(1)
    assert silent.is_closed()


def test_a_client_that_does_not_trust_the_certificate_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made, other = (certificates.make(tmp_path, name) for name in ("made", "other"))
    wire = TlsWire(Contexts(made, trusted=other), shakes=False)
    with pytest.raises(ssl.SSLCertVerificationError):
        wire.shake()
    wire.exchange()
    assert wire.is_closed()
    [record] = caplog.records
    assert "alert" in vars(record)["fields"]["why"]


def test_each_connection_has_the_certificate_of_its_time(tmp_path: Path) -> None:
    used = Contexts(certificates.make(tmp_path, "first"))
    before = TlsWire(used)
    used.server, used.client = vars(Contexts(certificates.make(tmp_path, "second"))).values()
    after = TlsWire(used)
    for wire in (before, after):
        wire.feed(head("GET /healthz HTTP/1.1"))
        assert [answer.status for answer in wire.answers()] == [200]


# -- ends ------------------------------------------------------------------------------------


def test_a_client_that_is_still_sending_gets_to_read_the_error(contexts: Contexts) -> None:
    """The words of TLS that no more will come are said, and what comes is thrown away, within bounds."""
    wire = TlsWire(contexts)
    wire.feed(head("POST /v1/track HTTP/1.1", [f"Content-Length: {1 << 40}"]))
    assert [answer.status for answer in wire.answers()] == [413]
    assert wire.has_end
    assert wire.raw.eof_written
    for _ in range(9):
        wire.feed(b"x" * MIB)
    assert not wire.is_closed()
    for _ in range(2):
        wire.feed(b"x" * MIB)
    assert wire.is_closed()
    assert not wire.raw.aborted


def test_a_client_that_lingers_after_its_last_answer_is_not_waited_for(contexts: Contexts) -> None:
    wire = TlsWire(contexts)
    wire.feed(post(b"x"))
    assert [answer.status for answer in wire.answers()] == [400]
    assert not wire.is_closed()
    wire.site.tick(6)
    assert wire.is_closed()
    assert wire.site.hub.connections == set()


def test_a_client_that_has_said_its_last_still_gets_its_answers(contexts: Contexts) -> None:
    wire = TlsWire(contexts)
    wire.feed(post(encoded(event())))
    with pytest.raises(ssl.SSLWantReadError):
        wire.tls.unwrap()
    wire.exchange()
    assert not wire.is_closed()
    wire.site.commit()
    assert [answer.status for answer in wire.answers()] == [200]
    assert wire.has_end
    assert wire.is_closed()


@pytest.mark.parametrize("way", ["tls", "tcp", "both"])
def test_an_idle_connection_ends_with_its_client(contexts: Contexts, way: str) -> None:
    wire = TlsWire(contexts)
    if way != "tcp":
        with pytest.raises(ssl.SSLWantReadError):
            wire.tls.unwrap()
        wire.exchange()
    if way != "tls":
        wire.server.eof_received()
    assert wire.is_closed()


def test_a_truncated_request_is_not_stored(contexts: Contexts) -> None:
    wire = TlsWire(contexts)
    wire.feed(post(encoded(event()))[:-3])
    wire.server.eof_received()
    wire.site.commit()
    assert wire.is_closed()
    assert wire.site.stored == []


def test_answers_that_are_not_read_pause_the_reading(contexts: Contexts) -> None:
    site = Site()
    wire = TlsWire(contexts, site)
    wire.raw.client_reads = False
    for _ in range(40):
        wire.feed(post(encoded([event(f"{n:0100}") for n in range(100)]), "/v1/bulk-track"))
        site.commit()
    assert not wire.raw.is_reading()
    wire.raw.read_on()
    wire.settle()
    site.commit()
    assert [answer.status for answer in wire.answers()] == [200] * 40


def test_a_client_that_never_reads_is_given_up(contexts: Contexts) -> None:
    site = Site(write_timeout_s=5)
    wire = TlsWire(contexts, site)
    wire.raw.client_reads = False
    for _ in range(40):
        wire.feed(post(encoded([event(f"{n:0100}") for n in range(100)]), "/v1/bulk-track"))
        site.commit()
    site.tick(6)
    assert wire.raw.aborted
    assert wire.is_closed()


# -- tampering -------------------------------------------------------------------------------


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(1, 255), st.integers(1, 400))
def test_a_byte_that_was_changed_on_the_way_ends_the_connection(
    contexts: Contexts, at: int, change: int, size: int
) -> None:
    """What came whole before it may count; nothing of the record that it is in does."""
    wire = TlsWire(contexts)
    wire.tls.write(post(encoded(event("first"))))
    first = wire.pending()
    wire.tls.write(post(encoded(event("second"))))
    sent = bytearray(first + wire.pending())
    at = len(first) + at % (len(sent) - len(first))
    sent[at] ^= change
    wire.deliver([bytes(sent[i : i + size]) for i in range(0, len(sent), size)])
    wire.site.commit()
    # If it is the length that was changed, the record may not be at its end yet.
    wire.site.tick(100)
    assert wire.is_closed()
    assert [stored["messageId"] for stored in wire.site.stored] in ([], ["first"])
