"""What systemd wants to hear from a service: one datagram for each piece of news (sd_notify(3)).

Without systemd, that is without NOTIFY_SOCKET, nothing is said.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping
from typing import Final

log = logging.getLogger("ingestd.systemd")

_SEND_S: Final = 1.0
"""systemd reads all the time; a listener that does not must not hold up the supervisor."""


class Notifier:
    """Tells the service manager how the server is."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._socket: socket.socket | None = None
        self._status = ""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(_SEND_S)
        # An @ stands for the NUL byte of the abstract name space.
        self._address = address.replace("@", "\0", 1) if address.startswith("@") else address

    def ready(self) -> None:
        """All workers serve, for the first time or again after `reloading`."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A reload has begun; `ready` follows."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """From now on it ends; systemd's patience is TimeoutStopSec."""
        self._send("STOPPING=1")

    def feed(self) -> None:
        """Put off the watchdog."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows; sent only when it changes."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def close(self) -> None:
        """Say nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError as e:
            log.warning("systemd has not been told %s: %s", message.partition("\n")[0], e)


def watchdog_s(environ: Mapping[str, str]) -> float | None:
    """How long systemd waits for `feed` before it ends this process; None if it does not wait."""
    usec, own = environ.get("WATCHDOG_USEC", ""), str(os.getpid())
    if environ.get("WATCHDOG_PID", own) != own or not usec.isdecimal():
        return None
    return int(usec) / 1_000_000 or None
