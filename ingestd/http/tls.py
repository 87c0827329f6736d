"""TLS between a socket and a Connection, which sees a transport like any other.

OpenSSL works in memory: bytes from the socket go in, bytes for the socket come out. asyncio's own TLS
is not used, for three things that it cannot do: a handshake counts as a connection and has a deadline
by the hub's clock; a connection can say that it will send no more and go on reading, so that a client
which is still sending gets to read an error; and an idle connection has no buffer of its own.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from ingestd.errors import tls_required, tls_words
from ingestd.http import responses
from ingestd.http.hub import Hub
from ingestd.http.protocol import FRESH_S, Connection

_READ_BYTES: Final = 16 * 1024
"""What a record of TLS holds at most."""


class TlsTransport(asyncio.Protocol, asyncio.Transport):
    """To the socket it is the protocol, to its Connection the transport."""

    __slots__ = (
        "_connection", "_has_ended", "_hub", "_incoming", "_is_shut", "_make", "_outgoing", "_tls",
        "_transport", "deadline",
    )  # fmt: skip

    def __init__(
        self, hub: Hub, context: Callable[[], ssl.SSLContext], make: Callable[[Hub], Connection]
    ) -> None:
        """`context` is asked for each connection, so that a new certificate holds for the next one."""
        self._hub = hub
        self._make = make
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context().wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._transport: Any = None
        self._connection: Connection | None = None
        """None until hands are shaken."""
        self._has_ended = False
        """The client sends no more."""
        self._is_shut = False
        """We send no more."""
        self.deadline = hub.now + hub.settings.tls_handshake_timeout_s

    # -- what the hub asks of a connection, while there is none ---------------------------------

    def overdue(self) -> None:
        """The handshake has taken too long."""
        self._fail("it took too long")

    def drain(self) -> None:
        """The server shuts down; a client that has just come may still ask."""
        self.deadline = min(self.deadline, self._hub.now + FRESH_S)

    # -- the socket's protocol ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        hub = self._hub
        self._transport = transport
        hub.connections.add(self)
        if hub.is_draining:
            self.drain()
        if len(hub.connections) > hub.settings.connections_max:
            # To say so would take a handshake, and that is what there is no room for.
            self._fail("too many connections")

    def data_received(self, data: bytes) -> None:
        connection = self._connection
        if self._is_shut and connection is not None:
            # It is thrown away, and need not be deciphered for that.
            connection.data_received(data)
        if self._is_shut:
            return
        self._incoming.write(data)
        if connection is None:
            connection = self._shake_hands()
        if connection is not None:
            self._read(connection)

    def eof_received(self) -> bool:
        if self._connection is None:
            self._fail("ended by the client")
            return False
        self._end(self._connection)
        return True

    def pause_writing(self) -> None:
        if self._connection is not None:
            self._connection.pause_writing()

    def resume_writing(self) -> None:
        if self._connection is not None:
            self._connection.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_shut = True
        self._hub.connections.discard(self)
        # Each holds the other: the memory of OpenSSL would wait for the garbage collector.
        connection, self._connection = self._connection, None
        del self._tls, self._incoming, self._outgoing
        if connection is not None:
            connection.connection_lost(exc)

    def _shake_hands(self) -> Connection | None:
        """Go on with the handshake; the Connection, if that was its end."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
            return None
        except ssl.SSLError as e:
            # What is to be sent is an alert that tells the client.
            self._send()
            if e.reason == "HTTP_REQUEST":
                self._transport.write(responses.rejected(tls_required(), responses.CLOSE))
            self._fail(tls_words(e))
            return None
        self._send()
        self._hub.connections.discard(self)
        self._connection = self._make(self._hub)
        self._connection.connection_made(self)
        return self._connection

    def _fail(self, why: str) -> None:
        """There will be no Connection."""
        self._hub.reports.no_handshake(why, self._transport, self._hub.now)
        self._hub.connections.discard(self)
        self._is_shut = True
        self._transport.close()

    def _read(self, connection: Connection) -> None:
        """Hand over what has been deciphered, in one piece, as from a socket."""
        parts: list[bytes] = []
        has_ended = False
        try:
            while part := self._tls.read(_READ_BYTES):
                parts.append(part)
                if not self._incoming.pending and not self._tls.pending():
                    # An exception would say the same, at a third of the price of all this.
                    break
            else:
                has_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            has_ended = True
        except ssl.SSLError:
            # Somebody has tampered with it, or it was never TLS: nothing of it counts.
            self._transport.abort()
            return
        self._send()
        if parts:
            connection.data_received(parts[0] if len(parts) == 1 else b"".join(parts))
        if has_ended:
            self._end(connection)

    def _end(self, connection: Connection) -> None:
        """The client sends no more, by the word of TLS or of TCP."""
        if not self._has_ended:
            self._has_ended = True
            if connection.eof_received():
                return
        elif not self._is_shut:
            # Said twice; answers may still be owed.
            return
        self.close()

    def _send(self) -> None:
        if self._outgoing.pending:
            self._transport.write(self._outgoing.read())

    # -- the Connection's transport -------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_shut or not data:
            return
        try:
            self._tls.write(data)
        except ssl.SSLError:
            self._transport.abort()
            return
        self._send()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Say that no more will be sent, in the words of TLS and of TCP, and go on reading."""
        if self._is_shut:
            return
        self._shut()
        self._transport.write_eof()

    def _shut(self) -> None:
        self._is_shut = True
        # Then it has been said; that the client says the same is not waited for (RFC 8446 §6.1).
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self._send()

    def close(self) -> None:
        if not self._is_shut:
            self._shut()
        self._transport.close()

    def abort(self) -> None:
        self._is_shut = True
        self._transport.abort()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high=high, low=low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return bool(self._transport.is_closing())
