"""Requests out of bytes: one reader per connection, with httptools as its parser.

What it finds goes to the connection: `complete` for a request that is whole, `refuse` for one that
will not be. It is handed to the parser as its protocol, hence the names of its callbacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import httptools

from ingestd.errors import Rejection, too_large
from ingestd.forms import ONE
from ingestd.http import guards, lifecycle
from ingestd.http.authorization import Authorization
from ingestd.http.calls import Asked, Call, Repeat
from ingestd.http.decoder import compressed_bytes_max
from ingestd.http.fed import Fed
from ingestd.http.hub import Hub
from ingestd.http.intake import Intake
from ingestd.http.lifecycle import HEAD, IDLE, READING
from ingestd.http.responses import CLOSE
from ingestd.http.rounds import TOGETHER_BYTES_MAX
from ingestd.metrics import OTHER_ROUTE

if TYPE_CHECKING:
    from ingestd.http.protocol import Connection

_REPEATS_TRIED_MAX: Final = 4


class RequestReader:
    """Reads one connection's requests, one after the other."""

    __slots__ = (
        "_authorization", "_call", "_connection", "_fed", "_head", "_hub", "_intake", "_is_spent",
        "_left_bytes", "_parser", "_repeat", "_repeats_tried", "continue_due",
    )  # fmt: skip

    def __init__(self, hub: Hub, connection: Connection) -> None:
        # Per connection.
        self._hub = hub
        self._connection = connection
        self._intake = Intake(hub, connection)
        self._parser: Any = None
        self._is_spent = False
        """The parser reads no more requests, though more may come."""
        self._authorization = Authorization(hub)
        # The head that this client repeats, and how often one was looked for.
        self._repeat: Repeat | None = None
        self._repeats_tried = 0
        # Per request.
        self._fed = Fed()
        self._head: guards.Head | None = None
        self._call: Call | None = None
        self._left_bytes = 0
        self.continue_due = False
        """The client waits for 100 (Continue)."""

    @property
    def is_head(self) -> bool:
        """True if the request is known to be a HEAD, whose answer has no body."""
        head = self._head
        # The method is handed over with the target, which may be what is refused.
        return head is not None and (head.method == b"HEAD" if head.method else self._fed.is_head())

    @property
    def asked(self) -> Asked:
        """What is known of the request that is being read."""
        head, call = self._head, self._call
        if self._connection.state is IDLE:
            return Asked()
        if head is None:
            # A repeat: it has been recognised by the head that its call was made of.
            return call.asked if call is not None else Asked()
        path = head.target.partition(b"?")[0]
        route = path.decode() if path in self._hub.routes else OTHER_ROUTE
        key = call.caller.stamper.name if call is not None and call.caller is not None else None
        return Asked(route, head.method.decode() or None, key, head.forwarded)

    @property
    def close_line(self) -> bytes:
        """What the last answer says of the connection, and of who may read it."""
        head, call = self._head, self._call
        if self._connection.state is IDLE:
            return CLOSE
        if head is None:
            return call.close_line if call is not None else CLOSE
        return CLOSE + self._hub.cors.lines(head.origin) if head.origin else CLOSE

    @property
    def is_fresh(self) -> bool:
        """True if no request has begun on this connection yet."""
        return self._head is None and self._call is None

    def feed(self, data: bytes) -> bytes:
        """Read on; returns what was not looked at because the connection takes no more requests."""
        if self._left_bytes:
            data = self._read_body(data)
        if self._repeat is not None:
            data = self._read_repeats(data, self._repeat)
        while data and self._connection.state in READING:
            data = self._parse(data)
        return data

    def forget_repeat(self) -> None:
        """The next request is read by the parser."""
        self._repeat = None

    def end(self) -> None:
        """The connection reads no more requests."""
        self._intake.forget()
        self._left_bytes = 0
        self.continue_due = False
        self._parser = self._repeat = None

    def _read_repeats(self, data: bytes, repeat: Repeat) -> bytes:
        """Take the requests at the front of `data` whose head is the known one; returns the rest."""
        connection, hub, call, caller = self._connection, self._hub, repeat.call, repeat.caller
        if (
            repeat.generation != hub.keyring.generation
            or caller is not self._authorization.last
            or hub.no_room is not None
        ):
            # The keys have changed, the client has gone on with another one, or all is refused.
            self._repeat = None
            return data
        requests = caller.requests
        at, size = 0, len(data)
        while at < size and connection.state is IDLE:
            found = repeat.match(data, at)
            if found is None:
                break
            body_at, end = found
            if end <= size and call.coding is None and (requests is None or requests.take()):
                body, at = data[body_at:end], end
                if call.form is ONE and len(body) <= TOGETHER_BYTES_MAX and not connection.jobs.waiting:
                    connection.take(call, caller, body)
                else:
                    connection.complete(call, body)
            else:
                connection.go(lifecycle.BEGIN)
                at = size - len(self._begin_repeat(call, end - body_at, data[body_at:]))
        if at:
            self._repeats_tried = 0
        return data[at:] if at < size else b""

    def _begin_repeat(self, call: Call, length: int, data: bytes) -> bytes:
        """A body that is not all there yet, is to be inflated or refused; returns the rest of `data`."""
        self._call = call
        self._head = None
        try:
            assert call.caller is not None
            self._hub.admit(call.caller)
            self._intake.begin(call, length)
        except Rejection as e:
            self._connection.refuse(e)
            return data
        self._left_bytes = length
        return self._read_body(data)

    def _read_body(self, data: bytes) -> bytes:
        """Take what is left of a body whose head was a repeat; returns the rest."""
        piece = data[: self._left_bytes]
        self._left_bytes -= len(piece)
        try:
            self._intake.feed(piece)
            if not self._left_bytes:
                self._finish_body()
        except Rejection as e:
            self._connection.refuse(e)
        return data[len(piece) :]

    def _parse(self, data: bytes) -> bytes:
        """Feed the parser; returns what it has left for another one."""
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpRequestParser(self)
            # Or it would refuse other versions itself, before `guards` can say 505.
            parser.set_dangerous_leniencies(lenient_version=True)
        if self._connection.state is HEAD:
            self._fed.go_on(data)
        else:
            self._fed.begin(data, self._left_of_body())
        body = self._intake.body
        try:
            parser.feed_data(data)
            if self._connection.state is HEAD:
                self._count_head()
            elif body is not None and body is self._intake.body:
                # Else a request has ended or begun in `data`, and it is not all framing of this body.
                self._intake.count_framing(len(data))
        except httptools.HttpParserCallbackError as e:
            self._connection.refuse(guards.cause(e))
        except Rejection as e:
            self._connection.refuse(e)
        except httptools.HttpParserError as e:
            if not self._is_spent:
                self._connection.refuse(guards.unreadable(e))
        rest = b""
        if self._is_spent:
            rest = self._fed.rest()
            self._parser = None
            self._is_spent = False
        if self._connection.state is not HEAD:
            self._fed.forget()
        return rest

    def _left_of_body(self) -> int | None:
        """Bytes until the next request; None if that is not known, in a chunked body."""
        body = self._intake.body
        if body is None:
            return 0
        length = self._call.length if self._call is not None else None
        return None if length is None else length - body.wire_bytes

    def _count_head(self) -> None:
        """The parser holds an unfinished line back, where on_header cannot count it."""
        assert self._head is not None
        if self._head.header_bytes + self._fed.line_bytes > self._hub.settings.header_bytes_max:
            raise self._header_too_large()

    # -- callbacks of the parser ------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._connection.state is not IDLE:
            raise guards.after_close()
        self._connection.go(lifecycle.BEGIN)
        self._head = guards.Head()
        self._call = None

    def on_url(self, url: bytes) -> None:
        head = self._head
        assert head is not None
        head.method = self._parser.get_method()
        head.target += url
        if len(head.target) > self._hub.settings.target_bytes_max:
            raise guards.target_too_long(self._hub.settings.target_bytes_max)

    def on_header(self, name: bytes, value: bytes) -> None:
        head, settings = self._head, self._hub.settings
        assert head is not None
        if self._connection.state is HEAD:
            head.add(name, value)
        else:
            head.add_trailer(name, value)
        if head.header_count > settings.header_count_max or head.header_bytes > settings.header_bytes_max:
            raise self._header_too_large()

    def on_headers_complete(self) -> None:
        head, parser, hub = self._head, self._parser, self._hub
        assert head is not None
        head.version = parser.get_http_version()
        guards.check(head)
        raw = self._fed.head(head)
        self._call = call = Call(
            head, hub.routes, hub.cors, keep_alive=parser.should_keep_alive() and not head.says_close
        )
        if call.form is not None:
            call.caller = self._authorization.caller(head.headers.get(b"authorization", b""), head.query)
            if self._connection.state is not HEAD:
                raise guards.after_close()
            call.heed_invalid(head.query, hub.settings.on_invalid)
            hub.admit(call.caller)
            limit = hub.settings.body_bytes_max
            if (call.length or 0) > (limit if call.coding is None else compressed_bytes_max(limit)):
                raise too_large(limit)
            self.continue_due = b"expect" in head.headers and not head.is_http10
            self._learn(raw, head, call)
        self._intake.begin(call, call.length)
        if self.continue_due:
            self._connection.flush()

    def on_body(self, data: bytes) -> None:
        self._intake.feed(data)

    def on_message_complete(self) -> None:
        if self._call is not None and self._call.keep_alive and not self._parser.should_keep_alive():
            # It takes Connection in a trailer for one of the head.
            self._is_spent = True
        self._finish_body()

    def _learn(self, raw: bytes, head: guards.Head, call: Call) -> None:
        """Remember this head, unless this client has shown that its heads do not repeat."""
        hub = self._hub
        if raw and self._repeats_tried < _REPEATS_TRIED_MAX and not hub.is_draining:
            self._repeats_tried += 1
            self._repeat = Repeat.of(raw, head, call, hub.keyring.generation, hub.settings.body_bytes_max)

    # -- the body ---------------------------------------------------------------------------

    def _finish_body(self) -> None:
        call = self._call
        assert call is not None
        self._left_bytes = 0
        self.continue_due = False
        self._connection.complete(call, *self._intake.finish())

    def _header_too_large(self) -> Rejection:
        settings = self._hub.settings
        return guards.header_too_large(settings.header_bytes_max, settings.header_count_max)
