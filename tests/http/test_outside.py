"""Around the two calls: unknown targets, other methods, the probes, Date and Expect."""

from __future__ import annotations

import json
from datetime import datetime
from email.utils import format_datetime, parsedate_to_datetime

import pytest

from tests.support.requests import bytewise, encoded, event, head, post
from tests.support.wire import Site, Wire, send

GET_HEALTHZ = head("GET /healthz HTTP/1.1", auth=False)


@pytest.mark.parametrize("target", ["/", "/v1", "/v1/", "/v1/track/", "/v2/track", "/v1/Track", "//v1/track"])
def test_an_unknown_target_is_404(target: str) -> None:
    wire = Wire()
    wire.feed(post(encoded(event()), target))
    assert (wire.answer().status, wire.answer().code) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("GET", "/v1/track", "POST"),
        ("PUT", "/v1/bulk-track", "POST"),
        ("OPTIONS", "/v1/track", "POST"),
        ("DELETE", "/v1/track", "POST"),
        ("HEAD", "/v1/track", "POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("POST", "/readyz", "GET, HEAD"),
    ],
)
def test_a_method_that_a_target_does_not_have_is_405(method: str, target: str, allow: str) -> None:
    wire = Wire()
    wire.feed(head(f"{method} {target} HTTP/1.1"))
    answer = wire.answer(method)
    assert answer.status == 405
    assert answer.headers["Allow"] == allow
    assert (answer.body == b"") is (method == "HEAD")


def test_get_and_head_of_the_probes_have_the_same_head() -> None:
    for target in ("/healthz", "/readyz"):
        wire = Wire()
        wire.feed(head(f"GET {target} HTTP/1.1", auth=False) + head(f"HEAD {target} HTTP/1.1", auth=False))
        got, headed = wire.answers(["GET", "HEAD"])
        assert (got.status, got.json) == (200, {"status": "ok"})
        assert (headed.status, headed.body) == (200, b"")
        assert headed.headers.items() == got.headers.items()
        assert got.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_readyz_is_503_with_the_reason_while_storage_fails(method: str) -> None:
    wire = Wire(Site(not_ready=lambda: "storage fails: no space left"))
    wire.feed(head(f"{method} /readyz HTTP/1.1", auth=False) + GET_HEALTHZ)
    ready = wire.answer(method)
    assert (ready.status, ready.headers["Connection"]) == (503, "close")
    if method == "GET":
        assert (ready.code, ready.detail) == ("not_ready", "storage fails: no space left")
    assert wire.is_ended()
    other = Wire(wire.site)
    other.feed(GET_HEALTHZ)
    assert other.answer("GET").status == 200


def test_every_answer_has_a_date() -> None:
    for request in (post(encoded(event())), post(b"{"), GET_HEALTHZ, b"GARBAGE\r\n\r\n"):
        wire = Wire()
        wire.feed(request)
        wire.site.commit()
        date = wire.answer().headers["Date"]
        assert format_datetime(parsedate_to_datetime(date), usegmt=True) == date


def test_the_date_of_an_answer_is_not_before_the_receipt_of_its_event() -> None:
    outcome = send(encoded(event()))
    received = datetime.fromisoformat(json.loads(outcome.line)["receivedAt"])
    assert parsedate_to_datetime(outcome.answer.headers["Date"]) >= received.replace(microsecond=0)


# -- Expect: 100-continue ---------------------------------------------------------------------


def test_100_is_sent_once_the_headers_have_passed_and_before_the_body() -> None:
    wire = Wire()
    body = encoded(event())
    wire.feed(head("POST /v1/track HTTP/1.1", [f"Content-Length: {len(body)}", "Expect: 100-Continue"]))
    assert (wire.continues, wire.answers()) == (1, [])
    wire.feed(body, bytewise(body))
    wire.site.commit()
    assert (wire.continues, wire.answer().status) == (1, 200)


def test_100_waits_for_the_answers_before_it() -> None:
    wire = Wire()
    wire.feed(post(encoded(event("first"))))
    wire.feed(head("POST /v1/track HTTP/1.1", ["Content-Length: 2", "Expect: 100-continue"]))
    assert wire.continues == 0
    wire.site.commit()
    assert wire.continues == 1
    assert wire.transport.received.endswith(b'"first"}HTTP/1.1 100 Continue\r\n\r\n')


def test_no_100_is_sent_to_a_client_of_http_1_0() -> None:
    wire = Wire()
    wire.feed(post(encoded(event()), headers=["Expect: 100-continue"], version="1.0"))
    wire.site.commit()
    assert (wire.continues, wire.answer().status) == (0, 200)
