"""What the log says of requests: of each one if asked to, else of those that are refused, within a rate.

It tells what it was for, how it ended and who sent it. It never tells what a client may put a secret
or an event in: the target, the headers, the body, or the part of an error's detail that quotes it.
"""

from __future__ import annotations

import logging
from asyncio import BaseTransport
from collections.abc import Sequence
from time import monotonic
from typing import Any, Final, Protocol, cast

from ingestd.config import Settings
from ingestd.errors import Rejection
from ingestd.forms import ONE
from ingestd.http.calls import Asked, Call
from ingestd.http.exchange import Exchange
from ingestd.http.peers import Peers
from ingestd.sampling import Sampler

log = logging.getLogger("ingestd.request")

_OURS: Final = (429, 500, 503)
"""Refused for the server's sake. No error: what has caused it says so itself."""


class Reporter(Protocol):
    """What a LoggedExchange belongs to."""

    body_bytes: int
    """Of the request that has just become whole."""

    def answered(self, exchange: LoggedExchange, events: int | None) -> None:
        """This exchange has 200; `events` is None for a page."""


class LoggedExchange(Exchange, gc=False, eq=False):
    """An Exchange that is told of when it is answered."""

    body_bytes: int = 0
    began_at: float = 0.0

    def __post_init__(self) -> None:
        self.body_bytes = self._reporter.body_bytes
        self.began_at = monotonic()

    @property
    def _reporter(self) -> Reporter:
        return cast(Reporter, self.answerer)

    def accept(self, message_ids: list[str], start: bytes, invalid: Sequence[object] = ()) -> None:
        super().accept(message_ids, start, invalid)
        if self.call is not None and self.call.form is not ONE:
            self._reporter.answered(self, len(message_ids))

    def accept_one(self, message_id: str, start: bytes) -> None:
        super().accept_one(message_id, start)
        self._reporter.answered(self, 1)

    def show(self, call: Call) -> None:
        super().show(call)
        self._reporter.answered(self, None)


class Reports:
    """One for each listener of a worker."""

    def __init__(self, settings: Settings) -> None:
        """Raises UsageError."""
        self._logs_all = settings.request_log
        self._refused_per_s = settings.error_log_per_s
        self._peers = Peers(settings.trusted_proxies)
        self._sampler = Sampler(max(0, self._refused_per_s - 1))

    def answered(self, exchange: LoggedExchange, transport: BaseTransport, events: int | None) -> None:
        """A request is answered 200."""
        self._tell(logging.INFO, exchange.asked, transport, 200, {"events": events}, exchange)

    def refused(
        self,
        asked: Asked,
        rejection: Rejection,
        transport: BaseTransport,
        exchange: Exchange | None,
        now: float,
    ) -> None:
        """A request is answered with an error."""
        status = rejection.status
        level = logging.WARNING if status in _OURS else logging.INFO
        if not log.isEnabledFor(level):
            return
        if not self._logs_all and not (self._refused_per_s and self._sampler.passes(rejection.code, now)):
            return
        why = {"code": rejection.code, "detail": rejection.detail_for_log}
        self._tell(level, asked, transport, status, why, exchange)

    def _tell(
        self,
        level: int,
        asked: Asked,
        transport: BaseTransport,
        status: int,
        more: dict[str, Any],
        exchange: Exchange | None,
    ) -> None:
        fields: dict[str, Any] = {"method": asked.method, "route": asked.route, "status": status, **more}
        if isinstance(exchange, LoggedExchange):
            fields["bytes"] = exchange.body_bytes
            fields["duration_ms"] = round((monotonic() - exchange.began_at) * 1000, 3)
        fields["key"] = asked.key
        fields["peer"] = self._peers.shown(transport.get_extra_info("peername"), asked.forwarded)
        log.log(level, "answered" if status == 200 else "refused", extra={"fields": fields})

    def no_handshake(self, why: str, transport: BaseTransport, now: float) -> None:
        """A client has not come to the end of its TLS handshake; `why` is in words of ours or of OpenSSL."""
        if self._refused_per_s and self._sampler.passes("tls_handshake", now):
            fields = {"why": why, "peer": self._peers.shown(transport.get_extra_info("peername"), b"")}
            log.info("no TLS handshake", extra={"fields": fields})

    def tick(self, now: float) -> None:
        """Say how many were left out, once their second has passed."""
        left_out = self._sampler.take_left_out(now)
        if left_out:
            log.info("%d more were refused", sum(left_out.values()), extra={"fields": left_out})
