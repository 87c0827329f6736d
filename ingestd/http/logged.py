"""A connection each of whose requests is logged; others pay nothing for it."""

from __future__ import annotations

from ingestd.errors import Rejection
from ingestd.http.calls import Call, Caller
from ingestd.http.hub import Hub
from ingestd.http.protocol import Connection
from ingestd.http.reports import LoggedExchange


class LoggedConnection(Connection):
    """Knows the size of a body while its request becomes an exchange."""

    __slots__ = ("body_bytes",)

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self._exchange_type = LoggedExchange
        self.body_bytes = 0

    def complete(self, call: Call, body: bytes | bytearray | Rejection, charged_bytes: int = 0) -> None:
        self.body_bytes = 0 if isinstance(body, Rejection) else len(body)
        super().complete(call, body, charged_bytes)

    def take(self, call: Call, caller: Caller, body: bytes) -> None:
        self.body_bytes = len(body)
        super().take(call, caller, body)

    def answered(self, exchange: LoggedExchange, events: int | None) -> None:
        """This exchange has 200."""
        self._hub.reports.answered(exchange, self._transport, events)


def connection(hub: Hub) -> Connection:
    """A connection of the kind that the settings ask for."""
    return LoggedConnection(hub) if hub.settings.request_log else Connection(hub)
