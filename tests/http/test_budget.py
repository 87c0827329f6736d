"""The budget of bytes in flight through the wire: who waits, who passes, and that every end gives it back."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Final

import pytest

from ingestd.errors import StorageError
from tests.support.requests import chunks, encoded, event, head, post
from tests.support.wire import Site, Wire

BUDGET: Final = 4 * 1024 * 1024
LARGE_MAX: Final = BUDGET * 7 // 8
KIB: Final = 1024


def body_of(name: str, kib: int) -> bytes:
    """An event of about this size."""
    return encoded(event(name, properties={"pad": "x" * (kib * KIB)}))


class Upload:
    """A client on its way with a large body, which has sent its head."""

    def __init__(self, site: Site, name: str, kib: int, *lines: str) -> None:
        self.wire = Wire(site)
        request = post(body_of(name, kib), headers=lines)
        self._rest = request.partition(b"\r\n\r\n")[2]
        self.wire.feed(request[: -len(self._rest)])

    def waits(self) -> bool:
        return not self.wire.transport.is_reading()

    def finish(self) -> None:
        self.wire.feed(self._rest)


def crowded() -> tuple[Site, Upload]:
    """A site whose budget is nearly full, and the upload that fills it."""
    site = Site(inflight_bytes_max=BUDGET)
    filling = Upload(site, "filling", 3200)
    assert not filling.waits()
    return site, filling


def test_a_large_body_waits_unread_and_without_a_100_until_there_is_room() -> None:
    site, filling = crowded()
    waiting = Upload(site, "waiting", 1200, "Expect: 100-continue")
    assert waiting.waits()
    assert waiting.wire.continues == 0
    filling.finish()
    assert not waiting.waits()
    assert waiting.wire.continues == 1
    waiting.finish()
    site.commit()
    assert waiting.wire.answer().json["messageId"] == "waiting"
    assert site.inflight_bytes == 0


def test_what_a_waiting_client_sends_all_the_same_is_kept_for_later() -> None:
    site, filling = crowded()
    waiting = Upload(site, "waiting", 1200)
    waiting.finish()
    site.commit()
    assert waiting.wire.answers() == []
    filling.finish()
    site.commit()
    assert waiting.wire.answer().json["messageId"] == "waiting"
    assert site.inflight_bytes == 0


def test_large_bodies_get_their_room_in_the_order_in_which_they_came() -> None:
    site, filling = crowded()
    uploads = [Upload(site, str(i), kib) for i, kib in enumerate((3200, 280, 3200, 280, 280))]
    assert [upload.waits() for upload in uploads] == [True] * 5
    filling.finish()
    assert [upload.waits() for upload in uploads] == [False, False, True, True, True]
    uploads[0].finish()
    uploads[1].finish()
    assert [upload.waits() for upload in uploads[2:]] == [False, False, True]
    for upload in uploads[2:]:
        upload.finish()
    site.commit()
    assert [upload.wire.answer().status for upload in uploads] == [200] * 5
    assert site.inflight_bytes == 0


def test_small_bodies_pass_beside_a_crowd_of_large_ones() -> None:
    site, _ = crowded()
    waiting = [Upload(site, "w", 1200) for _ in range(10)]
    small = Upload(site, "small", 60)
    assert not small.waits()
    small.finish()
    site.commit()
    assert small.wire.answer().status == 200
    assert all(upload.waits() for upload in waiting)


def test_what_a_crowd_that_waits_has_sent_already_does_not_take_the_room_of_small_ones() -> None:
    site, _ = crowded()
    crowd = [Wire(site) for _ in range(20)]
    for wire in crowd:
        wire.feed(post(body_of("w", 1200))[:250_000])
    statuses = [[answer.status for answer in wire.answers()] for wire in crowd]
    assert statuses[0] == []
    assert statuses[-1] == [429]
    small = Wire(site)
    small.feed(post(body_of("small", 60))[:-1])
    assert site.inflight_bytes + 250_000 > BUDGET - BUDGET // 16
    small.feed(b"}")
    site.commit()
    assert small.answer().status == 200


@pytest.mark.parametrize("leave", [lambda w: w.vanish(ConnectionResetError()), lambda w: w.site.tick(11)])
def test_when_the_first_that_waits_is_gone_the_next_one_has_its_turn(leave: Callable[[Wire], None]) -> None:
    site, filling = crowded()
    first = Upload(site, "first", 3200)
    site.tick(5)
    second = Upload(site, "second", 280)
    assert (first.waits(), second.waits()) == (True, True)
    leave(first.wire)
    assert not second.waits()
    second.finish()
    filling.finish()
    site.commit()
    assert second.wire.answer().status == 200
    assert site.inflight_bytes == 0


def test_a_body_beyond_seven_eighths_passes_alone_and_waits_for_nobody() -> None:
    site = Site(inflight_bytes_max=BUDGET)
    alone = Upload(site, "alone", 4000)
    assert LARGE_MAX < site.inflight_bytes < BUDGET
    assert not alone.waits()
    alone.finish()
    site.commit()
    assert alone.wire.answer().status == 200


def test_a_body_beyond_seven_eighths_waits_until_it_is_alone() -> None:
    site = Site(inflight_bytes_max=BUDGET)
    small = Upload(site, "small", 1)
    large = Upload(site, "large", 4000)
    assert large.waits()
    small.finish()
    assert not large.waits()


def test_who_waits_too_long_for_room_is_answered_429_with_retry_after() -> None:
    site, filling = crowded()
    waiting = Upload(site, "waiting", 1200, "Expect: 100-continue")
    site.tick(9.5)
    assert waiting.wire.answers() == []
    site.tick(1)
    answer = waiting.wire.answer()
    assert (answer.status, answer.code) == (429, "overloaded")
    assert int(answer.headers["Retry-After"]) >= 1
    assert waiting.wire.is_ended()
    filling.finish()
    site.commit()
    assert site.inflight_bytes == 0


def test_a_large_body_that_waited_with_a_part_received_holds_its_length_and_no_more() -> None:
    site, filling = crowded()
    waiting, body = Wire(site), body_of("waiting", 1200)
    held = site.inflight_bytes
    waiting.feed(post(body)[: -len(body) + 100 * KIB])
    assert not waiting.transport.is_reading()
    assert site.inflight_bytes == held + 100 * KIB
    filling.finish()
    assert site.inflight_bytes == len(body)
    for at in range(100 * KIB, 1200 * KIB, 100 * KIB):
        waiting.feed(body[at : at + 100 * KIB])
        assert site.inflight_bytes == len(body)
    waiting.feed(body[1200 * KIB :])
    site.commit()
    assert waiting.answer().json["messageId"] == "waiting"
    assert site.inflight_bytes == 0


@pytest.mark.parametrize(("seconds", "status"), [(13, 200), (15, 408)])
def test_the_time_spent_waiting_for_room_does_not_count_into_the_time_of_the_request(
    seconds: int, status: int
) -> None:
    site = Site(inflight_bytes_max=BUDGET, request_timeout_s=20, room_timeout_s=40)
    waiting, request = Wire(site), post(body_of("waiting", 1200))
    waiting.feed(request[:10])
    site.tick(6)
    filling = Upload(site, "filling", 3200)
    waiting.feed(request[10:1000])
    assert not waiting.transport.is_reading()
    site.tick(18)
    filling.finish()
    assert waiting.transport.is_reading()
    site.tick(seconds)
    waiting.feed(request[1000:])
    site.commit()
    assert waiting.answer().status == status
    assert site.inflight_bytes == 0


@pytest.mark.parametrize("is_gzip", [False, True])
def test_a_body_of_unknown_size_is_no_longer_read_when_the_room_is_used_up(is_gzip: bool) -> None:
    site, filling = crowded()
    Upload(site, "also filling", 360)
    wire = Wire(site)
    plain = body_of("unknown", 100)
    coded = gzip.compress(plain, 0) if is_gzip else plain
    lines = ["Transfer-Encoding: chunked", *(["Content-Encoding: gzip"] if is_gzip else [])]
    pieces = [coded[:90_000], coded[90_000:]]
    wire.feed(head("POST /v1/track HTTP/1.1", lines) + b"%x\r\n%b\r\n" % (len(pieces[0]), pieces[0]))
    assert not wire.transport.is_reading()
    wire.feed(chunks(pieces[1], 100_000))
    filling.finish()
    assert wire.transport.is_reading()
    site.commit()
    assert wire.answer().json["messageId"] == "unknown"


def test_a_waiting_connection_that_is_aborted_is_not_given_room() -> None:
    site = Site(inflight_bytes_max=BUDGET, write_timeout_s=5, room_timeout_s=10)
    filling = Upload(site, "filling", 3200)
    other = Upload(site, "other", 1200)
    aborted = Wire(site)
    aborted.stop_reading()
    aborted.feed(head("GET /healthz HTTP/1.1") * 700 + post(body_of("aborted", 280)))
    assert aborted.answers() == []
    site.tick(4)
    later = Upload(site, "later", 280)
    site.tick(7)
    assert aborted.is_closed()
    assert other.wire.answer().status == 429
    assert not later.waits()
    filling.finish()
    later.finish()
    site.commit()
    assert site.inflight_bytes == 0


# -- every kind of end gives all back ---------------------------------------------------------

ARRAY: Final = encoded([event(str(i), pad="x" * 1000) for i in range(700)])


def _sliced(wire: Wire, body: bytes = ARRAY) -> None:
    """Send a body that is validated in slices, and let the first of them run."""
    with wire.site.one_round():
        wire.feed(post(body, "/v1/bulk-track"))
        assert wire.site.turn()
        assert wire.site.inflight_bytes >= len(body)


def _gone_while_waiting(wire: Wire) -> None:
    filling = Upload(wire.site, "filling", 3200)
    wire.feed(post(body_of("w", 1200)))
    assert not wire.transport.is_reading()
    wire.vanish(ConnectionResetError())
    filling.finish()


def _gone_while_sliced(wire: Wire) -> None:
    with wire.site.one_round():
        wire.feed(post(ARRAY, "/v1/bulk-track") + post(b"[]", "/v1/bulk-track"))
        assert wire.site.turn()
        assert wire.site.inflight_bytes >= len(ARRAY)
        wire.vanish(ConnectionResetError())


def _cut_gzip(wire: Wire) -> None:
    wire.feed(post(gzip.compress(ARRAY)[:-1], "/v1/bulk-track", ["Content-Encoding: gzip"]))


def _chunked(wire: Wire, coded: bytes) -> None:
    wire.feed(head("POST /v1/track HTTP/1.1", ["Transfer-Encoding: chunked"]) + coded)


def _gone_amid_the_body(wire: Wire) -> None:
    wire.feed(post(ARRAY)[:300_000])
    wire.vanish(ConnectionResetError())


def _too_slow(wire: Wire) -> None:
    wire.feed(post(ARRAY)[:300_000])
    wire.site.tick(61)


def _half_closed(wire: Wire) -> None:
    wire.feed(post(encoded(event("a"))) + post(ARRAY)[:300_000])
    wire.half_close()


ENDS: dict[str, tuple[Callable[[Wire], None], list[int]]] = {
    "answered": (_sliced, [200]),
    "invalid in a slice": (lambda w: _sliced(w, ARRAY[:-1] + b",7]"), [400]),
    "invalid": (lambda w: w.feed(post(body_of("x", 1200)[:-1])), [400]),
    "gone while waiting": (_gone_while_waiting, []),
    "gone while sliced": (_gone_while_sliced, []),
    "gone amid the body": (_gone_amid_the_body, []),
    "half-closed amid the body": (_half_closed, [200]),
    "too slow": (_too_slow, [408]),
    "gzip that ends early": (_cut_gzip, [400]),
    "too large": (lambda w: _chunked(w, chunks(b" " * 900_000, 50_000)), [413]),
    "bad chunks": (lambda w: _chunked(w, b"fffff\r\n" + b" " * 0xFFFFF + b"x"), [400]),
    "beyond the budget": (lambda w: w.feed(post(body_of("x", 4400))), [429]),
}  # fmt: skip


@pytest.mark.parametrize("end", ENDS)
def test_after_every_kind_of_end_nothing_of_the_budget_is_taken(end: str) -> None:
    site = Site(inflight_bytes_max=BUDGET, body_bytes_max=850_000 if end == "too large" else 10 << 20)
    wire = Wire(site)
    run, statuses = ENDS[end]
    run(wire)
    site.commit()
    assert [answer.status for answer in wire.answers()] == statuses
    assert site.inflight_bytes == 0


def test_failed_storage_and_a_full_ring_give_the_budget_back() -> None:
    site = Site(inflight_bytes_max=BUDGET, ring_batches_max=1)
    wires = [Wire(site), Wire(site)]
    for wire in wires:
        _sliced(wire)
    assert site.inflight_bytes == 0
    site.commit(StorageError("no space left"))
    assert [wire.answer().status for wire in wires] == [500, 429]
