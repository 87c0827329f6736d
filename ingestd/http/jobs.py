"""Large bodies of one connection that are being validated slice by slice, and what was read after them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from ingestd.events import Batch
from ingestd.http.exchange import Exchange
from ingestd.http.hub import Hub
from ingestd.http.lifecycle import CLOSED

if TYPE_CHECKING:
    from ingestd.http.protocol import Connection


class Jobs:
    """In the order of their requests; the loop serves others between two slices.

    The connection is told to each call, for two that know each other wait for the garbage collector.
    """

    __slots__ = ("_hub", "waiting")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.waiting: deque[tuple[Exchange, Iterator[Batch | None], int]] = deque()
        """Its exchange, its slices, and what it has of the budget."""

    def add(
        self,
        connection: Connection,
        exchange: Exchange,
        slices: Iterator[Batch | None],
        charged_bytes: int,
    ) -> None:
        """Validate these slices after the others; the budget gets `charged_bytes` back when it is done."""
        self.waiting.append((exchange, slices, charged_bytes))
        if len(self.waiting) == 1:
            self._hub.defer(partial(self._work, connection))

    def _work(self, connection: Connection) -> None:
        """One slice of the first job."""
        exchange, slices, charged_bytes = self.waiting[0]
        if connection.state is not CLOSED and exchange.answer is None:
            try:
                batch = next(slices, None)
                if batch is None:
                    self._hub.defer(partial(self._work, connection))
                    return
                assert exchange.call is not None
                assert exchange.call.caller is not None
                self._hub.rounds.push(exchange, exchange.call.caller, batch)
            except Exception as e:
                exchange.fail(e)
        self.waiting.popleft()
        self._hub.budget.give(charged_bytes)
        if self.waiting:
            self._hub.defer(partial(self._work, connection))
        if connection.state is not CLOSED:
            connection.flush()
            connection.regulate_reading()
