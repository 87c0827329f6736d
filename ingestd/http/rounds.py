"""A round: what one turn of the loop has read, handed to the flusher together.

One-event bodies wait for the end of their round and are validated together, because for a small
event the calls cost more than the work; whatever is larger is validated as it comes. Then the
flusher is told. There is no timer: the round ends when the loop has gone round once and no socket
has brought more, so a lone request waits for nobody, and where sockets never cease to bring more
it ends after ROUND_S.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from ingestd.config import AckLevel
from ingestd.errors import Rejection, StorageError, Unreplicated, event_too_large, internal, log_unavailable
from ingestd.events import Batch
from ingestd.forms import ONE
from ingestd.http import responses
from ingestd.http.calls import Caller
from ingestd.http.exchange import Exchange
from ingestd.metrics import Traffic
from ingestd.ring import Ring
from ingestd.sifting import Sifted

log = logging.getLogger("ingestd.http")

ROUND_S: Final = 0.002
"""Measured with 64 busy clients: 62 requests a commit, and 38 with half of it."""
TOGETHER_BYTES_MAX: Final = 16 * 1024
"""A body up to this size is worth waiting for others."""
_TOGETHER_BODIES_MAX: Final = 512

_Group = tuple[list[Exchange], list[bytes]]


class Rounds:
    """Between the connections and the ring."""

    def __init__(
        self,
        ring: Ring,
        *,
        ack: AckLevel,
        event_bytes_max: int,
        clock: Callable[[], float],
        defer: Callable[[Callable[[], None]], object],
        overloaded: Callable[[str], Rejection],
        traffic: Traffic,
    ) -> None:
        """`defer` calls back when the loop has gone round once; `overloaded` makes a 429.

        `event_bytes_max` is what one event may have as it is kept; 0: as much as its body may.
        """
        self._ring = ring
        self.ack = ack
        """How those are kept that are acknowledged next."""
        self._event_bytes_max = event_bytes_max
        self._acks_on_push = ack == "memory"
        self._date = b""
        self._receipt = ""
        self._start = b""
        """How the answers of the commit with this receipt begin in the second of this date."""
        self._clock = clock
        self._defer = defer
        self._overloaded = overloaded
        self._traffic = traffic
        self._groups: dict[Caller, _Group] = {}
        self._count = 0
        self._count_before = 0
        self._ends_at = 0.0
        self.events_received = 0
        """Valid ones; what is invalid is not counted, for nobody knows how many events it is."""
        self.events_refused = 0
        """Of these: because the ring was full, or the key's limit reached."""

    def add(self, exchange: Exchange, caller: Caller, body: bytes) -> None:
        """A small one-event body; the exchange is answered later, whatever becomes of it."""
        group = self._groups.get(caller)
        if group is None:
            group = self._groups[caller] = [], []
        exchanges, bodies = group
        exchanges.append(exchange)
        bodies.append(body)
        if self._count:
            self._count += 1
        else:
            self.begin()
        if len(bodies) >= _TOGETHER_BODIES_MAX:
            self.validate()

    def push(self, exchange: Exchange, caller: Caller, batch: Batch) -> None:
        """A batch that is validated already. Raises Rejection (429): the ring is full, or a limit reached."""
        # What came before it must be stored before it, or end its connection.
        self.validate()
        if exchange.answer is None:
            self.begin()
            self._push([exchange], caller, batch)

    def validate(self) -> None:
        """Make batches of the bodies that wait, and push them."""
        groups, self._groups = self._groups, {}
        for caller, group in groups.items():
            exchanges, bodies = _still_asked(group)
            batch = None
            # Where not all of them may pass, each is judged alone.
            if len(bodies) > 1 and (caller.events is None or caller.events.holds(len(bodies))):
                try:
                    batch = caller.stamper.together(bodies)
                except Exception:
                    # Alone, each body gets an answer of its own, if only 500; else all would wait for ever.
                    log.exception("bug while validating bodies together")
            if batch is None:
                for exchange, body in zip(exchanges, bodies, strict=True):
                    self._alone(exchange, caller, body)
                continue
            try:
                self._push(exchanges, caller, batch)
            except Exception as e:
                for exchange in exchanges:
                    exchange.fail(e)
                    exchange.answerer.flush()

    def _alone(self, exchange: Exchange, caller: Caller, body: bytes) -> None:
        if exchange.answer is not None:
            return
        try:
            self._push([exchange], caller, caller.stamper.batch(body, ONE))
        except Exception as e:
            exchange.fail(e)
            exchange.answerer.flush()

    def _push(self, exchanges: list[Exchange], caller: Caller, batch: Batch) -> None:
        # Not the batch: it holds what is defined here, and a ring of references would keep its lines
        # in memory until the next collection.
        message_ids, traffic, call = batch.message_ids, self._traffic, exchanges[0].call
        assert call is not None
        key_name = caller.stamper.name
        invalid = batch.invalid if isinstance(batch, Sifted) else ()

        def acknowledge(error: StorageError | None, receipt: str) -> None:
            if error is not None:
                rejection = (
                    log_unavailable(str(error))
                    if isinstance(error, Unreplicated)
                    else internal("storage_failed")
                )
                for exchange in exchanges:
                    exchange.reject(rejection)
            else:
                # Those of one batch have asked for the same with the same key.
                traffic.stored(call.route, len(exchanges), key_name, len(message_ids))
                start = self._start_of(receipt)
                if len(exchanges) == 1:
                    exchanges[0].accept(message_ids, start, invalid)
                else:
                    for exchange, message_id in zip(exchanges, message_ids, strict=True):
                        exchange.accept_one(message_id, start)
            for exchange in exchanges:
                exchange.answerer.flush()

        if self._event_bytes_max and batch.size > self._event_bytes_max:
            _require_fitting(batch, self._event_bytes_max)
        batch.ack = _nobody_waits if self._acks_on_push else acknowledge
        limit = caller.events
        refusal = None if limit is None else limit.refusal()
        if refusal is None and not self._ring.push(batch):
            refusal = self._overloaded("the write queue is full")
        self.events_received += batch.events
        if refusal is not None:
            self.events_refused += batch.events
            try:
                raise refusal
            finally:
                # An exception keeps this frame, with the lines; it must not be kept by it in turn.
                del refusal
        if limit is not None:
            limit.charge(batch.events + len(invalid))
        if self._acks_on_push:
            # Before there is a commit, so there is no receipt either.
            acknowledge(None, "")

    def _start_of(self, receipt: str) -> bytes:
        date = responses.date_line()
        if receipt != self._receipt or date != self._date:
            self._date, self._receipt = date, receipt
            self._start = responses.stored_start(date, self.ack, receipt)
        return self._start

    def begin(self) -> None:
        """Something has come, or is about to: the round goes on."""
        if not self._count:
            self._ends_at = self._clock() + ROUND_S
            self._defer(self._turn)
        self._count += 1

    def _turn(self) -> None:
        """The loop has gone round once more."""
        if self._count != self._count_before and self._clock() < self._ends_at:
            self._count_before = self._count
            self._defer(self._turn)
        else:
            self._count = self._count_before = 0
            try:
                self.validate()
            finally:
                self._ring.publish()


def _still_asked(group: _Group) -> _Group:
    """Without the requests whose connection has ended with an error before them."""
    exchanges, bodies = group
    if not [exchange for exchange in exchanges if exchange.answer is not None]:
        return group
    pairs = zip(exchanges, bodies, strict=True)
    kept = [(exchange, body) for exchange, body in pairs if exchange.answer is None]
    return [exchange for exchange, _ in kept], [body for _, body in kept]


def _require_fitting(batch: Batch, event_bytes_max: int) -> None:
    """Raises Rejection (413) if one of its events is larger than that."""
    for message_id, line in zip(batch.message_ids, batch.lines.split(b"\n"), strict=False):
        if len(line) > event_bytes_max:
            raise event_too_large(message_id, len(line), event_bytes_max)


def _nobody_waits(_error: StorageError | None, _receipt: str) -> None:
    """Ack level memory: the answers have gone out already."""
