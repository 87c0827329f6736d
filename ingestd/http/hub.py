"""What all connections of a worker share: the way to the ring, the keys, the budget, the clock."""

from __future__ import annotations

import math
from asyncio import BaseTransport
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from operator import attrgetter
from typing import Protocol

from ingestd.config import Settings
from ingestd.errors import Rejection, not_ready, overloaded, unauthorized
from ingestd.events import Stamper
from ingestd.http.budget import Budget
from ingestd.http.calls import EVENT_ROUTES, OK, OPENAPI, Asked, Caller, Page, Routes, page, show_ok
from ingestd.http.cors import Cors
from ingestd.http.exchange import Exchange
from ingestd.http.reports import Reports
from ingestd.http.rounds import Rounds
from ingestd.keys import Key, Keyring
from ingestd.metrics import Traffic
from ingestd.ratelimit import RateLimits
from ingestd.ring import Ring


class Connected(Protocol):
    """A connection, or what is about to become one."""

    deadline: float

    def overdue(self) -> None:
        """Its deadline has passed."""

    def drain(self) -> None:
        """The server shuts down."""

    def abort(self) -> None:
        """End now."""


class Hub:
    """Lives on the loop. `now` is a coarse clock in seconds, moved by `tick`: deadlines need no more."""

    def __init__(
        self,
        settings: Settings,
        keyring: Keyring,
        ring: Ring,
        *,
        clock: Callable[[], float],
        defer: Callable[[Callable[[], None]], object],
        drain_bytes_per_s: Callable[[], float],
        not_ready: Callable[[], str],
        routes: Routes | None = None,
        limits: RateLimits | None = None,
    ) -> None:
        """`defer` calls back when the loop has gone once round; the next two tell of storage.

        `routes` are what is served; without, it is events, with /healthz and /readyz. `limits` are those
        of the keys; without, this worker is the only one.
        """
        self.settings = settings
        self.ring = ring
        self.keyring = keyring
        self.now = clock()
        self.idle_deadline = self.now + settings.idle_timeout_s
        """For a connection that becomes idle now."""
        self.routes = routes or {
            **EVENT_ROUTES,
            b"/healthz": page(show_ok),
            b"/readyz": page(self._ready),
            b"/openapi.json": page(lambda: OPENAPI),
        }
        self.cors = Cors(settings.cors_origins)
        self.traffic = Traffic()
        self.reports = Reports(settings)
        self.connections: set[Connected] = set()
        self.budget = Budget(settings.inflight_bytes_max)
        self.is_draining = False
        self.no_room: Rejection | None = None
        """How events are refused before their body is read, while the disk is nearly full."""
        self.defer = defer
        self.rounds = Rounds(
            ring,
            ack=settings.ack,
            event_bytes_max=settings.event_bytes_max,
            clock=clock,
            defer=defer,
            overloaded=self.overloaded,
            traffic=self.traffic,
        )
        self._clock = clock
        self._drain_bytes_per_s = drain_bytes_per_s
        self._not_ready = not_ready
        self._limits = limits or RateLimits.alone(clock)
        self._callers: dict[Key, Caller] = {}
        self._callers_of = keyring.generation

    def authorize(self, authorization: bytes, query: bytes) -> Caller:
        """The Caller of the key in an Authorization header or, without one, in a query, if it is public.

        Raises Rejection (401).
        """
        keyring = self.keyring
        if authorization:
            key = keyring.find(_secret(authorization))
        else:
            named = [pair[4:] for pair in query.split(b"&") if pair.startswith(b"key=")]
            key = keyring.find(named[0]) if len(named) == 1 else None
            if key is not None and not key.public:
                key = None
        if key is None:
            raise unauthorized()
        if self._callers_of != keyring.generation:
            self._callers_of = keyring.generation
            self._callers = {known: caller for known, caller in self._callers.items() if known in keyring}
            self._limits.keep(self._callers)
        caller = self._callers.get(key)
        if caller is None:
            stamper = Stamper(key.name, self.settings.strict_bytes_max)
            caller = Caller(stamper, self._limits.events(key), self._limits.requests(key))
            self._callers[key] = caller
        return caller

    def admit(self, caller: Caller) -> None:
        """Before a body is read: is one welcome? Counts the request. Raises Rejection (429)."""
        if self.no_room is not None:
            # Raised for every request, and an exception keeps what it has passed.
            raise self.no_room.with_traceback(None)
        if caller.requests is not None and not caller.requests.take():
            raise caller.requests.rejection()

    def overloaded(self, detail: str) -> Rejection:
        """429, with the whole seconds until what waits now is written at the rate of the last commits."""
        rate = self._drain_bytes_per_s()
        return overloaded(detail, min(60, max(1, math.ceil(self.ring.bytes / rate))) if rate else 1)

    def refused(
        self, asked: Asked, rejection: Rejection, transport: BaseTransport, exchange: Exchange | None = None
    ) -> None:
        """A request is answered with an error: count it, and perhaps say so."""
        self.traffic.answered(asked.route, rejection.status, rejection.code)
        self.reports.refused(asked, rejection, transport, exchange, self.now)

    def _ready(self) -> Page:
        """Raises Rejection (503) that says why requests are not welcome."""
        reason = "draining" if self.is_draining else self._not_ready()
        if reason:
            raise not_ready(reason)
        return OK

    def tick(self) -> None:
        """Move the clock and end what is overdue; called a few times a second."""
        self.now = now = self._clock()
        self.idle_deadline = now + self.settings.idle_timeout_s
        self.reports.tick(now)
        due = [connection for connection in self.connections if connection.deadline <= now]
        for connection in sorted(due, key=attrgetter("deadline")):
            # One before it may have made room for it, and with that moved its deadline.
            if connection.deadline <= now:
                connection.overdue()

    def drain(self) -> None:
        """Begin the shutdown: idle connections close, busy ones after their answers."""
        self.is_draining = True
        for connection in list(self.connections):
            connection.drain()


def _secret(authorization: bytes) -> bytes:
    """The key in an Authorization header: as a bearer token (RFC 6750) or a user name (RFC 7617)."""
    scheme, _, sent = authorization.partition(b" ")
    match scheme.lower():
        case b"bearer":
            return sent.strip(b" \t")
        case b"basic":
            with suppress(ValueError):
                return b64decode(sent.strip(b" \t"), validate=True).partition(b":")[0]
    return b""
