"""One connection: bytes in, requests out of httptools, answers back in the order of the requests.

The life of a connection is `state`:

    IDLE   between requests             first byte → HEAD
    HEAD   a request's head arrives     headers checked → BODY; refused → DRAIN
    BODY   its body arrives             complete → IDLE; refused → DRAIN
    DRAIN  an error is answered and the connection will close: what still arrives is thrown
           away, up to a limit, so that the client gets to read the answer (RFC 9112 §9.6)
    CLOSED nothing more is read or written

A request is answered when its batch is acknowledged, perhaps after later ones have been read:
`_exchanges` holds the unanswered ones, and answers leave only from its front.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from typing import Any, Final

import httptools

from ingestd.errors import Rejection, StorageError, internal, too_large
from ingestd.events import MANY, ONE, Batch, Stamper
from ingestd.http import guards, responses
from ingestd.http.hub import Hub
from ingestd.http.inflate import Gunzip

log = logging.getLogger("ingestd.http")

IDLE, HEAD, BODY, DRAIN, CLOSED = "idle", "head", "body", "drain", "closed"

_ROUTES: Final = {
    b"/v1/track": (b"POST",),
    b"/v1/bulk-track": (b"POST",),
    b"/healthz": (b"GET", b"HEAD"),
    b"/readyz": (b"GET", b"HEAD"),
}
_DRAIN_S: Final = 5.0


class Exchange:
    """A request on its way to its answer; `answer` is None until then."""

    __slots__ = ("answer", "batch", "connection", "connection_line", "is_many", "keep_alive")

    def __init__(self, connection: Connection, connection_line: bytes, keep_alive: bool) -> None:
        self.connection = connection
        self.connection_line = connection_line
        self.keep_alive = keep_alive
        self.is_many = False
        self.batch: Batch | None = None
        self.answer: bytes | None = None

    def acknowledge(self, error: StorageError | None) -> None:
        """The batch is kept, or storage failed."""
        batch = self.batch
        assert batch is not None
        if error is not None:
            self.answer = responses.rejected(internal("storage_failed"), self.connection_line)
        elif self.is_many:
            self.answer = responses.stored_many(batch.message_ids, self.connection_line)
        else:
            self.answer = responses.stored_one(batch.message_ids[0], self.connection_line)
        self.batch = None
        self.connection.flush()


class Connection(asyncio.Protocol):
    """The asyncio protocol of one client connection."""

    __slots__ = (
        "_authorization",
        "_body",
        "_body_bytes",
        "_continue_due",
        "_drained_bytes",
        "_exchanges",
        "_generation",
        "_gunzip",
        "_head",
        "_head_fed_bytes",
        "_hub",
        "_parser",
        "_paused_reading",
        "_stamper",
        "_transport",
        "_writing_paused",
        "deadline",
        "state",
    )

    def __init__(self, hub: Hub) -> None:
        # Per connection.
        self._hub = hub
        self._transport: Any = None
        self._parser: Any = None
        self._exchanges: deque[Exchange] = deque()
        self._paused_reading = False
        self._writing_paused = False
        self._drained_bytes = 0
        self.state = IDLE
        self.deadline = math.inf
        # The last Authorization header and what it was good for, until the keys change.
        self._authorization = b""
        self._generation = -1
        self._stamper: Stamper | None = None
        # Per request.
        self._head = guards.Head()
        self._head_fed_bytes = 0
        self._gunzip: Gunzip | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._continue_due = False

    # -- the connection ---------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        hub = self._hub
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        hub.connections.add(self)
        self.deadline = hub.now + hub.settings.header_timeout_s
        if len(hub.connections) > hub.settings.connections_max:
            self._refuse(Rejection(503, "too_many_connections", "Service unavailable.", "try again later"))

    def connection_lost(self, _exc: Exception | None) -> None:
        self.state = CLOSED
        self._hub.connections.discard(self)
        self._forget_body()
        self._exchanges.clear()
        self._parser = None

    def pause_writing(self) -> None:
        """The client does not read its answers: stop reading its requests, and wait only so long."""
        self._writing_paused = True
        self.deadline = self._hub.now + self._hub.settings.write_timeout_s
        self._regulate_reading()

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._set_deadline()
        self._regulate_reading()

    def eof_received(self) -> bool:
        """A half-closed client may still read its answers."""
        if self._exchanges:
            self._exchanges[-1].keep_alive = False
            self.state = DRAIN
            return True
        return False

    def overdue(self) -> None:
        """The deadline has passed."""
        if self.state in (HEAD, BODY) and not self._writing_paused:
            self._refuse(Rejection(408, "request_timeout", "Request timeout.", "the request took too long"))
        elif self._exchanges and not self._writing_paused:
            # Only the disk is late; the client may go on waiting.
            self.deadline = math.inf
        else:
            self.abort()

    def abort(self) -> None:
        """End now, answers unsent; a plain close would wait for a client that does not read."""
        self.state = CLOSED
        self.deadline = math.inf
        self._transport.abort()

    def drain(self) -> None:
        """The server shuts down: close now if idle, else after the answers that are due."""
        if self.state == IDLE and not self._exchanges:
            self._close()

    def _close(self) -> None:
        self.state = CLOSED
        self.deadline = math.inf
        self._transport.close()

    def _set_deadline(self) -> None:
        settings, now = self._hub.settings, self._hub.now
        if self.state == IDLE:
            self.deadline = math.inf if self._exchanges else now + settings.idle_timeout_s

    def _regulate_reading(self) -> None:
        pause = self._writing_paused or len(self._exchanges) >= self._hub.settings.pipeline_max
        if pause is not self._paused_reading and self.state != CLOSED:
            self._paused_reading = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # -- bytes in ---------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.state is DRAIN or self.state is CLOSED:
            self._drained_bytes += len(data)
            if self._drained_bytes > self._hub.settings.body_bytes_max:
                self._close()
            return
        try:
            self._parser.feed_data(data)
            if self.state is HEAD:
                # The parser holds an unfinished line back, where on_header cannot count it.
                self._head_fed_bytes += len(data)
                if self._head_fed_bytes > self._hub.settings.header_bytes_max:
                    raise self._header_too_large()
        except httptools.HttpParserCallbackError as e:
            cause = e.__context__
            if isinstance(cause, Rejection):
                self._refuse(cause)
            else:
                log.error("bug while reading a request", exc_info=cause)
                self._refuse(internal("bug"))
        except Rejection as e:
            self._refuse(e)
        except httptools.HttpParserUpgrade:
            self._refuse(
                Rejection(400, "upgrade_refused", "Bad request.", "this server does not change protocols")
            )
        except httptools.HttpParserError as e:
            self._refuse(Rejection(400, "bad_request", "Bad request.", f"not HTTP as it should be: {e}"))

    # -- callbacks of the parser ------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.state is DRAIN:
            raise Rejection(400, "after_close", "Bad request.", "bytes after the last request")
        self.state = HEAD
        self.deadline = self._hub.now + self._hub.settings.header_timeout_s
        self._head = guards.Head()
        self._head_fed_bytes = 0

    def on_url(self, url: bytes) -> None:
        head = self._head
        head.target += url
        if len(head.target) > self._hub.settings.target_bytes_max:
            raise guards.target_too_long(self._hub.settings.target_bytes_max)

    def on_header(self, name: bytes, value: bytes) -> None:
        head, settings = self._head, self._hub.settings
        head.add(name, value)
        if head.header_count > settings.header_count_max or head.header_bytes > settings.header_bytes_max:
            raise self._header_too_large()

    def on_headers_complete(self) -> None:
        head, parser, hub = self._head, self._parser, self._hub
        head.method = parser.get_method()
        head.version = parser.get_http_version()
        head.is_http10 = head.version == "1.0"
        guards.check(head)
        path = head.target.partition(b"?")[0]
        allowed = _ROUTES.get(path)
        if allowed is None:
            raise Rejection(404, "not_found", "Not found.", "the calls are POST /v1/track and /v1/bulk-track")
        if head.method not in allowed:
            allow = b", ".join(allowed)
            raise Rejection(405, "method_not_allowed", "Method not allowed.", None, b"Allow: %s\r\n" % allow)
        if allowed[0] == b"POST":
            self._admit(head)
        self.state = BODY
        self.deadline += hub.settings.request_timeout_s - hub.settings.header_timeout_s

    def _admit(self, head: guards.Head) -> None:
        """Decide from the headers of a POST whether its body is wanted. Raises Rejection."""
        hub, headers = self._hub, head.headers
        authorization = headers.get(b"authorization", b"")
        if authorization != self._authorization or self._generation != hub.keyring.generation:
            self._stamper = hub.authorize(authorization)
            self._authorization = authorization
            self._generation = hub.keyring.generation
        limit = hub.settings.body_bytes_max
        length = int(headers.get(b"content-length", b"0"))
        if headers.get(b"content-encoding", b"").lower() in (b"gzip", b"x-gzip"):
            self._gunzip = Gunzip(limit)
            # Stored blocks make gzip larger than what it holds by less than 1/1000 (RFC 1951 §3.2.4).
            limit += limit // 1000 + 1024
        if length > limit:
            raise too_large(hub.settings.body_bytes_max)
        if b"expect" in headers and not head.is_http10:
            self._continue_due = True
            self.flush()

    def on_body(self, data: bytes) -> None:
        hub = self._hub
        gunzip = self._gunzip
        if gunzip is None:
            size = len(data)
            if self._body_bytes + size > hub.settings.body_bytes_max:
                raise too_large(hub.settings.body_bytes_max)
            self._body.append(data)
        else:
            size = gunzip.feed(data)
        self._body_bytes += size
        hub.reserve(size)

    def on_message_complete(self) -> None:
        hub, head = self._hub, self._head
        keep_alive = self._parser.should_keep_alive() and not hub.is_draining
        line = responses.connection_line(keep_alive=keep_alive, is_http10=head.is_http10)
        exchange = Exchange(self, line, keep_alive)
        self._continue_due = False
        try:
            if head.method == b"POST":
                self._store(exchange)
            else:
                exchange.answer = self._probe(line)
        except Rejection as e:
            # The request has been read to its end, so the connection is none the worse.
            exchange.answer = responses.rejected(e, line, is_head=head.method == b"HEAD")
        finally:
            self._forget_body()
        self._exchanges.append(exchange)
        self.state = IDLE if keep_alive else DRAIN
        if exchange.answer is not None:
            self.flush()
        else:
            self.deadline = math.inf
            if len(self._exchanges) >= hub.settings.pipeline_max:
                self._regulate_reading()

    def _store(self, exchange: Exchange) -> None:
        """Hand the request's events to the flusher. Raises Rejection."""
        gunzip, parts = self._gunzip, self._body
        if gunzip is not None:
            parts = [gunzip.finish()]
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        assert self._stamper is not None
        exchange.is_many = self._head.target.startswith(b"/v1/bulk-track")
        batch = self._stamper.batch(body, MANY if exchange.is_many else ONE)
        exchange.batch = batch
        if self._hub.acks_on_push:
            batch.ack = _nobody_waits
            self._hub.push(batch)
            exchange.acknowledge(None)
        else:
            batch.ack = exchange.acknowledge
            self._hub.push(batch)

    def _probe(self, line: bytes) -> bytes:
        is_head = self._head.method == b"HEAD"
        if self._head.target.startswith(b"/readyz"):
            refusal = self._hub.readiness()
            if refusal is not None:
                return responses.rejected(refusal, line, is_head=is_head)
        return responses.probe(200, b'{"status":"ok"}', line, is_head=is_head)

    # -- answers out ------------------------------------------------------------------------

    def flush(self) -> None:
        """Write the answers at the front; then the 100 that the next request waits for."""
        exchanges = self._exchanges
        if self.state is CLOSED:
            return
        was_full = self._paused_reading
        while exchanges and exchanges[0].answer is not None:
            exchange = exchanges.popleft()
            self._transport.write(exchange.answer)
            if not exchange.keep_alive:
                self._finish()
                return
        if was_full:
            self._regulate_reading()
        if not exchanges:
            if self._continue_due:
                self._continue_due = False
                self._transport.write(responses.CONTINUE)
            if self.state is IDLE and not self._writing_paused:
                if self._hub.is_draining:
                    self._close()
                else:
                    self.deadline = self._hub.now + self._hub.settings.idle_timeout_s

    def _refuse(self, rejection: Rejection) -> None:
        """Answer with an error, after what is due before it, and read no more requests."""
        if self.state is DRAIN or self.state is CLOSED:
            return
        line = responses.connection_line(keep_alive=False, is_http10=False)
        exchange = Exchange(self, line, keep_alive=False)
        exchange.answer = responses.rejected(rejection, line, is_head=self._head.method == b"HEAD")
        self._continue_due = False
        self._forget_body()
        self.state = DRAIN
        self.deadline = math.inf
        self._exchanges.append(exchange)
        self.flush()

    def _finish(self) -> None:
        """The last answer is written: say so, and give the client time to read it."""
        self._exchanges.clear()
        self.state = DRAIN
        self.deadline = self._hub.now + _DRAIN_S
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._close()

    def _forget_body(self) -> None:
        self._hub.inflight_bytes -= self._body_bytes
        self._body_bytes = 0
        self._body = []
        self._gunzip = None

    def _header_too_large(self) -> Rejection:
        settings = self._hub.settings
        return guards.header_too_large(
            f"{settings.header_bytes_max} bytes in {settings.header_count_max} lines at most"
        )


def _nobody_waits(_error: StorageError | None) -> None:
    """Ack level memory: the answer has gone out already."""
