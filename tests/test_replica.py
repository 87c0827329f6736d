"""When the log is asked again, and when events do without it: a log that answers as told, and a clock."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from ingestd.config import Settings
from ingestd.errors import StorageError, Unreplicated
from ingestd.eventlog.log import LogError, Message
from ingestd.events import Batch
from ingestd.service.replica import Replica


class ToldLog:
    """Fails as long as it is told a reason; each failure takes some time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reason = ""
        self.fails_commits_only = False
        self.pending: list[Message] = []
        self.taken: list[str] = []
        self.probes = 0

    def put(self, messages: Sequence[Message]) -> None:
        self.pending += messages

    def settle(self, timeout_s: float) -> None:
        if self.reason:
            self.now += timeout_s
            raise LogError(self.reason)
        self.taken += [message.message_id for message in self.pending]
        self.pending = []

    def forget(self) -> None:
        self.pending = []

    def probe(self, timeout_s: float) -> None:
        self.probes += 1
        if self.reason and not self.fails_commits_only:
            self.now += timeout_s
            raise LogError(self.reason)

    def close(self) -> None:
        self.pending = []


def batch(name: str) -> Batch:
    return Batch(b'{"messageId":"%b","source":"s"}\n' % name.encode(), [name], 0)


def made(**settings: Any) -> tuple[Replica, ToldLog]:
    log = ToldLog()
    asked = Settings(ack="replicated", replicate_to="nats://h/s", replicate_timeout_s=5, **settings)
    return Replica(asked, log, clock=lambda: log.now), log


def test_before_anything_is_sent_it_is_asked_once_if_it_is_there() -> None:
    replica, log = made()
    assert replica.refuses
    replica.look()
    assert (replica.problem, log.probes) == ("", 1)
    assert replica.send([batch("a"), batch("b")]) == "replicated"
    assert (log.taken, log.probes) == (["a", "b"], 1)


def test_while_it_is_away_nothing_waits_but_one_try_a_second() -> None:
    replica, log = made()
    replica.look()
    log.reason = "no broker"
    with pytest.raises(Unreplicated):
        replica.send([batch("a")])
    assert replica.problem == "no broker"
    assert (log.now, log.pending, replica.failures) == (5.0, [], 1)
    for _ in range(100):
        with pytest.raises(Unreplicated):
            replica.send([batch("b")])
    assert (log.now, log.probes) == (5.0, 1)
    log.now += 1.0
    replica.look()
    replica.look()
    assert log.probes == 2
    log.reason = ""
    log.now += 1.0
    assert replica.send([batch("c")]) == "replicated"
    assert log.taken == ["c"]


def test_where_events_are_refused_one_that_takes_nothing_is_tried_ever_more_seldom() -> None:
    replica, log = made()
    replica.look()
    log.reason, log.fails_commits_only = "the stream is full", True
    tries = []
    for number in range(10_000):
        before = log.now
        with pytest.raises(Unreplicated):
            replica.send([batch(str(number))])
        if log.now > before:
            tries.append(log.now)
        log.now += 0.1
    rests = [round(later - earlier) for earlier, later in pairwise(tries)]
    # Each with the five seconds of the try.
    assert rests[0] < 7
    assert rests == sorted(rests)
    assert rests[-1] == 65
    log.reason = ""
    log.now += 60
    assert replica.send([batch("again")]) == "replicated"
    # The next outage begins anew.
    log.reason = "no broker"
    with pytest.raises(Unreplicated):
        replica.send([batch("x")])
    log.reason = ""
    log.now += 1
    assert replica.send([batch("y")]) == "replicated"


def test_what_a_commit_that_failed_has_put_is_not_sent_with_the_next() -> None:
    replica, log = made()
    with pytest.raises(StorageError, match="no event"):
        replica.send([batch("a"), Batch(b"{]\n", ["b"], 0)])
    assert replica.send([batch("c")]) == "replicated"
    assert log.taken == ["c"]


def test_one_that_answers_and_takes_nothing_is_tried_again_after_a_rest() -> None:
    replica, log = made(replicate_fallback="fsync")
    replica.look()
    log.reason, log.fails_commits_only = "the stream is full", True
    tries = 0
    for number in range(1000):
        before = log.now
        assert replica.send([batch(str(number))]) == "fsync"
        tries += log.now > before
        log.now += 0.1
    assert replica.events_fallen_back == 1000
    assert not replica.refuses
    # 5 s each; a tenth of the time, and not more.
    assert 2 <= tries <= 4
    log.reason = ""
    log.now += 60
    assert replica.send([batch("again")]) == "replicated"
    assert log.taken == ["again"]
