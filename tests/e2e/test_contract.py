"""The HTTP contract as its clients know it, row by row, over real sockets."""

from __future__ import annotations

import gzip
import json
import resource
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.messages import assert_error, head, post
from tests.support.server import EVENT, Client, Server

INVALID = "Invalid event format."
TOO_LARGE = "Payload exceeds maximum allowed size (10MB)."
RATE_LIMITED = "Rate limit exceeded. Please retry later."
INTERNAL = "Internal server error. Please try again later."
LIMIT = 10 * 1024 * 1024


# -- 200 -------------------------------------------------------------------------------------


def test_track_answers_with_the_messageId_of_the_client(client: Client) -> None:
    answer = client.post("/v1/track", EVENT | {"messageId": "m-1"})
    assert answer.status == 200
    assert answer.body == b'{"status":"ok","messageId":"m-1"}'


@pytest.mark.parametrize(
    "absent", [{}, {"messageId": None}, {"messageId": ""}], ids=["absent", "null", "empty"]
)
def test_track_makes_a_UUIDv7_where_there_is_no_messageId(client: Client, absent: dict[str, Any]) -> None:
    answer = client.post("/v1/track", EVENT | absent)
    assert set(answer.json) == {"status", "messageId"}
    assert uuid.UUID(answer.json["messageId"]).version == 7


def test_bulk_track_answers_with_all_messageIds_in_request_order(client: Client) -> None:
    answer = client.post("/v1/bulk-track", [EVENT | {"messageId": "b"}, EVENT, EVENT | {"messageId": "a"}])
    assert answer.status == 200
    assert set(answer.json) == {"status", "messageIds"}
    first, made, last = answer.json["messageIds"]
    assert (first, uuid.UUID(made).version, last) == ("b", 7, "a")


@pytest.mark.parametrize("form", ["plain", "gzip", "chunked"])
def test_a_body_may_travel_in_any_form(client: Client, form: Any) -> None:
    answer = client.post("/v1/bulk-track", [EVENT | {"messageId": "m"}] * 500, form=form)
    assert (answer.status, len(answer.json["messageIds"])) == (200, 500)


def test_gzip_may_have_several_members_and_be_chunked(client: Client) -> None:
    body = json.dumps([EVENT] * 100).encode()
    members = gzip.compress(body[:5000]) + gzip.compress(b"") + gzip.compress(body[5000:])
    answer = client.post("/v1/bulk-track", members, form="chunked", headers={"Content-Encoding": "gzip"})
    assert (answer.status, len(answer.json["messageIds"])) == (200, 100)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_may_be_spelled_in_any_case(server: Server, client: Client, scheme: str) -> None:
    answer = client.post("/v1/track", EVENT, headers={"Authorization": f"{scheme} {server.key}"})
    assert answer.status == 200


def test_a_body_of_exactly_the_limit_is_taken(client: Client) -> None:
    body = json.dumps(EVENT).encode()
    assert client.post("/v1/track", body + b" " * (LIMIT - len(body))).status == 200


def test_10_MB_is_taken_in_its_decimal_reading_too(client: Client) -> None:
    body = json.dumps(EVENT).encode()
    assert client.post("/v1/track", body + b" " * (10_000_000 - len(body)), form="gzip").status == 200


# -- 400 -------------------------------------------------------------------------------------

BAD_BULKS: list[tuple[object, str, str]] = [
    ([], "invalid_event", "$: expected"),
    (EVENT, "invalid_event", "$: expected `array`"),
    ([EVENT, 7], "invalid_event", "$[1]: expected `object`"),
    ([EVENT, EVENT, EVENT, EVENT | {"timestamp": "now"}], "invalid_event", "$[3].timestamp: "),
    ([EVENT, EVENT | {"timestamp": "2025-10-29T22:00:00"}], "invalid_event", "$[1].timestamp: "),
    ([EVENT | {"event": None}], "invalid_event", "$[0].event: expected `str`"),
    ([EVENT, EVENT | {"properties": []}], "invalid_event", "$[1].properties: expected `object`"),
    ([EVENT | {"messageId": 7}], "invalid_event", "$[0].messageId: expected `str | null`"),
    ([{"event": "x", "properties": {}}], "invalid_event", "$[0]: object missing required field `timestamp`"),
    (b"[{", "invalid_json", ""),
    (b"", "invalid_json", ""),
    (b'[{"event":"\xff","properties":{},"timestamp":"2025-10-29T22:00:00Z"}]', "invalid_utf8", "byte 11"),
]


@pytest.mark.parametrize(("body", "code", "detail"), BAD_BULKS)
def test_a_bad_bulk_body_gets_400_with_the_place(
    client: Client, body: object, code: str, detail: str
) -> None:
    assert_error(client.post("/v1/bulk-track", body), 400, INVALID, code, detail)


def test_a_bad_single_event_gets_400_with_the_place(client: Client) -> None:
    answer = client.post("/v1/track", EVENT | {"timestamp": "2025-13-01T00:00:00Z"})
    assert_error(answer, 400, INVALID, "invalid_event", "$.timestamp: ")
    assert_error(client.post("/v1/track", [EVENT]), 400, INVALID, "invalid_event", "$: expected `object`")


@pytest.mark.parametrize("damage", ["cut", "garbage", "trailing"])
def test_bad_gzip_gets_400(client: Client, damage: str) -> None:
    whole = gzip.compress(json.dumps(EVENT).encode())
    body = {"cut": whole[:-4], "garbage": b"not gzip at all", "trailing": whole + b"xyz"}[damage]
    answer = client.post("/v1/track", body, headers={"Content-Encoding": "gzip"})
    assert_error(answer, 400, INVALID, "invalid_gzip", "body: not valid gzip")


def test_nothing_of_a_refused_bulk_request_is_stored(server: Server, client: Client) -> None:
    good, bad = EVENT | {"messageId": "all-or-nothing"}, EVENT | {"timestamp": 0}
    assert client.post("/v1/bulk-track", [good, bad]).status == 400
    assert client.post("/v1/track", EVENT | {"messageId": "afterwards"}).status == 200
    stored = {event["messageId"] for event in server.events()}
    assert "afterwards" in stored
    assert "all-or-nothing" not in stored


def test_a_400_ends_the_connection_and_nothing_behind_it_is_stored(server: Server) -> None:
    behind = post(json.dumps(EVENT | {"messageId": "behind"}).encode(), server.key)
    with server.raw() as raw:
        raw.send(post(b"{}", server.key) + behind)
        answer = raw.answer()
        assert (answer.status, answer.headers["Connection"]) == (400, "close")
        raw.send(behind)
        assert raw.rest() == b""
    with server.raw() as raw:
        raw.send(post(json.dumps(EVENT | {"messageId": "once more"}).encode(), server.key))
        assert raw.answer().status == 200
    stored = {event["messageId"] for event in server.events()}
    assert "once more" in stored
    assert "behind" not in stored


# -- 401, 413, 429, 500 ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization",
    ["", "Authorization: Bearer ing_unknown", "Authorization: Bearer", "Authorization: Basic {key}"],
    ids=["missing", "unknown", "empty", "another scheme"],
)
def test_a_missing_or_unknown_key_gets_401_before_the_body_is_sent(
    server: Server, authorization: str
) -> None:
    lines = ["POST /v1/track HTTP/1.1", "Content-Length: 1000"]
    lines += [authorization.format(key=server.key)] if authorization else []
    with server.raw() as raw:
        raw.send(head(*lines))
        answer = raw.answer()
    assert_error(answer, 401, "Unauthorized", "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_body_over_the_limit_gets_413_from_its_Content_Length(server: Server) -> None:
    with server.raw() as raw:
        raw.send(head("POST /v1/track HTTP/1.1", f"Content-Length: {LIMIT + 1}", key=server.key))
        assert_error(raw.answer(), 413, TOO_LARGE, "payload_too_large", f"{LIMIT} bytes")


def test_a_chunked_body_gets_413_once_it_has_passed_the_limit(server: Server) -> None:
    with server.raw() as raw:
        raw.send(head("POST /v1/bulk-track HTTP/1.1", "Transfer-Encoding: chunked", key=server.key))
        raw.send(b"%x\r\n" % (LIMIT + 1) + b" " * (LIMIT + 1))
        assert_error(raw.answer(), 413, TOO_LARGE, "payload_too_large")


def test_a_small_gzip_body_that_inflates_over_the_limit_gets_413(client: Client) -> None:
    bomb = gzip.compress(b" " * (100 * 1024 * 1024))
    assert len(bomb) < 200_000
    answer = client.post("/v1/bulk-track", bomb, headers={"Content-Encoding": "gzip"})
    assert_error(answer, 413, TOO_LARGE, "payload_too_large")


def test_back_pressure_gets_429_with_whole_seconds(tmp_path: Path) -> None:
    with Server(tmp_path, inflight_bytes_max=1024) as server, server.client() as client:
        answer = client.post("/v1/track", EVENT | {"padding": "x" * 2000})
        assert_error(answer, 429, RATE_LIMITED, "overloaded")
        assert int(answer.headers["Retry-After"]) >= 1
        assert client.post("/v1/track", EVENT).status == 200


def test_a_full_ring_gets_429_and_what_was_taken_gets_200(tmp_path: Path) -> None:
    # Arrays, for single events of one round would share a batch.
    body = json.dumps([EVENT]).encode()
    with Server(tmp_path, ring_batches_max=1) as server, server.raw() as raw:
        raw.send(post(body, server.key, "/v1/bulk-track") * 100)
        taken = 0
        while (answer := raw.answer()).status == 200:
            taken += 1
        assert_error(answer, 429, RATE_LIMITED, "overloaded", "the write queue is full")
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.headers["Connection"] == "close"
        assert raw.rest() == b""
        assert 1 <= taken < 100
        assert len(server.events()) == taken


def test_a_disk_that_refuses_gets_500_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    """The refusing is real: the kernel lets the process make no file longer than 64 KiB."""
    large = EVENT | {"messageId": "large", "noise": [uuid.uuid4().hex for _ in range(8000)]}
    with Server(tmp_path) as server, server.client() as client:
        assert client.post("/v1/track", EVENT | {"messageId": "before"}).status == 200
        limit = resource.prlimit(server.worker_pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.worker_pid, resource.RLIMIT_FSIZE, (64 * 1024, limit[1]))
        assert_error(client.post("/v1/track", large), 500, INTERNAL, "storage_failed")
        assert_error(client.request("GET", "/readyz"), 503, "Not ready.", "not_ready", "storage fails")
        resource.prlimit(server.worker_pid, resource.RLIMIT_FSIZE, limit)
        assert client.post("/v1/track", EVENT | {"messageId": "after"}).status == 200
        assert client.request("GET", "/readyz").status == 200
        assert [event["messageId"] for event in server.events()] == ["before", "after"]
        server.send(server.STOP)
        assert server.wait() == 1, "an operator who asks how it went must hear of the lost request"
