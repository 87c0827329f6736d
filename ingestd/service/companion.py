"""`serve --ship`: the shipper as a child of the supervisor, which starts it again when it ends.

It is the same process as `ingestd ship` by itself, and gets the server's settings; what it does to
the machine or the network does to it does not reach the workers.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
import time
from typing import Final

import msgspec

from ingestd.config import ENV_PREFIX, Settings

log = logging.getLogger("ingestd.supervisor")

COMMAND: Final = (sys.executable, "-m", "ingestd", "ship", "--until-eof")
_FIRST_S: Final = 1.0
_MOST_S: Final = 60.0
_STEADY_S: Final = 60.0
"""One that has lived this long does not keep dying."""
_SUPERVISORS: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID")
"""What systemd tells one process only."""


class Companion:
    """The supervisor owns it."""

    def __init__(self, settings: Settings) -> None:
        self.start_at = math.inf
        """When to start the next process, if there is none: not before there is a server."""
        own = {
            name: value
            for name, value in os.environ.items()
            if name not in _SUPERVISORS and not name.startswith(ENV_PREFIX)
        }
        told = {
            ENV_PREFIX + name.upper(): str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in msgspec.structs.asdict(settings).items()
        }
        self._environ = own | told
        self._delay_s = 0.0
        self._started_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_filled(self) -> bool:
        """True if there is a process."""
        return self._process is not None

    def look(self, now: float, *, is_stopping: bool) -> None:
        """See if it has ended, and start it if it is due."""
        process = self._process
        if process is not None:
            status = process.poll()
            if status is None:
                return
            self._process = None
            if not is_stopping:
                is_steady = now - self._started_at >= _STEADY_S
                self._delay_s = _FIRST_S if is_steady else min(_MOST_S, 2 * self._delay_s or _FIRST_S)
                self.start_at = now + self._delay_s
                log.error(
                    "the shipper ended with status %d, the next starts in %.1f s", status, self._delay_s
                )
        if self._process is None and not is_stopping and now >= self.start_at:
            # Its standard input ends with the supervisor, whatever ends that one.
            self._process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, env=self._environ)
            self._started_at = time.monotonic()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if there is one."""
        if self._process is not None:
            self._process.send_signal(number)
