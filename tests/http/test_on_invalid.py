"""Partial acceptance on the wire: by setting or by query, what is answered, and when."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ingestd.errors import StorageError
from ingestd.events import SLICED_BYTES_MIN
from tests.support.requests import encoded, event, post, post_chunked
from tests.support.wire import Answer, Site, Wire, key

BULK = "/v1/bulk-track"
SKIP = f"{BULK}?on_invalid=skip"
MIXED: list[Any] = [event("a"), {"event": "no timestamp"}, event("b"), event(timestamp="x"), event("c")]
LISTED: list[dict[str, Any]] = [
    {"index": 1, "code": "invalid_event", "detail": "$[1]: object missing required field `properties`"},
    {
        "index": 3,
        "code": "invalid_event",
        "detail": "$[3].timestamp: expected an RFC 3339 date-time with an offset, "
        "as 2025-10-29T22:00:00.778Z",
    },
]
PARTIAL = {"status": "ok", "messageIds": ["a", "b", "c"], "invalid": LISTED}


def sent(body: bytes, target: str, **settings: Any) -> tuple[Answer, Site]:
    wire = Wire(Site(**settings))
    wire.feed(post(body, target))
    wire.site.commit()
    return wire.answer(), wire.site


def ids(site: Site) -> list[str]:
    return [stored["messageId"] for stored in site.stored]


@pytest.mark.parametrize(
    ("setting", "target", "skips"),
    [
        ("reject", BULK, False),
        ("reject", SKIP, True),
        ("skip", BULK, True),
        ("skip", f"{BULK}?on_invalid=reject", False),
        ("reject", f"{BULK}?a=b&on_invalid=%73kip&c", True),
        ("skip", f"{BULK}?on_invalid=skip&on_invalid=reject", False),
        ("reject", f"{BULK}?xon_invalid=skip", False),
    ],
)
def test_the_query_wins_over_the_setting(setting: str, target: str, skips: bool) -> None:
    answer, site = sent(encoded(MIXED), target, on_invalid=setting)
    if skips:
        assert (answer.status, answer.json) == (200, PARTIAL)
        assert answer.headers["Ingest-Receipt"]
        assert ids(site) == ["a", "b", "c"]
    else:
        assert (answer.status, site.lines) == (400, [])
        assert "invalid" not in answer.json


@pytest.mark.parametrize("value", ["", "Skip", "keep", "skip,reject"])
def test_another_value_is_refused_by_name(value: str) -> None:
    answer, site = sent(encoded([event()]), f"{BULK}?on_invalid={value}")
    assert (answer.status, answer.code, answer.detail) == (
        400,
        "bad_query",
        "on_invalid is 'reject' or 'skip'",
    )
    assert site.lines == []


@pytest.mark.parametrize("target", ["/v1/track?on_invalid=skip", "/v1/track?on_invalid=keep"])
def test_a_single_event_is_valid_or_not(target: str) -> None:
    for setting in ("reject", "skip"):
        answer, site = sent(encoded(event("a")), target, on_invalid=setting)
        assert (answer.status, ids(site)) == (200, ["a"])
        answer, site = sent(encoded({}), target, on_invalid=setting)
        assert (answer.status, answer.code, site.lines) == (400, "invalid_event", [])
        assert "invalid" not in answer.json


def test_where_all_are_valid_the_answer_is_that_of_everybody() -> None:
    answer, _ = sent(encoded([event("a"), event("b")]), SKIP)
    assert answer.json == {"status": "ok", "messageIds": ["a", "b"]}


def test_where_none_is_valid_nothing_is_kept_and_each_is_listed() -> None:
    answer, site = sent(encoded([MIXED[1], event("a", properties=0)]), SKIP)
    assert (answer.status, answer.code) == (400, "invalid_event")
    assert answer.json["error"] == "Invalid event format."
    assert [one["index"] for one in answer.json["invalid"]] == [0, 1]
    assert answer.json["invalid"][0] == {
        **LISTED[0],
        "index": 0,
        "detail": LISTED[0]["detail"].replace("1", "0"),
    }
    assert answer.detail == answer.json["invalid"][0]["detail"]
    assert (site.lines, site.ring.batches) == ([], 0)


def test_it_is_answered_when_the_commit_is_there_and_what_is_set_aside_goes_with_it() -> None:
    wire = Wire()
    wire.feed(post(encoded(MIXED), SKIP))
    [batch] = wire.site.take()
    assert wire.answers() == []
    assert batch.quarantine is not None
    kept = [json.loads(line) for line in batch.quarantine.lines.splitlines()]
    assert [json.loads(line["event"]) for line in kept] == [MIXED[1], MIXED[3]]
    assert wire.site.ring.bytes == len(batch.lines) + len(batch.quarantine.lines)
    wire.site.acknowledge([batch])
    assert wire.answer().json == PARTIAL
    assert wire.site.ring.bytes == 0


def test_a_failed_commit_is_500_for_all_of_it() -> None:
    wire = Wire()
    wire.feed(post(encoded(MIXED), SKIP))
    wire.site.commit(StorageError("no space left"))
    assert (wire.answer().status, wire.site.lines) == (500, [])


def test_at_ack_level_memory_it_is_answered_at_once() -> None:
    wire = Wire(Site(ack="memory"))
    wire.feed(post(encoded(MIXED), SKIP))
    assert wire.answer().json == PARTIAL


@pytest.mark.parametrize("on", ["pipelined", "chunked", "repeated"])
def test_requests_keep_their_order_and_their_meaning(on: str) -> None:
    wire = Wire()
    make = post_chunked if on == "chunked" else post
    requests = [make(encoded([event(f"first {i}"), {}]), SKIP) for i in range(3)]
    requests.insert(2, make(encoded(event("one"))))
    if on == "repeated":
        for request in requests:
            wire.feed(request)
    else:
        wire.feed(b"".join(requests))
    wire.site.commit()
    answers = wire.answers()
    assert [answer.status for answer in answers] == [200] * 4
    assert [answer.json.get("messageIds") for answer in answers] == [
        ["first 0"], ["first 1"], None, ["first 2"],
    ]  # fmt: skip
    assert ids(wire.site) == ["first 0", "first 1", "one", "first 2"]


def test_large_arrays_are_sifted_too_and_the_budget_gets_all_back() -> None:
    events: list[Any] = [event(f"m{i}", padding="x" * 500) for i in range(2000)]
    events[1500] = 7
    body = encoded(events)
    assert len(body) > SLICED_BYTES_MIN
    answer, site = sent(body, SKIP)
    assert [one["index"] for one in answer.json["invalid"]] == [1500]
    assert len(answer.json["messageIds"]) == len(site.lines) == 1999
    assert site.inflight_bytes == 0


def test_a_limit_of_a_key_counts_what_is_set_aside() -> None:
    site = Site()
    site.keyring.replace([key(events_per_s=5, burst_s=1)])
    wire = Wire(site)
    wire.feed(post(encoded(MIXED), SKIP))
    site.commit()
    assert wire.answer().status == 200
    wire.feed(post(encoded([event()]), BULK))
    site.commit()
    assert [answer.status for answer in wire.answers()] == [200, 429]


def test_a_request_whose_log_is_asked_for_is_logged_with_the_events_that_were_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "ingestd.request")
    answer, _ = sent(encoded(MIXED), SKIP, request_log=True)
    assert answer.json == PARTIAL
    [record] = caplog.records
    assert record.fields["events"] == 3  # type: ignore[attr-defined]
