"""An error is the last answer of its connection: what was sent behind it is neither stored nor answered."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable, Iterable
from typing import Final

import pytest

from ingestd.errors import StorageError
from ingestd.events import SLICED_BYTES_MIN
from tests.support.requests import bytewise, encoded, event, head, post, post_chunked
from tests.support.wire import Site, Wire, assert_ended

BULK: Final = "/v1/bulk-track"
GZIP: Final = "Content-Encoding: gzip"


def _large(name: str) -> bytes:
    """An array that is validated in slices."""
    body = encoded([event(name, pad="x" * 1000) for _ in range(600)])
    assert len(body) > SLICED_BYTES_MIN
    return body


GOOD: Final[dict[str, Callable[[str], bytes]]] = {
    "small": lambda name: post(encoded(event(name))),
    "middling": lambda name: post(encoded(event(name, pad="x" * 20_000))),
    "bulk": lambda name: post(encoded([event(name)]), BULK),
    "gzip": lambda name: post(gzip.compress(encoded([event(name)])), BULK, [GZIP]),
    "chunked": lambda name: post_chunked(encoded(event(name))),
    "large": lambda name: post(encoded(event(name, pad="x" * SLICED_BYTES_MIN))),
    "sliced": lambda name: post(_large(name), BULK),
}
"""Requests that are stored, by the way that they take; each has events of one message id."""
BAD: Final = {
    "small": post(b"{"),
    "middling": post(b" " * 20_000),
    "bulk": post(b"[]", BULK),
    "gzip": post(gzip.compress(b"[7]"), BULK, [GZIP]),
    "no gzip": post(b"this is no gzip", BULK, [GZIP]),
    "chunked": post_chunked(b"{}"),
    "large": post(b" " * SLICED_BYTES_MIN),
    "sliced": post(_large("never")[:-1] + b",7]", BULK),
}
"""Requests that are answered 400."""
PROBE: Final = head("GET /healthz HTTP/1.1", auth=False)


def names(site: Site) -> list[str]:
    """The message ids that were stored, in their order, each once in a row."""
    return [name for name, _ in itertools.groupby(stored["messageId"] for stored in site.stored)]


def statuses(wire: Wire) -> list[int]:
    return [answer.status for answer in wire.answers()]


def together(requests: Iterable[bytes], site: Site | None = None) -> Wire:
    """A connection on which these requests are read in one go."""
    wire = Wire(site)
    wire.feed(b"", [b"".join(requests)])
    return wire


# -- invalid events ---------------------------------------------------------------------------


@pytest.mark.parametrize("behind", GOOD)
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("first", GOOD)
def test_of_a_good_a_bad_and_a_good_request_the_first_is_stored_and_the_second_ends_it(
    first: str, bad: str, behind: str
) -> None:
    wire = together([GOOD[first]("first"), BAD[bad], GOOD[behind]("behind")])
    wire.site.commit()
    assert statuses(wire) == [200, 400]
    assert names(wire.site) == ["first"]
    assert_ended(wire)


@pytest.mark.parametrize("behind", [*GOOD, "probe", "bad", "no HTTP"])
@pytest.mark.parametrize("bad", BAD)
def test_nothing_behind_a_bad_request_is_stored_or_answered(bad: str, behind: str) -> None:
    other = {"probe": PROBE, "bad": BAD["small"], "no HTTP": b"NONSENSE\r\n\r\n"}
    data = other[behind] if behind in other else GOOD[behind]("behind")
    wire = together([BAD[bad], data, data, PROBE])
    wire.site.commit()
    assert statuses(wire) == [400]
    assert wire.site.lines == []
    assert_ended(wire)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("behind", GOOD)
def test_it_is_the_same_when_the_requests_come_one_after_the_other(bad: str, behind: str) -> None:
    wire = Wire()
    for data in (GOOD[behind]("first"), BAD[bad], GOOD[behind]("behind")):
        wire.feed(data)
    wire.site.commit()
    assert statuses(wire) == [200, 400]
    assert names(wire.site) == ["first"]
    assert_ended(wire)


@pytest.mark.parametrize("bad", [name for name in BAD if len(BAD[name]) < 1000])
@pytest.mark.parametrize("is_repeat", [False, True])
def test_it_is_the_same_byte_by_byte_and_for_repeats(bad: str, is_repeat: bool) -> None:
    wire, good = Wire(), GOOD.get(bad, GOOD["gzip"])
    second = BAD[bad] if is_repeat else BAD[bad].replace(b"Bearer", b"bearer")
    data = good("first") * 3 + second + good("behind")
    wire.feed(data, bytewise(data))
    wire.site.commit()
    assert statuses(wire) == [200, 200, 200, 400]
    assert names(wire.site) == ["first"]
    assert_ended(wire)


def test_a_client_that_does_not_read_is_told_of_the_error_when_it_does() -> None:
    wire = Wire()
    wire.stop_reading()
    wire.feed(post(b"{") + PROBE)
    assert wire.answers() == []
    wire.read_on()
    assert statuses(wire) == [400]
    assert_ended(wire)


def test_a_half_closed_client_is_told_of_the_error_and_closed() -> None:
    site = Site()
    wire = Wire(site)
    with site.one_round():
        wire.feed(GOOD["small"]("first") + post(b"{") + GOOD["small"]("behind"))
        wire.half_close()
    site.commit()
    assert statuses(wire) == [200, 400]
    assert wire.is_closed()
    assert names(site) == ["first"]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_error_ends_the_connection_of_a_client_that_asks_to_keep_it(version: str) -> None:
    lines = ["Connection: keep-alive"]
    wire = together([post(b"{", headers=lines, version=version), post(encoded(event()), headers=lines)])
    wire.site.commit()
    assert statuses(wire) == [400]
    assert wire.site.lines == []
    assert_ended(wire)


def test_neighbours_on_other_connections_do_not_notice() -> None:
    site = Site()
    wires = [Wire(site) for _ in range(12)]
    with site.one_round():
        for i, wire in enumerate(wires):
            wire.feed(GOOD["small"](f"{i}a") + (post(b"{") if i % 3 else b"") + GOOD["small"](f"{i}b"))
    site.commit()
    for i, wire in enumerate(wires):
        assert statuses(wire) == ([200, 400] if i % 3 else [200, 200])
        assert wire.is_ended() is bool(i % 3)
    expected = [f"{i}{which}" for i in range(12) for which in ("a" if i % 3 else "ab")]
    assert names(site) == expected


def test_a_bad_probe_ends_the_connection_after_the_answers_before_it() -> None:
    site = Site(not_ready=lambda: "storage fails")
    ready = head("GET /readyz HTTP/1.1", auth=False)
    wire = together([GOOD["small"]("first"), PROBE, ready, PROBE, GOOD["small"]("behind")], site)
    assert wire.answers() == []
    site.commit()
    assert statuses(wire) == [200, 200, 503]
    assert names(site) == ["first"]
    assert_ended(wire)


@pytest.mark.parametrize("bad", ["large", "sliced"])
def test_what_is_behind_a_large_bad_body_is_not_validated(bad: str) -> None:
    """Each of the others would take five turns."""
    site = Site()
    with site.one_round():
        wire = together([BAD[bad], *[GOOD["sliced"]("behind")] * 5], site)
        while not wire.is_ended():
            assert site.turn()
        turns = site.turns
    assert site.turns - turns <= 7
    assert_ended(wire)


# -- a full ring ------------------------------------------------------------------------------


@pytest.mark.parametrize("ack", ["fsync", "memory"])
@pytest.mark.parametrize("second", GOOD)
@pytest.mark.parametrize("first", GOOD)
def test_a_full_ring_refuses_the_first_request_and_ends_its_connection(
    first: str, second: str, ack: str
) -> None:
    site = Site(ring_batches_max=1, ack=ack)
    Wire(site).feed(GOOD["bulk"]("full"))
    wire = together([GOOD[first]("a"), GOOD[second]("b"), GOOD[first]("c"), PROBE], site)
    site.commit()
    assert statuses(wire) == [429]
    assert int(wire.answers()[0].headers["Retry-After"]) >= 1
    assert names(site) == ["full"]
    assert_ended(wire)


@pytest.mark.parametrize("third", GOOD)
@pytest.mark.parametrize("second", [name for name in GOOD if name not in ("small", "chunked")])
@pytest.mark.parametrize("first", GOOD)
def test_a_ring_that_has_room_for_one_takes_the_first_and_refuses_the_second(
    first: str, second: str, third: str
) -> None:
    site = Site(ring_batches_max=1)
    wire = together([GOOD[first]("a"), GOOD[second]("b"), GOOD[third]("c")], site)
    site.commit()
    assert statuses(wire) == [200, 429]
    assert names(site) == ["a"]
    assert_ended(wire)


def test_room_that_is_made_meanwhile_is_not_for_what_is_behind_a_429() -> None:
    site = Site(ring_batches_max=1)
    first = Wire(site)
    first.feed(GOOD["bulk"]("full"))
    with site.one_round():
        wire = together([GOOD["bulk"]("a"), GOOD["sliced"]("b"), GOOD["small"]("c")], site)
        site.commit()
    site.commit()
    assert statuses(wire) == [429]
    assert names(site) == ["full"]
    assert_ended(wire)


# -- failed storage ---------------------------------------------------------------------------


@pytest.mark.parametrize("second", GOOD)
@pytest.mark.parametrize("first", GOOD)
def test_of_a_failed_commit_each_connection_has_one_500(first: str, second: str) -> None:
    site = Site()
    wires = [together([GOOD[first]("a"), GOOD[second]("b"), PROBE], site) for _ in range(3)]
    site.commit(StorageError("no space left"))
    for wire in wires:
        assert [(a.status, a.code) for a in wire.answers()] == [(500, "storage_failed")]
    assert site.lines == []
    assert_ended(wires[0])
    assert all(wire.is_closed() for wire in wires)


@pytest.mark.parametrize("gone", [None, "closed", "vanished"])
@pytest.mark.parametrize("failed", [0, 1, 2])
def test_what_later_commits_store_of_a_connection_that_has_its_500_is_not_answered(
    failed: int, gone: str | None
) -> None:
    site = Site()
    wire, other = together([GOOD["bulk"](str(i)) for i in range(4)], site), Wire(site)
    other.feed(GOOD["bulk"]("other"))
    for i, batch in enumerate(site.take()):
        site.acknowledge([batch], StorageError("once") if i == failed else None)
        if i == failed:
            assert statuses(wire) == [200] * failed + [500]
            if gone == "closed":
                wire.half_close()
            elif gone == "vanished":
                wire.vanish(ConnectionResetError())
    assert statuses(wire) == [200] * failed + [500]
    assert names(site) == [*(str(i) for i in range(4) if i != failed), "other"]
    assert other.answer().status == 200
    assert wire.is_closed() is (gone is not None)
    if gone is None:
        assert_ended(wire)


def test_a_failed_commit_ends_a_connection_whose_last_answer_is_another_error() -> None:
    for behind in (post(b"{"), b"NONSENSE\r\n\r\n", head("GET /nowhere HTTP/1.1")):
        wire = together([GOOD["bulk"]("a"), behind])
        assert wire.answers() == []
        wire.site.commit(StorageError("no space left"))
        assert statuses(wire) == [500]
        assert_ended(wire)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("beside", [b"", GOOD["small"]("beside"), post(b"{")])
def test_what_waits_for_the_end_of_its_round_when_storage_fails_is_not_stored(
    count: int, beside: bytes
) -> None:
    site = Site()
    wire, other = Wire(site), Wire(site)
    wire.feed(GOOD["small"]("lost"))
    batches = site.take()
    with site.one_round():
        wire.feed(b"".join(GOOD["small"](f"behind-{i}") for i in range(count)))
        other.feed(beside)
        site.acknowledge(batches, StorageError("no space left"))
    site.commit()
    assert statuses(wire) == [500]
    assert names(site) == (["beside"] if b"beside" in beside else [])
    assert len(other.answers()) == bool(beside)
    assert_ended(wire)


@pytest.mark.parametrize("turns", range(7))
def test_a_body_amid_its_slices_when_storage_fails_is_not_stored(turns: int) -> None:
    site = Site()
    wire = Wire(site)
    wire.feed(GOOD["small"]("lost"))
    batches = site.take()
    with site.one_round():
        wire.feed(b"", [GOOD["sliced"]("behind") + GOOD["small"]("behind") + GOOD["sliced"]("behind")])
        for _ in range(turns):
            assert site.turn()
        assert site.take() == []
        site.acknowledge(batches, StorageError("no space left"))
        assert wire.is_ended()
    site.commit()
    assert statuses(wire) == [500]
    assert site.lines == []
    assert_ended(wire)
