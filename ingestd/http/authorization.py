"""Whose events these are: a client repeats its Authorization header, so it is looked up once."""

from __future__ import annotations

from ingestd.http.calls import Caller
from ingestd.http.hub import Hub


class Authorization:
    """The last Authorization header of a connection and what it was good for, until the keys change."""

    __slots__ = ("_generation", "_header", "_hub", "last")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._header = b""
        self._generation = -1
        self.last: Caller | None = None
        """Of the last header that was read."""

    def caller(self, header: bytes) -> Caller:
        """The Caller of the key in this header. Raises Rejection (401)."""
        hub = self._hub
        if self.last is None or (header, hub.keyring.generation) != (self._header, self._generation):
            caller = hub.authorize(header)
            if self.last not in (None, caller):
                # What came with another key is stored before it, or ends the connection.
                hub.rounds.validate()
            self.last = caller
            self._header = header
            self._generation = hub.keyring.generation
        return self.last
