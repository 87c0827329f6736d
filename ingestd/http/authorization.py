"""Whose events these are: a client repeats how it says so, and it is looked up once."""

from __future__ import annotations

from ingestd.http.calls import Caller
from ingestd.http.hub import Hub


class Authorization:
    """The last Authorization header of a connection, or query instead, and what it was good for.

    That holds until the keys change.
    """

    __slots__ = ("_generation", "_header", "_hub", "_query", "last")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._header = b""
        self._query = b""
        self._generation = -1
        self.last: Caller | None = None
        """Of the last that was read."""

    def caller(self, header: bytes, query: bytes) -> Caller:
        """The Caller of the key in this header or, without one, in this query. Raises Rejection (401)."""
        hub = self._hub
        if (
            self.last is None
            or header != self._header
            or hub.keyring.generation != self._generation
            or (not header and query != self._query)
        ):
            caller = hub.authorize(header, query)
            if self.last not in (None, caller):
                # What came with another key is stored before it, or ends the connection.
                hub.rounds.validate()
            self.last = caller
            self._header = header
            self._query = query
            self._generation = hub.keyring.generation
        return self.last
