"""What sets one body of a round apart: a raw CR where a name may hide, or a bug of the server.

The others of its round are answered as if it had not been there.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import pytest

from ingestd.events import Batch, Stamper
from ingestd.forms import Form
from tests.http.test_rounds import GOOD, REST, SMALL, assert_judged_as_alone, in_one_round
from tests.support.requests import encoded, event, post
from tests.support.wire import Site, Wire, assert_ended, send

CR: Final = [
    b'{%b,"x":{"a"\r:1}}' % REST,
    b'{%b,"x":{"a"\r:1,"a":2}}' % REST,
    b'{%b,"x":{"a":1,"a"\r:2}}' % REST,
    b'{%b,"x":{"a"\r\r\n:1,"b":[{"a"\r :1}]}}' % REST,
    b'{"event"\r:"first",%b}' % REST,
    b'{"event"\r:1,%b}' % REST,
    b'{%b,"event"\r:1}' % REST,
    b'{%b,"messageId"\r:"m"}' % REST,
    b'{%b,"messageId"\r:"first","messageId":"m"}' % REST,
    b'{%b,"source"\r:"mine","receivedAt"\r:0}' % REST,
    b'{%b\r,"x"\r:\r1\r}' % REST,
    b'{%b,"x":"a\rb"}' % REST,
    b'{%b,"a\r":1}' % REST,
    b"\r" + SMALL + b"\r",
]
REPEATED: Final = [
    b'{"event":1,%b}' % REST,
    b'{"event":"first",%b,"messageId":"m"}' % REST,
    b'{%b,"event":1}' % REST,
    b'{%b,"x":{"a":1,"a":2}}' % REST,
    b'{%b,"messageId":"first","messageId":"m"}' % REST,
]


@pytest.mark.parametrize("body", CR, ids=range(len(CR)))
def test_a_body_with_a_raw_cr_is_judged_in_a_round_as_when_sent_alone(body: bytes) -> None:
    for bodies in ([body, SMALL], [SMALL, body, GOOD[1]], [body, body]):
        assert_judged_as_alone(bodies)


@pytest.mark.parametrize("body", CR, ids=range(len(CR)))
@pytest.mark.parametrize("other", REPEATED, ids=range(len(REPEATED)))
def test_a_raw_cr_in_one_body_hides_no_repeated_name_in_another(body: bytes, other: bytes) -> None:
    for bodies in ([body, other], [other, body], [other, body, SMALL], [body, *REPEATED, *CR]):
        assert_judged_as_alone(bodies)


@pytest.mark.parametrize("other", REPEATED, ids=range(len(REPEATED)))
def test_a_name_before_a_cr_does_not_make_up_for_one_that_stands_twice(other: bytes) -> None:
    """As many names as are counted, and as many as are kept: one hidden, one repeated."""
    hiding = b'{"event":"e","properties":{"a"\r:1},"timestamp"%b}' % REST.partition(b'"timestamp"')[2]
    assert send(hiding).answer.status == 200
    for bodies in ([hiding, other], [other, hiding]):
        assert_judged_as_alone(bodies)
        for line in in_one_round(bodies)[1]:
            assert line.count(b'"event":') == line.count(b'"messageId":') == 1


def test_a_bug_in_one_body_of_a_round_is_answered_500_and_the_others_are_stored(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unlucky = encoded(event("unlucky"))
    batch = Stamper.batch

    def buggy(self: Stamper, body: bytes | bytearray, form: Form) -> Batch:
        if body == unlucky:
            raise ValueError("not thought of")
        return batch(self, body, form)

    monkeypatch.setattr(Stamper, "batch", buggy)
    site = Site()
    before, hit, after, wrong = (Wire(site) for _ in range(4))
    with site.one_round():
        before.feed(post(encoded(event("before"))))
        hit.feed(post(encoded(event("first"))) + post(unlucky) + post(encoded(event("never"))))
        after.feed(post(encoded(event("after"))))
        # One that is not valid keeps them from being validated together.
        wrong.feed(post(b"{"))
    assert not site.ring.is_gathering
    site.commit()
    for wire, name in ((before, "before"), (after, "after")):
        assert (wire.answer().status, wire.answer().json["messageId"]) == (200, name)
        assert not wire.is_ended()
    assert wrong.answer().status == 400
    first, failed = hit.answers()
    assert (first.status, failed.status, failed.code) == (200, 500, "bug")
    errors: list[Any] = [r.exc_info and r.exc_info[0] for r in caplog.records if r.levelno >= logging.ERROR]
    assert errors == [ValueError]
    after.feed(post(encoded(event("later"))))
    site.commit()
    assert after.answers()[1].status == 200
    assert [stored["messageId"] for stored in site.stored] == ["before", "first", "after", "later"]
    assert_ended(hit)
    caplog.clear()
