"""Segment's calls through the wire: who may call, what is answered, where one sort of call ends."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any, Final

import pytest

from ingestd.analytics import CALLS
from ingestd.errors import StorageError
from tests.support.requests import SECRET, encoded, event, post
from tests.support.wire import Answer, Site, Wire

MESSAGE: Final = {"userId": "u1", "timestamp": "2026-03-01T12:00:00Z", "messageId": "m1"}


def basic(user: str, password: str = "") -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def call(
    path: str, body: object, authorization: str, site: Site | None = None, error: StorageError | None = None
) -> Answer:
    wire = Wire(site or Site())
    text = json.dumps(body).encode()
    lines = ("Host: x", f"Authorization: {authorization}", f"Content-Length: {len(text)}", "", "")
    wire.feed("\r\n".join((f"POST {path} HTTP/1.1", *lines)).encode() + text)
    wire.site.commit(error)
    return wire.answer()


def batch(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"batch": list(messages), "sentAt": "2026-03-01T12:00:00Z"}


def test_a_batch_is_stored_and_answered_as_their_sdks_expect() -> None:
    site = Site()
    answer = call("/v1/batch", batch({"type": "identify", **MESSAGE}), basic(SECRET), site)
    assert (answer.status, answer.body) == (200, b'{"success":true}')
    [stored] = site.stored
    assert (stored["event"], stored["userId"], stored["source"]) == ("identify", "u1", "web")


@pytest.mark.parametrize("name", [name for name in CALLS if name != "batch"])
def test_each_call_has_a_path(name: str) -> None:
    site = Site()
    assert call(f"/v1/{name}", MESSAGE, basic(SECRET), site).json == {"success": True}
    assert [line["type"] for line in site.stored] == [name]


def test_what_is_wrong_is_answered_as_everywhere() -> None:
    site = Site()
    answer = call("/v1/batch", batch({"type": "track", **MESSAGE}), basic(SECRET), site)
    assert (answer.status, answer.code) == (400, "invalid_event")
    assert answer.detail == "$.batch[0]: object missing required field `event`"
    assert site.stored == []


def test_a_failing_disk_is_500() -> None:
    answer = call("/v1/page", MESSAGE, basic(SECRET), error=StorageError("disk"))
    assert (answer.status, answer.code) == (500, "storage_failed")


def test_v1_track_is_the_contracts_own_whoever_calls() -> None:
    """Their form of it has no timestamp; theirs of many goes to /v1/batch."""
    sent = {"userId": "u1", "event": "e", "properties": {}}
    answer = call("/v1/track", sent, basic(SECRET))
    assert (answer.status, answer.detail) == (400, "$: object missing required field `timestamp`")
    assert call("/v1/track", sent | event("m1"), basic(SECRET)).json == {"status": "ok", "messageId": "m1"}


@pytest.mark.parametrize(
    "authorization",
    [
        basic(SECRET),
        basic(SECRET, "anything"),
        basic(SECRET).replace("Basic", "bAsIc"),
        basic(SECRET).replace(" ", "   "),
        f"Bearer {SECRET}",
    ],
)
def test_the_key_may_be_a_user_or_a_token(authorization: str) -> None:
    for path, body in (("/v1/batch", batch({"type": "page", **MESSAGE})), ("/v1/track", event("m1"))):
        assert call(path, body, authorization).status == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "Basic",
        "Basic ",
        "Basic !",
        f"Basic {SECRET}",
        basic(""),
        basic("", SECRET),
        basic(SECRET + "x"),
        basic(SECRET).rstrip("=")[:-1],
        "Basic \u00e9",
        f"Digest {SECRET}",
    ],
)
def test_all_else_is_401_before_the_body_is_read(authorization: str) -> None:
    wire = Wire(Site())
    lines = ("Host: x", f"Authorization: {authorization}", "Content-Length: 1000", "", "")
    wire.feed("\r\n".join(("POST /v1/batch HTTP/1.1", *lines)).encode("latin-1"))
    answer = wire.answer()
    assert (answer.status, answer.code) == (401, "unauthorized")
    assert SECRET not in answer.body.decode()


def test_calls_of_both_sorts_take_turns_on_a_connection() -> None:
    """The repeated heads and the bodies that are validated together keep them apart."""
    site = Site()
    wire = Wire(site)
    bodies = {"/v1/track": encoded(event("m1")), "/v1/batch": encoded(batch({"type": "screen", **MESSAGE}))}
    sent = b"".join(post(body, path) for path, body in bodies.items()) * 6
    wire.feed(sent)
    site.commit()
    assert [answer.body for answer in wire.answers()] == [
        b'{"status":"ok","messageId":"m1"}',
        b'{"success":true}',
    ] * 6
    assert len(site.stored) == 12
