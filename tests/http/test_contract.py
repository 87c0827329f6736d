"""The published contract, row by row: exact texts, codes and places, seen from the client's side."""

from __future__ import annotations

import gzip
import logging
from typing import Any

import pytest

from ingestd.errors import StorageError
from tests.support.requests import SECRET, encoded, event, head, post, post_chunked
from tests.support.wire import Answer, Site, Wire, assert_ended, key, send

INVALID = "Invalid event format."
TOO_LARGE = "Payload exceeds maximum allowed size (10MB)."
BUSY = "Rate limit exceeded. Please retry later."
INTERNAL = "Internal server error. Please try again later."


def shape(answer: Answer) -> tuple[int, str, str | None]:
    """Status, error and code: what clients and their authors rely on."""
    return answer.status, answer.json["error"], answer.code


# -- 200 --------------------------------------------------------------------------------------


def test_one_event_is_answered_with_its_message_id() -> None:
    outcome = send(encoded(event("m-1")))
    assert outcome.answer.status == 200
    assert outcome.answer.body == b'{"status":"ok","messageId":"m-1"}'
    assert outcome.answer.headers["Content-Type"] == "application/json"


def test_events_in_bulk_are_answered_with_their_message_ids_in_order() -> None:
    outcome = send(encoded([event(f"m-{i}") for i in range(50)]), "/v1/bulk-track")
    assert outcome.answer.status == 200
    assert outcome.answer.json == {"status": "ok", "messageIds": [f"m-{i}" for i in range(50)]}
    assert len(outcome.lines) == 50


def test_a_made_message_id_is_the_one_that_is_stored() -> None:
    site = Site()
    single = send(encoded(event(None)), site=site).answer.json["messageId"]
    bulk = send(encoded([event(None), event("own")]), "/v1/bulk-track", site).answer.json["messageIds"]
    assert [single, *bulk] == [stored["messageId"] for stored in site.stored]
    assert bulk[1] == "own"


@pytest.mark.parametrize("message_id", ['quo"te', "back\\slash", "ünï\U0001f600", "\x1f", "x" * 5000])
def test_a_message_id_comes_back_as_it_was_sent(message_id: str) -> None:
    assert send(encoded(event(message_id))).answer.json["messageId"] == message_id


def test_a_query_in_the_target_changes_nothing() -> None:
    wire = Wire()
    wire.feed(post(encoded([event("q")]), "/v1/bulk-track?source=sdk&v=2"))
    wire.site.commit()
    assert wire.answer().json == {"status": "ok", "messageIds": ["q"]}


def test_nothing_is_answered_before_the_commit() -> None:
    wire = Wire()
    wire.feed(post(encoded(event())))
    batches = wire.site.take()
    assert wire.answers() == []
    wire.site.acknowledge(batches)
    assert wire.answer().status == 200


def test_at_ack_level_memory_the_answer_does_not_wait() -> None:
    wire = Wire(Site(ack="memory"))
    wire.feed(post(encoded(event())))
    assert wire.answer().status == 200
    wire.site.commit()
    assert wire.answer().status == 200
    assert len(wire.site.lines) == 1


def test_at_ack_level_memory_a_failed_commit_is_not_answered_a_second_time() -> None:
    wire = Wire(Site(ack="memory"))
    wire.feed(post(encoded(event())))
    wire.site.commit(StorageError("disk full"))
    assert wire.answer().status == 200


# -- 400 --------------------------------------------------------------------------------------

NUMBER_OUT_OF_RANGE = encoded(event()).replace(b'"basic"', b"1e999")
TOO_DEEP = encoded(event()).replace(b'"basic"', b"[" * 101 + b"]" * 101)
BAD_BODIES = [
    ("/v1/track", b"", "invalid_json", ""),
    ("/v1/track", b"{", "invalid_json", ""),
    ("/v1/track", b"\xff{}", "invalid_utf8", "byte 0"),
    ("/v1/track", encoded([event()]), "invalid_event", "$: "),
    ("/v1/track", encoded(event(timestamp="yesterday")), "invalid_event", "$.timestamp: "),
    ("/v1/track", b"{}", "invalid_event", "$: "),
    ("/v1/bulk-track", b"[]", "invalid_event", "$: "),
    ("/v1/bulk-track", encoded(event()), "invalid_event", "$: "),
    ("/v1/bulk-track", encoded([event(), 7]), "invalid_event", "$[1]: "),
    ("/v1/bulk-track", encoded([event()] * 3 + [event(timestamp="x")]), "invalid_event", "$[3].timestamp: "),
    ("/v1/bulk-track", encoded([event()] * 2 + [event(properties=[])]), "invalid_event", "$[2].properties: "),
    ("/v1/track", NUMBER_OUT_OF_RANGE, "number_out_of_range", "$: "),
    ("/v1/track", TOO_DEEP, "too_deep", "$: "),
    ("/v1/bulk-track", b"[%b,%b]" % (encoded(event()), NUMBER_OUT_OF_RANGE), "number_out_of_range", "$[1]: "),
    ("/v1/bulk-track", b"[%b,%b]" % (encoded(event()), TOO_DEEP), "too_deep", "$[1]: "),
]


@pytest.mark.parametrize(("target", "body", "code", "place"), BAD_BODIES)
def test_a_bad_body_is_400_with_its_place(target: str, body: bytes, code: str, place: str) -> None:
    outcome = send(body, target)
    assert shape(outcome.answer) == (400, INVALID, code)
    assert outcome.answer.detail.startswith(place)
    assert outcome.answer.detail


def test_of_a_bulk_request_with_one_bad_event_nothing_is_stored() -> None:
    site = Site()
    assert send(encoded([event("a"), event("b", event=1)]), "/v1/bulk-track", site).answer.status == 400
    assert site.ring.batches == 0
    assert site.lines == []


def test_a_bad_body_ends_the_connection_and_what_is_sent_after_it_is_not_stored() -> None:
    wire = Wire()
    wire.feed(post(b"{") + post(encoded(event("behind"))))
    wire.feed(post(encoded(event("after"))))
    wire.site.commit()
    assert wire.answer().status == 400
    assert wire.site.lines == []
    assert_ended(wire)


# -- 401 --------------------------------------------------------------------------------------

BAD_AUTHORIZATIONS = [
    "",
    "Bearer",
    "Bearer ",
    f"Bearer {SECRET}x",
    f"Bearer {SECRET[:-1]}",
    f"Basic {SECRET}",
    f"Bearer{SECRET}",
    SECRET,
    f"Bearer Bearer {SECRET}",
    f"Bearer {SECRET} {SECRET}",
]


@pytest.mark.parametrize("authorization", BAD_AUTHORIZATIONS)
def test_a_bad_key_is_401_before_the_body_is_sent(authorization: str) -> None:
    wire = Wire()
    lines = [f"Authorization: {authorization}", "Content-Length: 1000", "Expect: 100-continue"]
    wire.feed(head("POST /v1/track HTTP/1.1", lines, auth=False))
    answer = wire.answer()
    assert shape(answer) == (401, "Unauthorized", "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.headers["Connection"] == "close"
    assert wire.continues == 0


def test_a_missing_key_is_401() -> None:
    wire = Wire()
    wire.feed(head("POST /v1/bulk-track HTTP/1.1", ["Content-Length: 2"], auth=False))
    assert shape(wire.answer()) == (401, "Unauthorized", "unauthorized")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_may_be_spelled_in_any_case(scheme: str) -> None:
    wire = Wire()
    body = encoded(event())
    lines = [f"authorization: {scheme}  {SECRET}", f"content-length: {len(body)}"]
    wire.feed(head("POST /v1/track HTTP/1.1", lines, auth=False) + body)
    wire.site.commit()
    assert wire.answer().status == 200


def test_a_revoked_key_stops_at_once_on_an_open_connection() -> None:
    wire = Wire()
    wire.feed(post(encoded(event("before"))))
    wire.site.commit()
    wire.site.keyring.replace([key("ing_another")])
    wire.feed(post(encoded(event("after"))))
    assert [answer.status for answer in wire.answers()] == [200, 401]


def test_each_event_is_stamped_with_the_name_of_its_own_key() -> None:
    wire = Wire()
    wire.site.keyring.replace([key(), key("ing_mobile-key", "mobile")])
    for secret in (SECRET, "ing_mobile-key", SECRET):
        body = encoded(event(secret))
        lines = [f"Authorization: Bearer {secret}", f"Content-Length: {len(body)}"]
        wire.feed(head("POST /v1/track HTTP/1.1", lines, auth=False) + body)
    wire.site.commit()
    assert [stored["source"] for stored in wire.site.stored] == ["web", "mobile", "web"]


# -- 413, 429, 500, 503 -----------------------------------------------------------------------


def test_a_length_over_the_limit_is_413_from_the_headers() -> None:
    wire = Wire()
    wire.feed(head("POST /v1/track HTTP/1.1", ["Content-Length: 10485761", "Expect: 100-continue"]))
    assert shape(wire.answer()) == (413, TOO_LARGE, "payload_too_large")
    assert wire.continues == 0


@pytest.mark.parametrize("settings", [{"ring_batches_max": 2}, {"ring_bytes_max": 400}])
def test_a_full_ring_is_429_until_a_commit_makes_room(settings: dict[str, Any]) -> None:
    wire = Wire(Site(**settings))
    for i in range(4):
        wire.feed(post(encoded(event(str(i)))))
    other = Wire(wire.site)
    other.feed(post(encoded(event("too early"))))
    assert shape(other.answer()) == (429, BUSY, "overloaded")
    wire.site.commit()
    stored, also_stored, refused = wire.answers()
    assert [stored.status, also_stored.status] == [200, 200]
    assert shape(refused) == (429, BUSY, "overloaded")
    assert int(refused.headers["Retry-After"]) >= 1
    assert_ended(wire)
    assert send(encoded(event("again")), site=wire.site).answer.status == 200
    assert [line["messageId"] for line in wire.site.stored] == ["0", "1", "again"]


@pytest.mark.parametrize(("rate", "seconds"), [(0.0, 1), (1e9, 1), (100.0, 5), (1e-3, 60)])
def test_retry_after_is_the_time_that_the_waiting_bytes_need(rate: float, seconds: int) -> None:
    site = Site(ring_batches_max=1, drain_bytes_per_s=rate)
    wire = Wire(site)
    wire.feed(post(encoded(event("m", properties={"pad": "x" * 250}))))
    wire.feed(post(encoded(event())))
    assert 400 < site.ring.bytes <= 500
    site.commit()
    assert wire.answers()[1].headers["Retry-After"] == str(seconds)


def test_over_the_budget_of_bytes_in_flight_is_429_and_gives_the_budget_back() -> None:
    site = Site(inflight_bytes_max=5000)
    slow, other = Wire(site), Wire(site)
    body = encoded(event("slow", properties={"pad": "x" * 4000}))
    slow.feed(post(body)[:-1])
    other.feed(post(encoded(event("other", properties={"pad": "x" * 4000}))))
    refused = other.answer()
    assert shape(refused) == (429, BUSY, "overloaded")
    assert int(refused.headers["Retry-After"]) >= 1
    slow.feed(body[-1:])
    site.commit()
    assert slow.answer().status == 200
    assert site.inflight_bytes == 0


def test_failed_storage_is_500_ends_the_connection_and_the_next_one_is_served() -> None:
    wire = Wire()
    wire.feed(post(encoded(event("lost"))) + post(encoded([event("lost too")]), "/v1/bulk-track"))
    wire.site.commit(StorageError("no space left"))
    assert shape(wire.answer()) == (500, INTERNAL, "storage_failed")
    assert_ended(wire)
    assert send(encoded(event("kept")), site=wire.site).answer.json["messageId"] == "kept"
    assert [stored["messageId"] for stored in wire.site.stored] == ["kept"]


def test_a_bug_is_500_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def bug() -> str:
        raise LookupError("not thought of")

    wire = Wire(Site(not_ready=bug))
    wire.feed(head("GET /readyz HTTP/1.1", auth=False))
    assert shape(wire.answer("GET")) == (500, INTERNAL, "bug")
    assert wire.is_ended()
    levels = [record.levelno for record in caplog.records if record.name == "ingestd.http"]
    assert levels == [logging.ERROR]
    caplog.clear()


def test_one_connection_too_many_is_503() -> None:
    site = Site(connections_max=2)
    first, second, third = Wire(site), Wire(site), Wire(site)
    assert third.answer().status == 503
    assert third.answer().code == "too_many_connections"
    assert third.is_ended()
    second.vanish(None)
    third.half_close()
    for wire in (first, Wire(site)):
        wire.feed(head("GET /healthz HTTP/1.1", auth=False))
        assert wire.answer("GET").status == 200


def test_the_two_calls_take_plain_gzipped_and_chunked_bodies_alike() -> None:
    plain = encoded([event("a"), event("b")])
    packed = gzip.compress(plain)
    wire = Wire()
    wire.feed(post(plain, "/v1/bulk-track"))
    wire.feed(post(packed, "/v1/bulk-track", ["Content-Encoding: gzip"]))
    wire.feed(post_chunked(plain, "/v1/bulk-track"))
    wire.feed(post_chunked(packed, "/v1/bulk-track", ["content-encoding: GZIP"], size=1))
    wire.site.commit()
    assert [answer.json["messageIds"] for answer in wire.answers()] == [["a", "b"]] * 4
