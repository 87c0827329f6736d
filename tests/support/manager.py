"""A service manager as sd_notify(3) knows it: a datagram socket that keeps what it is told, in order."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Self

from tests.support.server import DEADLINE_S


class Manager:
    """Listens at `address`: a path, or a name in the abstract name space with an @ in front."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.told: list[str] = []
        """Every message so far; one may have several lines."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self._socket.settimeout(DEADLINE_S)

    def wait_for(self, is_meant: Callable[[str], bool], what: str) -> str:
        """Read on until a message is the one that is meant; returns it."""
        while True:
            try:
                message = self._socket.recv(4096).decode()
            except TimeoutError:
                raise AssertionError(f"waited {DEADLINE_S} s in vain for {what}; told: {self.told}") from None
            self.told.append(message)
            if is_meant(message):
                return message

    def wait_for_line(self, line: str) -> None:
        """Read on until a message has this line."""
        self.wait_for(lambda message: line in message.splitlines(), line)

    def wait_for_status(self, part: str) -> str:
        """Read on until a STATUS has this in its text; returns it."""
        return self.wait_for(lambda message: message.startswith("STATUS=") and part in message, part)

    def rest(self) -> None:
        """Read what has been sent up to now."""
        self._socket.setblocking(False)
        try:
            while True:
                self.told.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            self._socket.settimeout(DEADLINE_S)

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
