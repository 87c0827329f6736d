"""Segment's calls become events of the contract, with the differences that `analytics` tells of."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from ingestd.analytics import (
    BATCH,
    BODY_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    MESSAGES_MAX,
    TYPES,
)
from ingestd.errors import Rejection
from ingestd.events import Stamper
from ingestd.forms import ANALYTICS

RECEIVED: Final = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
SENT: Final = "2026-03-01T11:59:50.000Z"


def message(kind: str = "track", **more: Any) -> dict[str, Any]:
    """A message as an SDK sends it."""
    named = {"event": "Item Bought", "properties": {"price": 9}} if kind == "track" else {}
    return (
        {"type": kind, "userId": "u1", "messageId": "m1", "timestamp": "2026-03-01T11:58:00.000Z"}
        | named
        | more
    )


def lines(body: object, call: str = BATCH, strict_bytes_max: int = 64 * 1024) -> list[dict[str, Any]]:
    """What is kept of a call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.time_ns", lambda: int(RECEIVED.timestamp() * 1000) * 1_000_000)
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        batch = Stamper("web", strict_bytes_max).batch(text, ANALYTICS[call])
    kept = [json.loads(line) for line in batch.lines.splitlines()]
    assert [line["messageId"] for line in kept] == batch.message_ids
    return kept


def refusal(body: object, call: str = BATCH) -> tuple[str, str]:
    with pytest.raises(Rejection) as caught:
        lines(body, call)
    assert caught.value.status == 400
    return caught.value.code, caught.value.detail or ""


# -- what is kept -----------------------------------------------------------------------------


def test_a_message_is_kept_as_sent_with_its_time_by_the_servers_clock() -> None:
    sent = message(context={"ip": "10.0.0.1"}, integrations={"All": True})
    [line] = lines({"batch": [sent], "sentAt": SENT})
    assert line == sent | {
        "originalTimestamp": "2026-03-01T11:58:00.000Z",
        # The client's clock is 10.25 s late.
        "timestamp": "2026-03-01T11:58:10.250Z",
        "sentAt": SENT,
        "receivedAt": "2026-03-01T12:00:00.250Z",
        "source": "web",
    }


def test_every_type_becomes_a_line_of_the_same_shape() -> None:
    kept = lines({"batch": [message(kind, traits={"plan": "pro"}) for kind in TYPES]})
    assert [line["event"] for line in kept] == ["Item Bought", *TYPES[1:]]
    assert [line["type"] for line in kept] == list(TYPES)
    assert all(isinstance(line["properties"], dict) and line["traits"] == {"plan": "pro"} for line in kept)


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind != "track"])
def test_a_call_of_its_own_is_of_the_type_that_it_is_named_for(kind: str) -> None:
    body = {"userId": "u1", "timestamp": "2026-03-01T11:58:00Z", "sentAt": SENT, "type": "track"}
    [line] = lines(body, kind)
    assert (line["type"], line["event"], line["properties"]) == (kind, kind, {})
    assert (line["sentAt"], line["timestamp"]) == (SENT, "2026-03-01T11:58:10.250Z")


def test_what_the_batch_says_holds_for_messages_that_do_not_say_it() -> None:
    messages = [message(), message(context={"own": 1}, integrations={})]
    first, second = lines({"batch": messages, "context": {"ip": "10.0.0.1"}, "integrations": {"All": False}})
    assert (first["context"], first["integrations"]) == ({"ip": "10.0.0.1"}, {"All": False})
    assert (second["context"], second["integrations"]) == ({"own": 1}, {})


def test_a_write_key_is_not_kept() -> None:
    for line in (
        *lines({"batch": [message(writeKey="ing_secret")], "writeKey": "ing_secret"}),
        *lines(message("page", writeKey="ing_secret"), "page"),
    ):
        assert "ing_secret" not in json.dumps(line)


def test_values_keep_their_spelling() -> None:
    spelled = b'{"n":1.50e+2,"x":null,"t":"\\u00e9"}'
    text = json.dumps({"batch": [message(properties=77)]}).encode().replace(b"77", spelled)
    assert b'"properties":' + spelled in Stamper("web", 0).batch(text, ANALYTICS[BATCH]).lines


@pytest.mark.parametrize("size", [0, 1 << 20])
def test_a_batch_may_be_read_strictly_or_not(size: int) -> None:
    batch = {"batch": [message(messageId=f"m{i}") for i in range(500)]}
    assert [line["messageId"] for line in lines(batch, BATCH, size)] == [f"m{i}" for i in range(500)]


# -- times ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "timestamp", "original"),
    [
        ({"timestamp": "2026-03-01T12:00:00Z"}, "2026-03-01T12:00:10.250Z", "2026-03-01T12:00:00Z"),
        ({"timestamp": "2026-03-01T13:00:00+01:00"}, "2026-03-01T12:00:10.250Z", "2026-03-01T13:00:00+01:00"),
        ({"timestamp": None}, "2026-03-01T12:00:00.250Z", None),
        ({"originalTimestamp": "2026-03-01T12:00:00Z"}, "2026-03-01T12:00:10.250Z", "2026-03-01T12:00:00Z"),
        (
            {"originalTimestamp": "2026-03-01T12:00:00Z", "timestamp": "2026-03-01T00:00:00Z"},
            "2026-03-01T12:00:10.250Z",
            "2026-03-01T12:00:00Z",
        ),
        # Beyond what a clock can say.
        ({"timestamp": "9999-12-31T23:59:59Z"}, "9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
        # A leap second.
        ({"timestamp": "2016-12-31T23:59:60Z"}, "2016-12-31T23:59:60Z", "2016-12-31T23:59:60Z"),
    ],
)
def test_the_time_of_an_event(times: dict[str, Any], timestamp: str, original: str | None) -> None:
    sent = {name: value for name, value in message().items() if name != "timestamp"} | times
    [line] = lines({"batch": [sent], "sentAt": SENT})
    assert (line["timestamp"], line.get("originalTimestamp")) == (timestamp, original)


def test_a_message_that_says_when_it_was_sent_is_corrected_by_that() -> None:
    [line] = lines({"batch": [message(sentAt="2026-03-01T11:59:59.250Z")], "sentAt": SENT})
    assert (line["sentAt"], line["timestamp"]) == ("2026-03-01T11:59:59.250Z", "2026-03-01T11:58:01.000Z")


@pytest.mark.parametrize("sent_at", [{}, {"sentAt": None}, {"sentAt": "2016-12-31T23:59:60Z"}])
def test_without_the_time_of_sending_times_stay_as_they_are(sent_at: dict[str, None]) -> None:
    [line] = lines({"batch": [message()], **sent_at})
    assert line["timestamp"] == line["originalTimestamp"] == message()["timestamp"]


# -- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code", "place"),
    [
        (b"", "invalid_json", ""),
        (b"{", "invalid_json", ""),
        (b"[]", "invalid_event", "$: "),
        (b'{"batch":[{"type":"track","event":"\xff"}]}', "invalid_utf8", "byte 35"),
        (b'{"batch":' + b"[" * 100_000, "too_deep", ""),
        ({}, "invalid_event", "$: object missing required field `batch`"),
        ({"batch": []}, "invalid_event", "$.batch: "),
        ({"batch": {}}, "invalid_event", "$.batch: "),
        ({"batch": [message(), 7]}, "invalid_event", "$.batch[1]: "),
        ({"batch": [message()], "sentAt": "today"}, "invalid_event", "$.sentAt: "),
        ({"batch": [message(), {"event": "e"}]}, "invalid_event", "$.batch[1].type: "),
        ({"batch": [message("import")]}, "invalid_event", "$.batch[0].type: "),
        ({"batch": [message(), message(event=None)]}, "invalid_event", "$.batch[1].event: "),
        ({"batch": [message(properties=[])]}, "invalid_event", "$.batch[0].properties: "),
        ({"batch": [message(timestamp="today")]}, "invalid_event", "$.batch[0].timestamp: "),
        ({"batch": [message(timestamp="")]}, "invalid_event", "$.batch[0].timestamp: "),
        ({"batch": [message(timestamp=7)]}, "invalid_event", "$.batch[0].timestamp: "),
        (
            {"batch": [message(originalTimestamp="2026-03-01T12:00:00Z", timestamp="")]},
            "invalid_event",
            "$.batch[0].timestamp: ",
        ),
        ({"batch": [message(originalTimestamp="")]}, "invalid_event", "$.batch[0].originalTimestamp: "),
        ({"batch": [message(messageId=7)]}, "invalid_event", "$.batch[0].messageId: "),
        ({"batch": [message(pad="x" * MESSAGE_BYTES_MAX)]}, "too_large", "$.batch[0]: "),
        ({"batch": [message()] * (MESSAGES_MAX + 1)}, "invalid_event", "$.batch: "),
        ({"batch": [message()], "pad": "x" * BODY_BYTES_MAX}, "too_large", ""),
        ({"batch": [message()] * 1000, "context": {"x": "x" * 30_000}}, "too_large", "with what they share"),
        ({"batch": [message(sentAt="today")], "sentAt": SENT}, "invalid_event", "$.batch[0].sentAt: "),
    ],
)
def test_what_is_wrong_is_named_where_the_client_sent_it(body: object, code: str, place: str) -> None:
    found, detail = refusal(body)
    assert found == code
    assert detail.startswith(place)
    assert detail


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"timestamp": "today"}, "$.timestamp: "),
        ({"properties": 7}, "$.properties: "),
        ({"sentAt": 7}, "$.sentAt: "),
        ({"pad": "x" * MESSAGE_BYTES_MAX}, "$: "),
    ],
)
def test_of_a_call_of_its_own_the_place_is_in_its_object(body: object, place: str) -> None:
    assert refusal(body, "identify")[1].startswith(place)
