"""The place of one worker, as the supervisor sees it, and the process that fills it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from typing import IO

import msgspec

from ingestd.service import scoreboard
from ingestd.service.brief import Brief
from ingestd.service.scoreboard import SharedMemory

WORKER: tuple[str, ...] = (sys.executable, "-m", "ingestd.service.worker")
"""The command of a worker."""


class Place:
    """One of the server's workers; the process may change."""

    def __init__(self, number: int, memory: SharedMemory) -> None:
        self.number = number
        self.is_ready = False
        self.due_at = 0.0
        """When one that is not ready must be, or must have ended."""
        self.started_at = 0.0
        self.start_at = 0.0
        """When to start the next process."""
        self.delay_s = 0.0
        self.restarts = 0
        """How often a process has ended without being asked to."""
        self._process: subprocess.Popen[bytes] | None = None
        self._told = memory.table(scoreboard.PLACES).row(number)
        self._row = memory.table(scoreboard.WORKERS).row(number)

    @property
    def is_filled(self) -> bool:
        """True if there is a process."""
        return self._process is not None

    @property
    def stdout(self) -> IO[bytes]:
        """What the process says."""
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout

    def start(self, brief: Brief, inherited: list[int]) -> None:
        """Start a process that inherits these descriptors."""
        self._process = process = subprocess.Popen(
            WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=inherited
        )
        self.is_ready, self.started_at = False, time.monotonic()
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.write(msgspec.json.encode(brief) + b"\n")
            process.stdin.flush()

    def said(self) -> bytes:
        """What it has said and was not read yet; empty if nothing will come."""
        return os.read(self.stdout.fileno(), 1024)

    def signal(self, number: int) -> None:
        """Send a signal to the process, if there is one."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def ended(self) -> int | None:
        """The status of a process that has ended; None if it runs, or if there is none."""
        return None if self._process is None else self._process.poll()

    def empty(self) -> None:
        """Forget the process, which has ended."""
        process, self._process, self.is_ready = self._process, None, False
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        with suppress(BrokenPipeError):
            process.stdin.close()
        # Its row has no other writer now.
        self._row.clear(scoreboard.MOMENTARY)

    def tell(self) -> None:
        """Let the workers, of whom each answers for all, know how this one is."""
        self._told[scoreboard.IS_UP] = self.is_filled
        self._told[scoreboard.IS_READY] = self.is_ready
        self._told[scoreboard.RESTARTS] = self.restarts
