"""The wire without a socket: bytes in, answers out, and a clock that only a test moves.

`Site` is what a worker has (hub, ring, keys, clock); `Wire` is one client's connection to it.
Only this module knows how the parts of `ingestd.http` are put together.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from typing import Any, Final, cast

from ingestd.config import Settings
from ingestd.errors import StorageError
from ingestd.events import Batch
from ingestd.http.hub import Hub
from ingestd.http.logged import connection
from ingestd.keys import Key, Keyring
from ingestd.ratelimit import RateLimits
from ingestd.ring import Ring
from tests.support.requests import SECRET, cut, encoded, event, post
from tests.support.transport import MockTransport

SOURCE: Final = "web"
RECEIPT: Final = "20260102T030405.678Z-node-w0-000001:17"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_READ_BYTES: Final = 256 * 1024


def key(secret: str = SECRET, name: str = SOURCE, *, public: bool = False, **limits: float) -> Key:
    """The kept half of an API key."""
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return Key(name=name, sha256=digest, created=datetime(2025, 1, 1, tzinfo=UTC), public=public, **limits)


@dataclass(frozen=True)
class Answer:
    """One answer as a client's own parser reads it."""

    status: int
    version: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The machine word of an error; None for a success."""
        code = self.json.get("code") if self.body else None
        assert code is None or isinstance(code, str)
        return code

    @property
    def detail(self) -> str:
        return str(self.json.get("detail", ""))


class _Received(io.BytesIO):
    """Stands for the client's socket in http.client, which reads one answer at a time from it."""

    def makefile(self, *_args: object) -> _Received:
        return self

    def close(self) -> None:
        """http.client closes after each answer; the next one still waits."""


def parse_answers(received: bytes, methods: Sequence[str] = ()) -> list[Answer]:
    """All answers in `received`; `methods` are those of the requests, POST where not given."""
    source = _Received(received)
    answers: list[Answer] = []
    while source.tell() < len(received):
        method = methods[len(answers)] if len(answers) < len(methods) else "POST"
        response = http.client.HTTPResponse(cast(socket.socket, source), method=method)
        response.begin()
        assert response.msg["Content-Length"] is not None, "an answer without a length"
        body = response.read()
        answers.append(Answer(response.status, response.version, response.msg, body))
    return answers


class Site:
    """What all connections share. `commit` does what the flusher and the worker do together."""

    def __init__(
        self,
        *,
        not_ready: Callable[[], str] = lambda: "",
        drain_bytes_per_s: float = 0.0,
        shared: memoryview | None = None,
        worker: int = 0,
        **settings: Any,
    ) -> None:
        """`shared` is the memory of the limits of two workers, of which this is one."""
        self.now = 1000.0
        self._deferred: deque[Callable[[], None]] = deque()
        self.turns = 0
        """How often something was called back."""
        self._in_round = False
        self.settings = Settings(**settings)
        self.keyring = Keyring([key()])
        self.ring = Ring(self.settings.ring_batches_max, self.settings.ring_bytes_max)
        self.hub = Hub(
            self.settings,
            self.keyring,
            self.ring,
            clock=lambda: self.now,
            defer=self._deferred.append,
            drain_bytes_per_s=lambda: drain_bytes_per_s,
            not_ready=not_ready,
            limits=None if shared is None else RateLimits(shared, worker, 2, lambda: self.now),
        )
        self.receipt = RECEIPT
        """Of the commits; always the same unless a test says otherwise, so that answers can be compared."""
        self.lines: list[bytes] = []
        """The lines committed so far, in order."""
        self.wires: list[Wire] = []

    @property
    def stored(self) -> list[Any]:
        """The events committed so far."""
        return [json.loads(line) for line in self.lines]

    @property
    def inflight_bytes(self) -> int:
        return self.hub.budget.bytes

    def take(self, bytes_max: int = 1 << 30) -> list[Batch]:
        """The batches of the next commit, as the flusher pops them."""
        return self.ring.pop(bytes_max)

    def acknowledge(self, batches: Sequence[Batch], error: StorageError | None = None) -> None:
        """End a commit: the batches leave the ring, then each request hears of its own."""
        self.ring.release(list(batches))
        for batch in batches:
            if error is None:
                assert batch.lines.endswith(b"\n")
                self.lines += batch.lines[:-1].split(b"\n")
            assert batch.ack is not None
            batch.ack(error, self.receipt if error is None else "")
        self.settle()

    def commit(self, error: StorageError | None = None, *, bytes_max: int = 1 << 30) -> None:
        """Commit all that waits; `bytes_max=1` makes a commit of each batch."""
        while batches := self.take(bytes_max):
            self.acknowledge(batches, error)

    def tick(self, seconds: float) -> None:
        """Move the clock and let the hub see it."""
        self.now += seconds
        self.hub.tick()
        self.settle()

    def drain(self) -> None:
        """Begin the shutdown."""
        self.hub.drain()
        self.settle()

    @contextmanager
    def one_round(self) -> Iterator[None]:
        """What is fed inside is read in one turn of the loop, from however many connections."""
        self._in_round = True
        yield
        self._in_round = False
        self.settle()

    def turn(self) -> bool:
        """One turn of the loop: call back what has asked for it so far; False if nothing has."""
        due = list(self._deferred)
        self._deferred.clear()
        self.turns += len(due)
        for call in due:
            call()
        return bool(due)

    def run_deferred(self) -> None:
        """Turn the loop until nobody asks for another turn."""
        while not self._in_round and self.turn():
            pass

    def settle(self) -> None:
        """What the event loop would do next: what was deferred, then each connection."""
        self.run_deferred()
        for wire in list(self.wires):
            wire.settle()


class Wire:
    """One client's connection."""

    def __init__(self, site: Site | None = None) -> None:
        self.site = site or Site()
        self._connection = connection(self.site.hub)
        self.transport = MockTransport(self._connection)
        self._held: list[bytes] = []
        self._lost = False
        self.site.wires.append(self)
        self._connection.connection_made(self.transport)
        self.settle()

    def feed(self, data: bytes, pieces: Iterable[bytes] | None = None) -> None:
        """The client sends `data` (in `pieces`); what the server does not read waits in the kernel."""
        if pieces is None:
            pieces = cut(data, range(0, len(data), _READ_BYTES))
        for piece in pieces:
            self._held.append(piece)
            self.settle()

    def settle(self) -> None:
        """Deliver what waits while the server reads; then the loss of a connection that is closed."""
        while self._held and self.transport.is_reading():
            self._connection.data_received(self._held.pop(0))
            self.site.run_deferred()
        if self.transport.closing and not self.transport.unread:
            self.vanish(None)

    def half_close(self) -> None:
        """The client has sent its last byte and goes on reading."""
        if not self._connection.eof_received():
            self.transport.close()
        self.settle()

    def vanish(self, error: Exception | None) -> None:
        """The connection is lost."""
        if not self._lost:
            self._lost = True
            self.transport.closing = True
            self.site.wires.remove(self)
            self._connection.connection_lost(error)

    def stop_reading(self) -> None:
        """The client does not read what is sent to it."""
        self.transport.client_reads = False

    def read_on(self) -> None:
        """The client reads again."""
        self.transport.read_on()
        self.settle()

    def is_ended(self) -> bool:
        """True once the client sees the end of the stream of answers."""
        return self.transport.eof_written or self.transport.closing

    def is_closed(self) -> bool:
        """True once nothing of the connection is left."""
        return self._lost

    @property
    def state(self) -> str:
        """Which state of `lifecycle` the connection is in."""
        return self._connection.state

    @property
    def continues(self) -> int:
        """How many 100 (Continue) the client got."""
        return self.transport.received.count(CONTINUE)

    def answers(self, methods: Sequence[str] = ()) -> list[Answer]:
        """The final answers that the client got so far."""
        return parse_answers(bytes(self.transport.received).replace(CONTINUE, b""), methods)

    def answer(self, method: str = "POST") -> Answer:
        """The only answer that the client got so far."""
        answers = self.answers([method])
        assert len(answers) == 1, f"{len(answers)} answers instead of one"
        return answers[0]


def assert_ended(wire: Wire) -> None:
    """The last answer says that it is the last; what still comes is drained, and nothing is left behind."""
    site, received = wire.site, bytes(wire.transport.received)
    said = [answer.headers["Connection"] for answer in wire.answers()]
    assert said[-1] == "close"
    assert "close" not in said[:-1]
    lines = len(site.lines)
    assert wire.is_ended()
    assert not wire.is_closed()
    wire.feed(post(encoded(event("after the end"))) * 3)
    assert wire.transport.is_reading()
    site.commit()
    site.tick(6)
    assert wire.is_closed()
    assert wire.transport.received == received
    assert len(site.lines) == lines
    assert (site.inflight_bytes, site.ring.batches, site.ring.is_gathering) == (0, 0, False)


@dataclass(frozen=True)
class Outcome:
    """What became of one request: its answer and the lines it left."""

    answer: Answer
    lines: list[bytes]

    @property
    def line(self) -> bytes:
        """The only line of an accepted event."""
        assert self.answer.status == 200, self.answer.body
        assert len(self.lines) == 1
        return self.lines[0]


def send(body: bytes, target: str = "/v1/track", site: Site | None = None) -> Outcome:
    """POST `body` on a connection of its own, commit, and tell what became of it."""
    wire = Wire(site or Site())
    before = len(wire.site.lines)
    wire.feed(post(body, target))
    wire.site.commit()
    answer = wire.answer()
    wire.vanish(None)
    return Outcome(answer, wire.site.lines[before:])
