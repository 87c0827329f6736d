"""The body of a connection's current request: read within the budget, waiting where there is no room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ingestd.errors import Rejection, too_large
from ingestd.http import guards, lifecycle
from ingestd.http.body import Body
from ingestd.http.budget import SMALL_BYTES_MAX
from ingestd.http.calls import Call
from ingestd.http.hub import Hub
from ingestd.http.lifecycle import BODY

if TYPE_CHECKING:
    from ingestd.http.protocol import Connection

_CHUNK_OVERHEAD_BYTES_MAX: Final = 64 * 1024
_UNWANTED_BODY_BYTES_MAX: Final = 64 * 1024


class Intake:
    """One body after the other; `body` is None between them."""

    __slots__ = ("_connection", "_framed_bytes", "_hub", "_is_unwanted", "body", "wanted_bytes")

    def __init__(self, hub: Hub, connection: Connection) -> None:
        self._hub = hub
        self._connection = connection
        self._framed_bytes = 0
        self._is_unwanted = False
        """The call has no use for a body."""
        self.body: Body | None = None
        self.wanted_bytes: int | None = None
        """What it waits for in the budget."""

    def begin(self, call: Call, length: int | None) -> None:
        """The head has passed; `length` is None for a chunked body. Raises Rejection (429)."""
        self._connection.go(lifecycle.ACCEPT)
        self._framed_bytes = 0
        self._is_unwanted = call.form is None
        self.body = body = Body(self._hub.settings.body_bytes_max, call.coding)
        if call.form is None or call.coding is not None or length is None:
            return
        if length <= SMALL_BYTES_MAX or self._hub.budget.has_room(length):
            self._charge(body, length)
        else:
            self._starve(length)

    def feed(self, data: bytes) -> None:
        """Take a piece. Raises Rejection (400, 413, 429)."""
        body = self.body
        assert body is not None
        if self._is_unwanted:
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

    def count_framing(self, size: int) -> None:
        """A body of tiny chunks costs far more than it carries. Raises Rejection (400)."""
        assert self.body is not None
        self._framed_bytes += size
        if self._framed_bytes > 2 * self.body.wire_bytes + _CHUNK_OVERHEAD_BYTES_MAX:
            raise guards.chunks_too_small(_CHUNK_OVERHEAD_BYTES_MAX)

    def finish(self) -> tuple[bytes | bytearray | Rejection, int]:
        """The whole body, or what is wrong with it, and what it has been charged, which goes with it."""
        body = self.body
        assert body is not None
        try:
            whole: bytes | bytearray | Rejection = body.finish()
        except Rejection as e:
            # Answered like an error about its events, for it has been read to its end as well.
            whole = e.with_traceback(None)
        charged, body.charged_bytes = body.charged_bytes, 0
        self.forget()
        return whole, charged

    def forget(self) -> None:
        """Give back what the body holds of the budget."""
        body, self.body = self.body, None
        waited, self.wanted_bytes = self.wanted_bytes is not None, None
        if body is not None and (waited or body.charged_bytes):
            self._hub.budget.give(body.charged_bytes)

    def granted(self) -> None:
        """The budget has room for what was wanted, and has taken it."""
        assert self.body is not None
        self.body.charged_bytes += self.wanted_bytes or 0
        self.wanted_bytes = None
        self._connection.go(lifecycle.GRANT)
        self._connection.regulate_reading()
        self._connection.flush()

    def _charge(self, body: Body, size: int) -> None:
        """Raises Rejection (429)."""
        body.charged_bytes += size
        if not self._hub.budget.take(size, waits=self.wanted_bytes is not None):
            raise self._hub.overloaded("too many bytes of request bodies are in flight")

    def _starve(self, wanted_bytes: int) -> None:
        """Read no more of this body until the budget has room."""
        self.wanted_bytes = wanted_bytes
        self._connection.go(lifecycle.STARVE)
        self._hub.budget.wait(self)
        self._connection.regulate_reading()
