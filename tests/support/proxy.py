"""A TCP proxy that can be cut, can stall, and can lose what comes back: the network on a bad day."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self

Mode = Literal["pass", "cut", "stall", "deaf"]
"""`cut`: no connection lives; `stall`: nothing goes on; `deaf`: requests arrive, answers do not come back."""


class Proxy:
    """Listens on a port of its own and passes on to another, as its mode says."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.mode: Mode = "pass"
        self.cut_after: int | None = None
        """Bytes from the client until everything is cut once; then it passes again."""
        self.passed = 0
        """Bytes from clients that were passed on."""
        self.connections = 0
        """From clients, so far."""
        self._changed = threading.Condition()
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def set(self, mode: Mode) -> None:
        """Change the mode, also for the connections there are."""
        with self._changed:
            self.mode = mode
            self._changed.notify_all()
        if mode == "cut":
            self._cut()

    def _cut(self) -> None:
        for one in list(self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.mode == "cut":
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.upstream))
        except OSError:
            client.close()
            return
        self._sockets |= {client, server}
        back = threading.Thread(target=self._pass, args=(server, client, False), daemon=True)
        back.start()
        self._pass(client, server, True)
        back.join()
        for one in (client, server):
            self._sockets.discard(one)
            one.close()

    def _pass(self, source: socket.socket, target: socket.socket, is_request: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                with self._changed:
                    # Not while it stands still; an answer is lost by waiting until the cut.
                    self._changed.wait_for(
                        lambda: self.mode != "stall" and (is_request or self.mode != "deaf")
                    )
                if self.mode == "cut":
                    break
                if is_request:
                    self.passed += len(data)
                    if self.cut_after is not None:
                        self.cut_after -= len(data)
                        if self.cut_after <= 0:
                            # Some of it still arrives.
                            target.sendall(data[: max(0, len(data) + self.cut_after)])
                            self.cut_after = None
                            self._cut()
                            break
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.set("cut")
        self._listener.close()
