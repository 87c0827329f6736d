"""Whose events these are: a client repeats its Authorization header, so it is looked up once."""

from __future__ import annotations

from ingestd.events import Stamper
from ingestd.http.hub import Hub


class Authorization:
    """The last Authorization header of a connection and what it was good for, until the keys change."""

    __slots__ = ("_generation", "_header", "_hub", "last")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._header = b""
        self._generation = -1
        self.last: Stamper | None = None
        """Of the last header that was read."""

    def stamper(self, header: bytes) -> Stamper:
        """The Stamper of the key in this header. Raises Rejection (401)."""
        hub = self._hub
        if self.last is None or (header, hub.keyring.generation) != (self._header, self._generation):
            stamper = hub.authorize(header)
            if self.last not in (None, stamper):
                # What came with another key is stored before it, or ends the connection.
                hub.rounds.validate()
            self.last = stamper
            self._header = header
            self._generation = hub.keyring.generation
        return self.last
