"""Partial acceptance: which events are kept, which are set aside, and what is said and kept of those."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.errors import Rejection
from ingestd.events import SLICED_BYTES_MIN, Batch, Stamper
from ingestd.forms import MANY, ONE
from ingestd.sifting import INVALID_MAX, Invalid, Sifted, sifted
from tests.support.requests import encoded, event

STAMPER = Stamper("web", 64 * 1024)
NO_TIMESTAMP = {"event": "e", "properties": {}}
BAD: list[tuple[bytes, str, str]] = [
    (encoded(NO_TIMESTAMP), "invalid_event", "$[{}]: object missing required field `timestamp`"),
    (encoded(event(timestamp="yesterday")), "invalid_event", "$[{}].timestamp: "),
    (encoded(event(properties=[])), "invalid_event", "$[{}].properties: "),
    (encoded(event(messageId=7)), "invalid_event", "$[{}].messageId: "),
    (b"7", "invalid_event", "$[{}]: "),
    (b"null", "invalid_event", "$[{}]: "),
    (b"[]", "invalid_event", "$[{}]: "),
    (encoded(event()).replace(b'"basic"', b"1e999"), "number_out_of_range", "$[{}]: the number 1e999"),
    (encoded(event()).replace(b'"basic"', b"[" * 101 + b"]" * 101), "too_deep", "$[{}]: "),
    (b'{"event":"a\\ud800",\r\n"x":"\\u0000\xc3\xbc"}', "invalid_event", "$[{}]: "),
]
GOOD = [encoded(event(f"good {i}")) for i in range(3)] + [encoded(event(None)), encoded(event(source="mine"))]


def array(raws: list[bytes]) -> bytes:
    return b"[%b]" % b" ,\n".join(raws)


def sift(raws: list[bytes]) -> Batch:
    """What comes of the array. Raises Rejection."""
    found = [batch for batch in sifted(STAMPER, array(raws), MANY) if batch is not None]
    assert len(found) == 1
    return found[0]


def rejection(body: bytes) -> Rejection:
    with pytest.raises(Rejection) as raised:
        list(sifted(STAMPER, body, MANY))
    return raised.value


def lines(batch: Batch | None) -> list[Any]:
    return [] if batch is None else [json.loads(line) for line in batch.lines.splitlines()]


@given(st.lists(st.one_of(st.sampled_from(GOOD), st.sampled_from([bad for bad, _, _ in BAD])), min_size=1))
def test_each_event_is_judged_as_if_it_had_come_alone(raws: list[bytes]) -> None:
    is_bad = {bad: (code, detail) for bad, code, detail in BAD}
    bad = [i for i, raw in enumerate(raws) if raw in is_bad]
    if len(bad) == len(raws):
        refused = rejection(array(raws))
        assert (refused.status, refused.code) == (400, is_bad[raws[0]][0])
        told = refused.invalid
    else:
        batch = sift(raws)
        told = batch.invalid if isinstance(batch, Sifted) else []
        kept = [raw for raw in raws if raw not in is_bad]
        alone = [lines(STAMPER.batch(raw, ONE))[0] for raw in kept]
        for one, other in zip(lines(batch), alone, strict=True):
            made = json.loads(kept[lines(batch).index(one)]).get("messageId") is None
            assert {**one, "receivedAt": 0, **({"messageId": 0} if made else {})} == {
                **other,
                "receivedAt": 0,
                **({"messageId": 0} if made else {}),
            }
        assert [line["messageId"] for line in lines(batch)] == batch.message_ids
        check_quarantine(raws, bad, batch)
    assert [one.index for one in told if isinstance(one, Invalid)] == bad
    for one in told:
        assert isinstance(one, Invalid)
        code, detail = is_bad[raws[one.index]]
        assert one.code == code
        assert one.detail.startswith(detail.format(one.index))


def check_quarantine(raws: list[bytes], bad: list[int], batch: Batch) -> None:
    found = lines(batch.quarantine)
    assert [line["index"] for line in found] == bad
    for line in found:
        assert line["source"] == "web"
        assert set(line) <= {"receivedAt", "source", "code", "detail", "index", "event", "messageId"}
        sent = raws[line["index"]]
        # All that is changed: half of a surrogate pair is no character.
        assert line["event"].encode() == sent.replace(b"ud800", b"ufffd")
        try:
            message_id = json.loads(sent)["messageId"]
        except (TypeError, KeyError):
            message_id = None
        assert line.get("messageId") == (message_id if isinstance(message_id, str) else None)
    if batch.quarantine is not None:
        assert batch.quarantine.message_ids == [line.get("messageId", "") for line in found]
        assert batch.size == len(batch.lines) + len(batch.quarantine.lines)


def test_where_all_are_valid_nothing_is_set_aside() -> None:
    batch = sift(GOOD)
    assert not isinstance(batch, Sifted)
    assert batch.quarantine is None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"[", "invalid_json"),
        (b"[]", "invalid_event"),
        (b"{}", "invalid_event"),
        (b"[1,]", "invalid_event"),
        (b'["\xff"]', "invalid_utf8"),
        (array([*GOOD, b"{"]), "invalid_json"),
        (array(GOOD) + b"x", "invalid_json"),
    ],
)
def test_what_has_no_events_to_tell_apart_is_refused_as_ever(body: bytes, code: str) -> None:
    with pytest.raises(Rejection) as raised:
        STAMPER.batch(body, MANY)
    refused = rejection(body)
    assert (refused.code, refused.detail) == (raised.value.code, raised.value.detail)
    assert refused.code == code
    assert refused.invalid == ()


def test_one_event_is_not_sifted() -> None:
    with pytest.raises(Rejection) as raised:
        list(sifted(STAMPER, encoded(NO_TIMESTAMP), ONE))
    assert raised.value.invalid == ()


def test_too_many_are_refused_and_a_place_is_named() -> None:
    raws = [GOOD[0], *[b"7"] * INVALID_MAX]
    batch = sift(raws)
    assert isinstance(batch, Sifted)
    assert len(batch.invalid) == INVALID_MAX
    refused = rejection(array([*raws, b"8"]))
    assert refused.code == "too_many_invalid"
    assert refused.detail is not None
    assert refused.detail.startswith(
        f"more than 1000 events are invalid, the last seen: $[{INVALID_MAX + 1}]: "
    )
    assert refused.invalid == ()


def test_a_large_array_is_sifted_in_slices() -> None:
    raws = [encoded(event(f"m{i}", padding="x" * 300)) for i in range(5000)]
    for i in (0, 1234, 4999):
        raws[i] = encoded(NO_TIMESTAMP)
    body = array(raws)
    assert len(body) > 2 * SLICED_BYTES_MIN
    found = list(sifted(STAMPER, body, MANY))
    assert len(found) > len(body) // (128 * 1024)
    assert found[:-1] == [None] * (len(found) - 1)
    assert isinstance(found[-1], Sifted)
    assert [one.index for one in found[-1].invalid] == [0, 1234, 4999]
    assert found[-1].message_ids == [f"m{i}" for i in range(5000) if i not in (0, 1234, 4999)]


def test_rubbish_is_refused_after_its_first_piece() -> None:
    steps = sifted(STAMPER, b"[%b]" % b",".join([b"7"] * 1_000_000), MANY)
    # The way that is tried first fails at once.
    with pytest.raises(Rejection, match="too_many_invalid"):
        next(steps)
