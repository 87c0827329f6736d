"""What a 200 says of how its events are kept, and where."""

from __future__ import annotations

import pytest

from ingestd.errors import StorageError
from tests.support.requests import encoded, event, head, post
from tests.support.wire import Answer, Site, Wire


def kept(answer: Answer) -> tuple[str | None, str | None]:
    return answer.headers["Ingest-Ack"], answer.headers["Ingest-Receipt"]


@pytest.mark.parametrize("ack", ["fsync", "write"])
@pytest.mark.parametrize("target", ["/v1/track", "/v1/bulk-track"])
def test_a_200_tells_the_level_and_the_commit(ack: str, target: str) -> None:
    wire = Wire(Site(ack=ack))
    body = encoded(event() if target == "/v1/track" else [event(), event("b")])
    for number in range(2):
        wire.site.receipt = f"segment:{number}"
        wire.feed(post(body, target))
        wire.site.commit()
        assert kept(wire.answers()[-1]) == (ack, f"segment:{number}")


def test_at_level_memory_there_is_no_commit_yet_and_so_no_receipt() -> None:
    wire = Wire(Site(ack="memory"))
    wire.feed(post(encoded(event())) + post(encoded([event()]), "/v1/bulk-track"))
    wire.site.commit()
    assert [kept(answer) for answer in wire.answers()] == [("memory", None)] * 2


def test_all_requests_of_a_commit_have_its_receipt_and_no_others() -> None:
    site = Site()
    wires = [Wire(site) for _ in range(5)]
    with site.one_round():
        for i, wire in enumerate(wires):
            wire.feed(post(encoded(event(f"m{i}"))))
            wire.feed(post(encoded([event(f"b{i}")]), "/v1/bulk-track"))
    first, *others = site.take()
    site.receipt = "segment:0"
    site.acknowledge([first])
    site.receipt = "segment:1"
    site.acknowledge(others)
    found = [kept(answer) for wire in wires for answer in wire.answers()]
    of_first = len(first.message_ids)
    assert 0 < of_first < 10
    assert sorted(found, key=str) == sorted(
        [("fsync", "segment:0")] * of_first + [("fsync", "segment:1")] * (10 - of_first)
    )


def test_after_a_failed_commit_the_next_has_a_receipt_of_its_own() -> None:
    site = Site()
    for number in range(2):
        site.receipt = f"segment:{number}"
        failed, stored = Wire(site), Wire(site)
        failed.feed(post(encoded(event())))
        site.commit(StorageError("no space left"))
        stored.feed(post(encoded(event())))
        site.commit()
        assert (failed.answer().status, kept(failed.answer())) == (500, (None, None))
        assert kept(stored.answer()) == ("fsync", f"segment:{number}")


def test_what_is_not_stored_has_neither() -> None:
    wire = Wire()
    wire.feed(head("GET /healthz HTTP/1.1") + post(b"{"))
    answers = wire.answers(["GET", "POST"])
    assert [answer.status for answer in answers] == [200, 400]
    assert [kept(answer) for answer in answers] == [(None, None)] * 2
