"""TLS on the wire without a socket: a client of OpenSSL's own on one side, a Connection on the other."""

from __future__ import annotations

import ssl
from collections.abc import Iterable

from ingestd.config import Settings
from ingestd.http import logged
from ingestd.http.tls import TlsTransport
from ingestd.service.certificates import context
from tests.support import certificates
from tests.support.transport import MockTransport
from tests.support.wire import Answer, Site, parse_answers

MIB = 1024 * 1024


class Contexts:
    """A server's certificate, and a client that trusts it, or another one."""

    def __init__(self, pair: certificates.Pair, trusted: certificates.Pair | None = None) -> None:
        self.server = context(Settings(tls_cert_file=str(pair.cert), tls_key_file=str(pair.key)))
        self.client = (trusted or pair).client()


class TlsWire:
    """One client's TLS connection; what it sends waits in the kernel while the server does not read."""

    def __init__(self, contexts: Contexts, site: Site | None = None, *, shakes: bool = True) -> None:
        self.site = site or Site()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = contexts.client.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self.server = TlsTransport(self.site.hub, lambda: contexts.server, logged.connection)
        self.raw = MockTransport(self.server)
        self.received = bytearray()
        """What the client has deciphered."""
        self.has_end = False
        """The client has heard that nothing more will come."""
        self._read_bytes = 0
        self._held: list[bytes] = []
        self._lost = False
        self.server.connection_made(self.raw)
        if shakes:
            self.shake()

    def shake(self) -> None:
        """The whole handshake."""
        for _ in range(10):
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.exchange()
            else:
                self.exchange()
                return
        raise AssertionError("the handshake has no end")

    def pending(self) -> bytes:
        """What the client's side wants to send."""
        return self._outgoing.read()

    def exchange(self) -> None:
        """Both sides get what the other has sent."""
        self.deliver([self.pending()])

    def deliver(self, pieces: Iterable[bytes]) -> None:
        """Bytes as they are, to the server; and the answers back."""
        self._held += [piece for piece in pieces if piece]
        self.settle()

    def settle(self) -> None:
        while self._held and self.raw.is_reading() and not self._lost:
            self.server.data_received(self._held.pop(0))
            self.site.run_deferred()
        self._incoming.write(bytes(self.raw.received[self._read_bytes :]))
        self._read_bytes = len(self.raw.received)
        if self.raw.closing and not self.raw.unread:
            self.vanish()

    def feed(self, data: bytes, pieces: int = 0) -> None:
        """The client sends `data`, its ciphertext in pieces of so many bytes."""
        self.tls.write(data)
        sent = self.pending()
        self.deliver([sent] if not pieces else [sent[i : i + pieces] for i in range(0, len(sent), pieces)])

    def read(self) -> bytes:
        """What has been received by now."""
        self.settle()
        try:
            while part := self.tls.read(MIB):
                self.received += part
            self.has_end = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.has_end = True
        return bytes(self.received)

    def answers(self) -> list[Answer]:
        return parse_answers(self.read())

    def vanish(self) -> None:
        """The connection is lost."""
        if not self._lost:
            self._lost = True
            self.raw.closing = True
            self.server.connection_lost(None)

    def is_closed(self) -> bool:
        """True once nothing of it is left."""
        self.settle()
        return self._lost
