"""Mixed load on a server that is about to be killed: several connections, each on a plan of its own.

Sockets are read to their very end whatever happened to writing: the last answers of a killed server are
the ones that count.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import random
import re
import socket
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from tests.e2e.kill_ledger import Counts, Ledger, Stream

_LENGTH: Final = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.IGNORECASE)
_NOISE: Final = base64.b64encode(random.Random(1).randbytes(4 * 1024 * 1024))
"""Does not compress well: only a frame of many pages is ever torn by a kill."""
_LARGE_BYTES: Final = (600_000, 600_000, 5_000_000)
"""More than ingestd.events.SLICED_BYTES_MIN: such a body is validated in slices, between others."""
_TEXTS: Final = tuple(
    text.encode()
    for text in (
        "",
        "plain",
        "Grüße, 世界 🎉",
        r"a\nb\tc\r\n",
        r"\"quoted\" \\ \/ \u0000\u2028",
        "}],[{",
        "x" * 300,
    )
)
_GROUP_BYTES: Final = 8_000_000
_FLOOD_BYTES: Final = 2_000_000
"""Sent behind a refused request: far below `body_bytes_max`, where the server closes, answers owed or not."""
_FORMS: Final = ("plain", "gzip", "members", "chunked", "gzip chunked")


def _event(connection: int, number: int, text: bytes) -> bytes:
    return (
        b'{"messageId":"%d-%d","event":"load","properties":{"c":%d,"n":%d,"text":"%b"},'
        b'"timestamp":"2025-10-29T22:00:00.778Z"}' % (connection, number, connection, number, text)
    )


def _events(dice: random.Random, stream: Stream, count: int, size: int) -> list[bytes]:
    """The stream's next events: `size` bytes of noise in each, or a short text if it is 0."""
    made = []
    for number in range(stream.numbered, stream.numbered + count):
        start = dice.randrange(len(_NOISE) - size)
        text = _NOISE[start : start + size] if size else dice.choice(_TEXTS)
        made.append(_event(stream.connection, number, text))
    return made


def _spoiled(dice: random.Random, body: bytes) -> bytes:
    """A body that must be refused for the sake of its last event."""
    if dice.random() < 0.5:
        return body[:-1]
    before, _, after = body.rpartition(b'"timestamp"')
    return before + b'"timestomp"' + after


def _chunks(dice: random.Random, body: bytes) -> bytes:
    parts = []
    size = dice.choice((500, 5_000, 100_000))
    for start in range(0, len(body), size):
        piece = body[start : start + size]
        parts.append(b"%x\r\n%b\r\n" % (len(piece), piece))
    return b"".join(parts) + b"0\r\n\r\n"


def _framed(dice: random.Random, path: bytes, key: bytes, body: bytes, form: str) -> bytes:
    """The whole request, its body in this form."""
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n" % (path, key)
    if form.startswith("gzip"):
        body = gzip.compress(body, 1)
    elif form == "members":
        cut = dice.randrange(len(body))
        body = gzip.compress(body[:cut], 1) + gzip.compress(body[cut:], 1)
    if form.startswith("gzip") or form == "members":
        head += b"Content-Encoding: gzip\r\n"
    if form.endswith("chunked"):
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + _chunks(dice, body)
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


@dataclass(frozen=True, slots=True)
class _Request:
    """One that has been sent; its answer is owed."""

    status: int
    """What it must be; 0: none may come, for the server ends the connection with the error before it."""
    message_ids: list[str]
    is_single: bool

    def answer(self) -> dict[str, Any]:
        """The body of a 200."""
        if self.is_single:
            return {"status": "ok", "messageId": self.message_ids[0]}
        return {"status": "ok", "messageIds": self.message_ids}


_NOTHING: Final = _Request(0, [], is_single=False)


@dataclass(slots=True)
class Load:
    """All connections of one round. `surprises` are answers, and ends of connections, that should not be."""

    address: tuple[str, int]
    key: bytes
    ledger: Ledger
    counts: Counts
    events_acknowledged: int = 0
    is_ending: bool = False
    """The kill is at hand: from now on a connection may end."""
    has_lost_worker: bool = False
    """So may those of one worker; their clients connect again."""
    surprises: list[str] = field(default_factory=list)

    async def run(self, dice: random.Random) -> None:
        """Returns when the server is gone."""
        lanes = [random.Random(dice.random()) for _ in range(dice.randrange(1, 7))]
        await asyncio.gather(*[self._lane(own) for own in lanes])

    async def _lane(self, dice: random.Random) -> None:
        """One connection after the other."""
        plan = _Plan.draw(dice)
        while not self.is_ending:
            with socket.socket() as sock:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    await asyncio.get_running_loop().sock_connect(sock, self.address)
                except OSError as e:
                    self._ended(f"not accepted: {e}")
                    return
                connection = _Connection(self, sock, self.ledger.connect(), plan, dice)
                if not await connection.run() and not self.has_lost_worker:
                    self._ended(f"{connection} ended")
                    return

    def _ended(self, what: str) -> None:
        if not self.is_ending:
            self.surprises.append(f"surprise: {what} before the kill")


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the connections of one lane do."""

    window: int
    """Requests without an answer at most; more than one: pipelined."""
    requests: int
    """Then the connection ends, perhaps with answers owed."""
    forms: tuple[str, ...]
    large: float
    invalid: float
    bulk: float

    @classmethod
    def draw(cls, dice: random.Random) -> _Plan:
        return cls(
            window=dice.choice((1, 1, 4, 32, 200)),
            requests=dice.choice((1, 10, 200, 1_000_000)),
            # A head that repeats is read on another way.
            forms=dice.choice((("plain",), _FORMS)),
            large=dice.choice((0, 0, 0.02, 0.2)),
            invalid=dice.choice((0, 0.005, 0.05)),
            bulk=dice.random(),
        )

    def shape(self, dice: random.Random) -> tuple[int, int, bool]:
        """Of the next request: events, bytes of noise in each, if it is bulk."""
        is_bulk = dice.random() < self.bulk
        count = round(300 ** dice.random()) if is_bulk else 1
        is_large = dice.random() < self.large
        return count, dice.choice(_LARGE_BYTES) // count if is_large else 0, is_bulk


class _Connection:
    """Sends as its plan says, and reads until the other end is gone."""

    def __init__(
        self, load: Load, sock: socket.socket, stream: Stream, plan: _Plan, dice: random.Random
    ) -> None:
        self.stream = stream
        self._load = load
        self._socket = sock
        self._plan = plan
        self._dice = dice
        self._owed: deque[_Request] = deque()
        self._room = asyncio.Event()
        self._left = plan.requests
        self._behind_bytes = 0
        self._error: OSError | None = None
        self._is_refused = False
        """An error has been answered, and nothing after it will be."""

    def __str__(self) -> str:
        return (
            f"connection {self.stream.connection} ({self._plan}; {len(self._owed)} answers owed, "
            f"{self._behind_bytes} bytes behind a refused request; {self._error!r})"
        )

    async def run(self) -> bool:
        """True if it came to the end that was planned."""
        sending = asyncio.create_task(self._send())
        try:
            await self._receive()
        finally:
            sending.cancel()
            await asyncio.wait([sending])
        if not sending.cancelled() and (error := sending.exception()) is not None:
            raise error
        return self._is_refused or not (self._left or self._owed)

    async def _send(self) -> None:
        loop, dice, plan = asyncio.get_running_loop(), self._dice, self._plan
        with suppress(OSError):
            while self._left and not self._load.is_ending:
                while len(self._owed) >= plan.window:
                    self._room.clear()
                    await self._room.wait()
                data = self._group(dice.randrange(plan.window - len(self._owed)) % 16 + 1)
                cut = dice.randrange(len(data)) if dice.random() < 0.2 else 0
                for piece in (data[:cut], data[cut:]):
                    await loop.sock_sendall(self._socket, piece)
                    await asyncio.sleep(0)
            if not self._left:
                self._socket.shutdown(socket.SHUT_WR)

    def _group(self, most: int) -> bytes:
        """The next requests, to be sent in one piece; the last ones if the plan says so."""
        data = bytearray()
        while most and self._left and len(data) < _GROUP_BYTES:
            was_over = self.stream.is_over
            request = self._request()
            data += request
            most -= 1
            self._left -= 1
            if was_over:
                self._behind_bytes += len(request)
                if self._behind_bytes > _FLOOD_BYTES:
                    self._left = 0
        return bytes(data)

    def _request(self) -> bytes:
        """Make the next request, and note that it is sent."""
        dice, stream, plan = self._dice, self.stream, self._plan
        count, size, is_bulk = plan.shape(dice)
        if stream.is_over:
            size = 0
        events = _events(dice, stream, count, size)
        first = stream.numbered
        body = b"[%b]" % dice.choice((b",", b" ,\r\n")).join(events) if is_bulk else events[0]
        is_valid = dice.random() >= plan.invalid
        was_over = stream.is_over
        stream.sent(events, is_valid=is_valid)
        ids = [f"{stream.connection}-{number}" for number in range(first, first + count)]
        status = 0 if was_over else 200 if is_valid else 400
        self._owed.append(_Request(status, ids, not is_bulk))
        if not is_valid:
            body = _spoiled(dice, body)
        path = b"/v1/bulk-track" if is_bulk else b"/v1/track"
        return _framed(dice, path, self._load.key, body, dice.choice(plan.forms))

    async def _receive(self) -> None:
        loop, buffer = asyncio.get_running_loop(), bytearray()
        try:
            while data := await loop.sock_recv(self._socket, 256 * 1024):
                buffer += data
                self._read_answers(buffer)
                self._room.set()
        except OSError as e:
            self._error = e

    def _read_answers(self, buffer: bytearray) -> None:
        while (head_end := buffer.find(b"\r\n\r\n") + 4) > 3:
            match = _LENGTH.search(buffer, 0, head_end)
            end = head_end + (int(match[1]) if match is not None else 0)
            if len(buffer) < end:
                return
            self._answered(int(buffer[9:12]), bytes(buffer[head_end:end]))
            del buffer[:end]

    def _answered(self, status: int, body: bytes) -> None:
        load = self._load
        request = self._owed.popleft() if self._owed else _NOTHING
        told = status == request.status and (status != 200 or msgspec.json.decode(body) == request.answer())
        if not told:
            load.surprises.append(
                f"surprise: {status} {body[:300]!r} on {self} where "
                f"{request.status} for {request.message_ids[:3]} was due"
            )
        elif status == 200:
            self.stream.acknowledged += len(request.message_ids)
            load.events_acknowledged += len(request.message_ids)
            load.counts.requests_acknowledged += 1
        else:
            self._is_refused = True
