"""One client connection: the asyncio protocol, its state, its deadlines, its answers in order.

`lifecycle` has the table of states, `requests` reads. Deadlines are absolute: each is set when a
state is entered, and no byte that arrives moves it.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, Final

from ingestd.errors import Rejection
from ingestd.events import SLICED_BYTES_MIN, Stamper
from ingestd.forms import ONE
from ingestd.http import lifecycle, responses
from ingestd.http.calls import Call, Caller
from ingestd.http.exchange import Exchange
from ingestd.http.hub import Hub
from ingestd.http.jobs import Jobs
from ingestd.http.lifecycle import BODY, CLOSED, CLOSING, DRAIN, HEAD, IDLE, READING, WAIT
from ingestd.http.requests import RequestReader
from ingestd.http.rounds import TOGETHER_BYTES_MAX
from ingestd.sifting import sifted

_DRAIN_S: Final = 5.0
FRESH_S: Final = 1.0
"""While the server stops: how long one that has not asked anything yet may still ask."""
_WRITE_BUFFER_BYTES_MAX: Final = 64 * 1024


class Connection(asyncio.Protocol):
    """Between a transport and its RequestReader."""

    __slots__ = (
        "_discarded_bytes", "_exchange_type", "_exchanges", "_got_eof", "_held_since", "_hub", "_reader",
        "_reading_paused", "_request_deadline", "_state_deadline", "_transport", "_waits_since",
        "_write_deadline", "_writing_paused", "deadline", "jobs", "state",
    )  # fmt: skip

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._transport: Any = None
        self._reader = RequestReader(hub, self)
        self._exchange_type = Exchange
        self._exchanges: list[Exchange] = []
        """Requests whose answers are owed, in order."""
        self.jobs = Jobs(hub)
        self._reading_paused = False
        self._writing_paused = False
        self._held_since: float | None = None
        """When we stopped reading for reasons of our own: a client is not timed meanwhile."""
        self._got_eof = False
        self._discarded_bytes = 0
        self.state = IDLE
        self.deadline = math.inf
        """By the hub's clock: the earlier of the next two."""
        self._state_deadline = math.inf
        self._write_deadline = math.inf
        self._request_deadline = math.inf
        self._waits_since = 0.0

    # -- the connection ---------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        hub = self._hub
        self._transport = transport
        # Writing resumes when all is written: a client that reads a byte now and then is as slow as
        # one that reads nothing.
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES_MAX, low=0)
        hub.connections.add(self)
        hub.traffic.connections += 1
        self._arm(hub.idle_deadline)
        if hub.is_draining:
            self.drain()
        elif len(hub.connections) > hub.settings.connections_max:
            self.refuse(Rejection(503, "too_many_connections", "Service unavailable.", "try again later"))
            # It has not asked for anything yet, and a file that it holds may be one that storage lacks.
            self._close()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.go(lifecycle.END)
        self._hub.connections.discard(self)
        self._reader.end()
        # It knows us as we know it: both would wait for the garbage collector, which seldom comes.
        del self._reader
        self._exchanges.clear()

    def pause_writing(self) -> None:
        """The client does not read its answers: read no more of its requests, and wait only so long."""
        self._writing_paused = True
        self._write_deadline = self._hub.now + self._hub.settings.write_timeout_s
        self._arm(self._state_deadline)
        self.regulate_reading()

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._write_deadline = math.inf
        self._arm(self._state_deadline)
        self.regulate_reading()

    def eof_received(self) -> bool:
        """A half-closed client may still read its answers."""
        self._got_eof = True
        if not self._exchanges or self.state in (DRAIN, CLOSED):
            return False
        self._exchanges[-1].keep_alive = False
        self._reader.end()
        self.go(lifecycle.LAST)
        return True

    def overdue(self) -> None:
        """The deadline has passed."""
        if self.state is CLOSED:
            # Closing waits for a client that does not read.
            self.deadline = math.inf
            self._transport.abort()
        elif self._writing_paused and self._write_deadline <= self._hub.now:
            self.abort()
        elif self.state is WAIT:
            self.refuse(self._hub.overloaded("too many bytes of request bodies are in flight"))
        elif self.state is IDLE and self._exchanges:
            # It is the disk that keeps the client waiting; `flush` sets the next deadline.
            self._arm(math.inf)
        elif self.state in (HEAD, BODY):
            self.refuse(Rejection(408, "request_timeout", "Request timeout.", "the request took too long"))
        else:
            self.abort()

    def abort(self) -> None:
        """End now, answers unsent; a plain close would wait for a client that does not read."""
        self.go(lifecycle.END)
        # The loss is told later, and no room may be granted until then.
        self._reader.end()
        self._transport.abort()

    def drain(self) -> None:
        """The server shuts down: close now if idle, else after the answers that are due."""
        self._reader.forget_repeat()
        if self.state is IDLE and not self._exchanges:
            if self._reader.is_fresh:
                # It has just connected to ask something.
                self._arm(self._hub.now + FRESH_S)
            else:
                self._close()

    def _close(self) -> None:
        self.go(lifecycle.END)
        self.deadline = self._hub.now + self._hub.settings.write_timeout_s
        self._reader.end()
        self._transport.close()

    def go(self, event: str) -> None:
        """Enter the state that the table says, and set its deadline."""
        self.state = state = lifecycle.NEXT[self.state, event]
        hub = self._hub
        settings, now = hub.settings, hub.now
        if state is IDLE:
            self._arm(math.inf if self._exchanges else hub.idle_deadline)
        elif state is HEAD:
            self._request_deadline = now + settings.request_timeout_s
            self._arm(now + settings.header_timeout_s)
        elif state is BODY:
            if event is lifecycle.GRANT:
                self._request_deadline += now - self._waits_since
            self._arm(self._request_deadline)
        elif state is WAIT:
            self._waits_since = now
            self._arm(now + settings.room_timeout_s)
        elif state is DRAIN:
            self._arm(now + _DRAIN_S)
        else:
            # What is owed depends on the disk, not on the client.
            self._arm(math.inf)

    def _arm(self, deadline: float) -> None:
        self._state_deadline = deadline
        if self.state is CLOSED or (self._held_since is not None and self.state in (HEAD, BODY)):
            deadline = math.inf
        self.deadline = min(deadline, self._write_deadline)

    def regulate_reading(self) -> None:
        """Read, or leave it in the kernel: while answers pile up, or there is no room, or work is due."""
        ours = self.state in READING and (
            bool(self.jobs.waiting) or len(self._exchanges) >= self._hub.settings.pipeline_max
        )
        if ours is not (self._held_since is not None):
            self._hold(ours)
        pause = (
            ours or self._writing_paused or self.state is WAIT or (self.state is CLOSING and self._is_flood)
        )
        if pause is not self._reading_paused and self.state is not CLOSED:
            self._reading_paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    @property
    def _is_flood(self) -> bool:
        """True if more has been thrown away than a request may have."""
        return self._discarded_bytes > self._hub.settings.body_bytes_max

    def _hold(self, hold: bool) -> None:
        now = self._hub.now
        if hold:
            self._held_since = now
            self._arm(self._state_deadline)
        elif self._held_since is not None:
            held_s, self._held_since = now - self._held_since, None
            self._request_deadline += held_s
            self._arm(self._state_deadline + held_s)

    # -- requests in --------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._hub.traffic.received_bytes += len(data)
        if self.state in READING:
            data = self._reader.feed(data)
        if data and self.state is not CLOSED:
            self._discarded_bytes += len(data)
            if self._is_flood and self.state is CLOSING:
                # What is owed must still be sent.
                self.regulate_reading()
            elif self._is_flood:
                self._close()

    def complete(self, call: Call, body: bytes | bytearray | Rejection, charged_bytes: int = 0) -> None:
        """A request is whole: hand its events to the flusher, or answer it.

        `charged_bytes` of the budget go with it.
        """
        hub = self._hub
        exchange = self._exchange_type(self, call, call.keep_alive and not hub.is_draining)
        self._exchanges.append(exchange)
        try:
            if isinstance(body, Rejection):
                exchange.reject(body)
            elif call.form is None or call.caller is None:
                exchange.show(call)
                hub.traffic.answered(call.route, 200)
            elif self.jobs.waiting or len(body) >= SLICED_BYTES_MIN or call.skips_invalid:
                slices = sifted if call.skips_invalid else Stamper.slices
                self.jobs.add(self, exchange, slices(call.caller.stamper, body, call.form), charged_bytes)
                charged_bytes = 0
            elif call.form is ONE and len(body) <= TOGETHER_BYTES_MAX:
                hub.rounds.add(exchange, call.caller, bytes(body))
            else:
                hub.rounds.push(exchange, call.caller, call.caller.stamper.batch(body, call.form))
        except Exception as e:
            exchange.fail(e)
        if charged_bytes:
            hub.budget.give(charged_bytes)
        if self.state in READING:
            if not exchange.keep_alive:
                self.go(lifecycle.LAST)
            elif self.state is not IDLE:
                self.go(lifecycle.COMPLETE)
        if exchange.answer is not None or not self._exchanges:
            self.flush()
        if self.jobs.waiting or self._reading_paused or len(self._exchanges) >= hub.settings.pipeline_max:
            self.regulate_reading()

    def take(self, call: Call, caller: Caller, body: bytes) -> None:
        """`complete` for a small event whose connection goes on: the most frequent of all requests."""
        hub, exchanges = self._hub, self._exchanges
        exchange = self._exchange_type(self, call, True)
        exchanges.append(exchange)
        hub.rounds.add(exchange, caller, body)
        if len(exchanges) >= hub.settings.pipeline_max:
            self.regulate_reading()

    def refuse(self, rejection: Rejection) -> None:
        """Answer with an error, after what is due before it, and read no more requests."""
        if self.state not in READING:
            return
        self._hub.refused(self._reader.asked, rejection, self._transport)
        exchange = Exchange(self, None, False)
        exchange.answer = responses.rejected(rejection, self._reader.close_line, is_head=self._reader.is_head)
        self._exchanges.append(exchange)
        self._reader.end()
        self.go(lifecycle.LAST)
        self.flush()
        self.regulate_reading()

    # -- answers out --------------------------------------------------------------------------

    def flush(self) -> None:
        """Write the answers at the front; then the 100 that the next request waits for."""
        exchanges = self._exchanges
        if self.state is CLOSED:
            return
        while exchanges and (answer := exchanges[0].answer) is not None:
            self._transport.write(answer)
            if not exchanges.pop(0).keep_alive:
                self._finish()
                return
        if self._reading_paused:
            self.regulate_reading()
        if exchanges:
            return
        if self.state is IDLE:
            hub = self._hub
            # It is the same between two ticks of the clock.
            if self._state_deadline != hub.idle_deadline:
                self._arm(hub.idle_deadline)
            if hub.is_draining:
                self._close()
        elif self.state is BODY and self._reader.continue_due:
            self._reader.continue_due = False
            self._transport.write(responses.CONTINUE)

    def end_after(self, exchange: Exchange, rejection: Rejection) -> None:
        """Forget what was read after this exchange, and read no more requests."""
        self._hub.refused(exchange.asked, rejection, self._transport, exchange)
        if exchange not in self._exchanges:
            return
        after = self._exchanges.index(exchange) + 1
        for later in self._exchanges[after:]:
            later.answer = b""
        del self._exchanges[after:]
        self._reader.end()
        if self.state in READING:
            self.go(lifecycle.LAST)
        self.regulate_reading()

    def _finish(self) -> None:
        """The last answer is written: say so, and give the client time to read it."""
        self._exchanges.clear()
        self._reader.end()
        self._discarded_bytes = 0
        if self.state in READING:
            self.go(lifecycle.LAST)
        self.go(lifecycle.ANSWERED)
        if self._transport.can_write_eof() and not self._got_eof:
            self._transport.write_eof()
            self.regulate_reading()
        else:
            self._close()
