"""Several keys on one connection, and in one round: events are stored in the order of their requests."""

from __future__ import annotations

from typing import Final

import pytest

from tests.support.requests import SECRET, encoded, event, head, post
from tests.support.wire import Site, Wire, assert_ended, key

SECRETS: Final = {"web": SECRET, "b": "ing_b", "c": "ing_c"}


def keyed(source: str, body: bytes) -> bytes:
    """A POST with the key of this name."""
    lines = [f"Authorization: Bearer {SECRETS[source]}", f"Content-Length: {len(body)}"]
    return head("POST /v1/track HTTP/1.1", lines, auth=False) + body


def keys_site() -> Site:
    """A site that knows all of SECRETS."""
    site = Site()
    site.keyring.replace([key(secret, name) for name, secret in SECRETS.items()])
    return site


def sources(site: Site) -> list[tuple[str, str]]:
    return [(stored["messageId"], stored["source"]) for stored in site.stored]


@pytest.mark.parametrize("order", ["web b", "b web", "web b web", "b web c b web", "c b b c web web b"])
@pytest.mark.parametrize("beside", [None, "web", "b"])
@pytest.mark.parametrize("is_apart", [False, True])
def test_events_of_several_keys_are_stored_in_the_order_of_their_requests(
    order: str, beside: str | None, is_apart: bool
) -> None:
    site = keys_site()
    other, wire = Wire(site), Wire(site)
    requests = [keyed(source, encoded(event(str(i)))) for i, source in enumerate(order.split())]
    with site.one_round():
        if beside:
            other.feed(keyed(beside, encoded(event("beside"))))
        wire.feed(b"", requests if is_apart else [b"".join(requests)])
    site.commit()
    mine = [stored for stored in sources(site) if stored[0] != "beside"]
    assert mine == [(str(i), source) for i, source in enumerate(order.split())]
    assert [answer.json["messageId"] for answer in wire.answers()] == [name for name, _ in mine]


@pytest.mark.parametrize("beside", [None, "web", "b"])
@pytest.mark.parametrize("is_apart", [False, True])
def test_behind_a_bad_request_nothing_of_another_key_is_stored(beside: str | None, is_apart: bool) -> None:
    site = keys_site()
    other, wire = Wire(site), Wire(site)
    requests = [keyed("web", b"{"), keyed("b", encoded(event("behind"))), keyed("web", encoded(event("b")))]
    with site.one_round():
        if beside:
            other.feed(keyed(beside, encoded(event("beside"))))
        wire.feed(b"", requests if is_apart else [b"".join(requests)])
    site.commit()
    assert wire.answer().status == 400
    assert sources(site) == ([("beside", beside)] if beside else [])
    assert_ended(wire)


def test_an_unknown_key_behind_a_bad_request_is_not_answered() -> None:
    wire = Wire()
    wire.feed(post(b"{") + post(encoded(event())).replace(SECRET.encode(), b"ing_unknown"))
    assert wire.answer().status == 400
    assert_ended(wire)


@pytest.mark.parametrize("bad", [None, 5])
def test_a_key_that_is_no_longer_learned_from_is_stored_in_its_order_too(bad: int | None) -> None:
    """The head of one key is remembered, and the other one comes too often to be learned."""
    site = keys_site()
    wire, other = Wire(site), Wire(site)
    bodies = [b"{" if i == bad else encoded(event(str(i))) for i in range(8)]
    order = ["b", "web", "b", "web", "b", "web", "b", "web"]
    with site.one_round():
        for beside in ("b", "web"):
            other.feed(keyed(beside, encoded(event("beside"))))
        for source, body in zip(order, bodies, strict=True):
            wire.feed(keyed(source, body))
    site.commit()
    mine = [stored for stored in sources(site) if stored[0] != "beside"]
    assert mine == [(str(i), order[i]) for i in range(8 if bad is None else bad)]
    assert [answer.status for answer in wire.answers()] == [200] * len(mine) + [400] * (bad is not None)


def test_the_first_request_of_a_connection_does_not_end_the_round_of_the_others() -> None:
    site = keys_site()
    with site.one_round():
        for i in range(10):
            Wire(site).feed(keyed("web" if i % 2 else "b", encoded(event(str(i)))))
    assert site.ring.batches == 2


def test_keys_that_are_read_again_and_are_the_same_do_not_end_the_round() -> None:
    site = keys_site()
    wire = Wire(site)
    with site.one_round():
        wire.feed(keyed("web", encoded(event("0"))))
        site.keyring.replace([key(secret, name) for name, secret in SECRETS.items()])
        wire.feed(keyed("web", encoded(event("1"))))
    assert site.ring.batches == 1


@pytest.mark.parametrize("is_bad", [False, True])
def test_events_of_a_key_that_is_renamed_are_stored_in_the_order_of_their_requests(is_bad: bool) -> None:
    site = keys_site()
    other, wire = Wire(site), Wire(site)
    with site.one_round():
        other.feed(keyed("b", encoded(event("beside"))))
        wire.feed(keyed("web", b"{" if is_bad else encoded(event("0"))))
        site.keyring.replace([key(SECRET, "b")])
        wire.feed(keyed("web", encoded(event("1"))))
    site.commit()
    assert sources(site) == [("beside", "b")] + ([] if is_bad else [("0", "web"), ("1", "b")])
    assert [answer.status for answer in wire.answers()] == ([400] if is_bad else [200, 200])
