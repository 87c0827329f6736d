"""What a reader of HTTP makes of a stream of bytes: ingestd's reading and h11's, in the same words."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from unittest import mock

import h11
import zstandard

from ingestd.errors import Rejection
from ingestd.forms import ONE
from ingestd.http import requests
from ingestd.http.calls import Call, Caller, Routes
from ingestd.http.cors import Cors
from ingestd.http.guards import Head
from ingestd.http.lifecycle import READING
from ingestd.http.protocol import Connection
from tests.support.requests import encoded, event
from tests.support.wire import CONTINUE, Site, Wire

HEAD_BYTES_MAX: Final = 1 << 20
"""h11's own limit, out of the way: the sizes that ingestd allows are tested elsewhere."""
BAD_BODY: Final = b"(what cannot be decompressed)"
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Read(NamedTuple):
    """One request as it was read; `body` is inflated, and empty where the call has none."""

    method: bytes
    target: bytes
    body: bytes


@dataclass
class Reading:
    """The requests that were read in a stream, and what became of the rest of it."""

    requests: list[Read] = field(default_factory=list)
    keeps: list[bool] = field(default_factory=list)
    """For each request: may another one follow it?"""
    ends: list[int] = field(default_factory=list)
    """For each request: how much of the stream had been given to the reader when it was whole."""
    refused: str | None = None
    """Why the next request was refused; None if it was not."""
    status: int = 0
    """The status that goes with it."""


class _Call(Call):
    """A Call that remembers its head, which the connection has no use for."""

    __slots__ = ("head",)

    def __init__(self, head: Head, routes: Routes, cors: Cors, *, keep_alive: bool) -> None:
        super().__init__(head, routes, cors, keep_alive=keep_alive)
        self.head = head


def _sound(call: Call, body: bytes | bytearray | Rejection) -> bytes:
    """A body that is taken, no smaller than this one: what is no event must not end what is compared."""
    events = event() if call.form is ONE else [event()]
    return encoded(events).ljust(0 if isinstance(body, Rejection) else len(body))


@contextmanager
def _noted(reading: Reading, fed: list[int]) -> Iterator[None]:
    """Note what connections take for a request, on the way from the reader to its connection.

    Only what is read as HTTP is compared, so each request that is read is answered 200.
    """
    complete, take, refuse = Connection.complete, Connection.take, Connection.refuse

    def note(call: Call, body: bytes | bytearray | Rejection) -> None:
        assert isinstance(call, _Call)
        plain = BAD_BODY if isinstance(body, Rejection) else bytes(body)
        reading.requests.append(Read(call.head.method, call.head.target, plain))
        reading.keeps.append(call.keep_alive)
        reading.ends.append(sum(fed))

    def noting_complete(
        self: Connection, call: Call, body: bytes | bytearray | Rejection, charged_bytes: int = 0
    ) -> None:
        note(call, body)
        complete(self, call, _sound(call, body), charged_bytes)

    def noting_take(self: Connection, call: Call, caller: Caller, body: bytes) -> None:
        note(call, body)
        take(self, call, caller, _sound(call, body))

    def noting_refuse(self: Connection, rejection: Rejection) -> None:
        if self.state in READING:
            reading.refused, reading.status = rejection.code, rejection.status
        refuse(self, rejection)

    with (
        mock.patch.object(requests, "Call", _Call),
        mock.patch.object(Connection, "complete", noting_complete),
        mock.patch.object(Connection, "take", noting_take),
        mock.patch.object(Connection, "refuse", noting_refuse),
    ):
        yield


def ours(pieces: Iterable[bytes]) -> Reading:
    """ingestd's reading of a stream that comes in these pieces."""
    reading = Reading()
    fed: list[int] = []
    with _noted(reading, fed):
        wire = Wire(Site())
        for piece in pieces:
            fed.append(len(piece))
            wire.feed(piece)
            wire.site.commit()
    refused = [reading.status] if reading.refused is not None else []
    statuses = [int(status) for status in _STATUS.findall(wire.transport.received.replace(CONTINUE, b""))]
    assert statuses == [200] * len(reading.requests) + refused
    wire.vanish(None)
    assert wire.site.inflight_bytes == 0
    return reading


def theirs(raw: bytes) -> Reading:
    """h11's reading, each request by a connection of its own: h11 would end after an HTTP/1.0 one."""
    reading = Reading()
    at = 0
    while at < len(raw):
        # RFC 9112 §2.2 asks servers to overlook empty lines before a request; h11 does not. llhttp
        # overlooks half of one as well: no request can hide in these two bytes.
        while raw[at : at + 1] in (b"\r", b"\n"):
            at += 1
        try:
            found = _first(raw[at:])
        except h11.RemoteProtocolError as e:
            reading.refused, reading.status = str(e), e.error_status_hint
            break
        if found is None:
            break
        request, size, keeps = found
        at += size
        reading.requests.append(request)
        reading.keeps.append(keeps)
        reading.ends.append(at)
    return reading


def _first(raw: bytes) -> tuple[Read, int, bool] | None:
    """The first request, its size, and whether another may follow; None if it is not whole."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
    connection.receive_data(raw)
    head: h11.Request | None = None
    body = bytearray()
    while True:
        got = connection.next_event()
        if isinstance(got, h11.Request):
            head = got
        elif isinstance(got, h11.Data):
            body += got.data
        elif isinstance(got, h11.EndOfMessage):
            assert head is not None
            rest, _ = connection.trailing_data
            keeps = connection.their_state is not h11.MUST_CLOSE
            return Read(head.method, head.target, _plain(head, bytes(body))), len(raw) - len(rest), keeps
        else:
            return None


def _plain(head: h11.Request, body: bytes) -> bytes:
    """The body, undone by other means than ours; empty for a call that has none."""
    if head.method != b"POST":
        return b""
    named = [value.lower() for name, value in head.headers if name == b"content-encoding"]
    undo = UNDO.get(named[0]) if named else None
    if undo is None:
        return body
    try:
        # Of nothing some make nothing; gzip asks for a member (RFC 1952 §2.2), zstd for a frame.
        return undo(body) if body else BAD_BODY
    except (OSError, EOFError, zlib.error, zstandard.ZstdError):
        return BAD_BODY


def _inflated(body: bytes) -> bytes:
    stream = zlib.decompressobj(15 if body[0] & 15 == 8 else -15)
    plain = stream.decompress(body)
    if not stream.eof or stream.unused_data:
        raise EOFError
    return plain


def _unzstd(body: bytes) -> bytes:
    plain = b""
    while body:
        frame = zstandard.ZstdDecompressor(max_window_size=8 << 20).decompressobj()
        plain += frame.decompress(body)
        if not frame.eof:
            raise EOFError
        body = frame.unused_data
    return plain


UNDO: Final[dict[bytes, Callable[[bytes], bytes]]] = {
    b"gzip": gzip.decompress,
    b"x-gzip": gzip.decompress,
    b"deflate": _inflated,
    b"zstd": _unzstd,
}
