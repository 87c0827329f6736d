"""Requests out of bytes: one reader per connection, with httptools as its parser.

What it finds goes to the connection: `complete` for a request that is whole, `refuse` for one that
will not be. It is handed to the parser as its protocol, hence the names of its callbacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import httptools

from ingestd.errors import Rejection, too_large
from ingestd.events import ONE
from ingestd.http import guards, lifecycle
from ingestd.http.authorization import Authorization
from ingestd.http.body import Body
from ingestd.http.budget import SMALL_BYTES_MAX
from ingestd.http.calls import Call, Repeat
from ingestd.http.fed import Fed
from ingestd.http.hub import Hub
from ingestd.http.inflate import compressed_bytes_max
from ingestd.http.lifecycle import BODY, HEAD, IDLE, READING
from ingestd.http.rounds import TOGETHER_BYTES_MAX

if TYPE_CHECKING:
    from ingestd.http.protocol import Connection

_REPEATS_TRIED_MAX: Final = 4
_CHUNK_OVERHEAD_BYTES_MAX: Final = 64 * 1024
_UNWANTED_BODY_BYTES_MAX: Final = 64 * 1024


class RequestReader:
    """Reads one connection's requests, one after the other."""

    __slots__ = (
        "_authorization", "_body", "_call", "_connection", "_fed", "_framed_bytes", "_head",
        "_hub", "_is_spent", "_left_bytes", "_parser", "_repeat", "_repeats_tried",
        "continue_due", "wanted_bytes",
    )  # fmt: skip

    def __init__(self, hub: Hub, connection: Connection) -> None:
        # Per connection.
        self._hub = hub
        self._connection = connection
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
        self._body: Body | None = None
        self._left_bytes = 0
        self._framed_bytes = 0
        self.continue_due = False
        """The client waits for 100 (Continue)."""
        self.wanted_bytes: int | None = None
        """What it waits for in the budget."""

    @property
    def is_head(self) -> bool:
        """True if the request is known to be a HEAD, whose answer has no body."""
        head = self._head
        # The method is handed over with the target, which may be what is refused.
        return head is not None and (head.method == b"HEAD" if head.method else self._fed.is_head())

    def feed(self, data: bytes) -> bytes:
        """Read on; returns what was not looked at because the connection takes no more requests."""
        if self._left_bytes:
            data = self._read_body(data)
        if self._repeat is not None and self._connection.state is IDLE:
            data = self._read_repeats(data, self._repeat)
        while data and self._connection.state in READING:
            data = self._parse(data)
        return data

    def forget_repeat(self) -> None:
        """The next request is read by the parser."""
        self._repeat = None

    def end(self) -> None:
        """The connection reads no more requests."""
        self.forget_body()
        self._parser = self._repeat = None

    def _read_repeats(self, data: bytes, repeat: Repeat) -> bytes:
        """Take the requests at the front of `data` whose head is the known one; returns the rest."""
        connection, call = self._connection, repeat.call
        hub = self._hub
        if (
            repeat.generation != hub.keyring.generation
            or call.stamper is not self._authorization.last
            or hub.no_room is not None
        ):
            # The keys have changed, the client has gone on with another one, or all is refused.
            self._repeat = None
            return data
        at, size = 0, len(data)
        while at < size and connection.state is IDLE:
            found = repeat.match(data, at)
            if found is None:
                break
            body_at, length = found
            end = body_at + length
            if end <= size and not call.is_gzip:
                if call.form is ONE and length <= TOGETHER_BYTES_MAX and not connection.jobs:
                    connection.take(call, data[body_at:end])
                else:
                    connection.complete(call, data[body_at:end])
                at = end
            else:
                connection.go(lifecycle.BEGIN)
                at = size - len(self._begin_repeat(call, length, data[body_at:]))
        if not at:
            return data
        self._repeats_tried = 0
        return data[at:]

    def _begin_repeat(self, call: Call, length: int, data: bytes) -> bytes:
        """A body that is not all there yet, or is to be inflated; returns the rest of `data`."""
        self._call = call
        self._head = None
        try:
            self._begin_body(call, length)
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
            self._feed(piece)
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
        body = self._body
        try:
            parser.feed_data(data)
            if self._connection.state is HEAD:
                self._count_head()
            elif body is not None and body is self._body:
                # Else a request has ended or begun in `data`, and it is not all framing of this body.
                self._count_framing(body, len(data))
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
        if self._body is None:
            return 0
        length = self._call.length if self._call is not None else None
        return None if length is None else length - self._body.wire_bytes

    def _count_head(self) -> None:
        """The parser holds an unfinished line back, where on_header cannot count it."""
        assert self._head is not None
        if self._head.header_bytes + self._fed.line_bytes > self._hub.settings.header_bytes_max:
            raise self._header_too_large()

    def _count_framing(self, body: Body, size: int) -> None:
        """A body of tiny chunks costs far more than it carries."""
        self._framed_bytes += size
        if self._framed_bytes > 2 * body.wire_bytes + _CHUNK_OVERHEAD_BYTES_MAX:
            raise guards.chunks_too_small(_CHUNK_OVERHEAD_BYTES_MAX)

    # -- callbacks of the parser ------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._connection.state is not IDLE:
            raise guards.after_close()
        self._connection.go(lifecycle.BEGIN)
        self._head = guards.Head()

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
        self._call = call = Call(head, keep_alive=parser.should_keep_alive() and not head.says_close)
        if call.form is not None:
            call.stamper = self._authorization.stamper(head.headers.get(b"authorization", b""))
            if self._connection.state is not HEAD:
                raise guards.after_close()
            if hub.no_room is not None:
                # Raised for every request, and an exception keeps what it has passed.
                raise hub.no_room.with_traceback(None)
            limit = hub.settings.body_bytes_max
            if (call.length or 0) > (compressed_bytes_max(limit) if call.is_gzip else limit):
                raise too_large(limit)
            self.continue_due = b"expect" in head.headers and not head.is_http10
            self._learn(raw, head, call)
        self._begin_body(call, call.length)
        if self.continue_due:
            self._connection.flush()

    def on_body(self, data: bytes) -> None:
        self._feed(data)

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

    def _begin_body(self, call: Call, length: int | None) -> None:
        self._connection.go(lifecycle.ACCEPT)
        self._framed_bytes = 0
        self._body = body = Body(self._hub.settings.body_bytes_max, is_gzip=call.is_gzip)
        if call.form is None or call.is_gzip or length is None:
            return
        if length <= SMALL_BYTES_MAX or self._hub.budget.has_room(length):
            self._charge(body, length)
        else:
            self._starve(length)

    def _charge(self, body: Body, size: int) -> None:
        """Raises Rejection (429)."""
        body.charged_bytes += size
        if not self._hub.budget.take(size, waits=self.wanted_bytes is not None):
            raise self._hub.overloaded("too many bytes of request bodies are in flight")

    def _feed(self, data: bytes) -> None:
        """A piece of the body. Raises Rejection."""
        body = self._body
        assert body is not None
        if self._call is None or self._call.form is None:
            body.wire_bytes += len(data)
            if body.wire_bytes > _UNWANTED_BODY_BYTES_MAX:
                raise too_large(_UNWANTED_BODY_BYTES_MAX)
            return
        body.feed(data)
        growth = body.size - body.charged_bytes
        if growth > 0:
            self._charge(body, growth)
            if self.wanted_bytes:
                self.wanted_bytes = max(0, self.wanted_bytes - growth)
            if (
                body.size > SMALL_BYTES_MAX
                and self._connection.state is BODY
                and not self._hub.budget.has_room(0)
            ):
                self._starve(0)

    def _starve(self, wanted_bytes: int) -> None:
        """Read no more of this body until the budget has room."""
        self.wanted_bytes = wanted_bytes
        self._connection.go(lifecycle.STARVE)
        self._hub.budget.wait(self)
        self._connection.regulate_reading()

    def granted(self) -> None:
        """The budget has room for what was wanted, and has taken it."""
        assert self._body is not None
        self._body.charged_bytes += self.wanted_bytes or 0
        self.wanted_bytes = None
        self._connection.go(lifecycle.GRANT)
        self._connection.regulate_reading()
        self._connection.flush()

    def _finish_body(self) -> None:
        call, body = self._call, self._body
        assert call is not None
        assert body is not None
        try:
            whole: bytes | bytearray | Rejection = body.finish()
        except Rejection as e:
            # Answered like an error about its events, for it has been read to its end as well.
            whole = e.with_traceback(None)
        charged, body.charged_bytes = body.charged_bytes, 0
        self.forget_body()
        self._connection.complete(call, whole, charged)

    def forget_body(self) -> None:
        """Give back what the body holds of the budget."""
        body, self._body = self._body, None
        self._left_bytes = 0
        self.continue_due = False
        waited, self.wanted_bytes = self.wanted_bytes is not None, None
        if body is not None and (waited or body.charged_bytes):
            self._hub.budget.give(body.charged_bytes)

    def _header_too_large(self) -> Rejection:
        settings = self._hub.settings
        return guards.header_too_large(settings.header_bytes_max, settings.header_count_max)
