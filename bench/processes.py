"""Servers as processes: pinned to cores, asked for their CPU time and memory, ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

SERVER_CORE: Final = "0"
LOAD_CORE: Final = "1"
BOTH_CORES: Final = "0,1"
_STOP_S: Final = 30.0


def pinned(cores: str) -> list[str]:
    """The prefix that keeps a command on these cores."""
    return ["taskset", "-c", cores]


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Process:
    """A running command and all that it has started; its output goes to `log`."""

    def __init__(
        self, command: Sequence[str], cores: str, log: Path, environ: Mapping[str, str], cwd: Path | None
    ) -> None:
        self.log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [*pinned(cores), *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environ},
                cwd=cwd,
                # Its own group, so that all of it can be ended.
                start_new_session=True,
            )

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def cpu_s(self) -> float:
        """User and system seconds of the whole tree so far, with children that have ended."""
        ticks = 0
        for pid in self._tree():
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(int(field) for field in fields[11:15])
        return ticks / os.sysconf("SC_CLK_TCK")

    def forget_peak(self) -> None:
        """Peaks of memory are counted from now on."""
        for pid in self._tree():
            with suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_rss_bytes(self) -> int:
        """Since `forget_peak`: the sum of each process's own peak."""
        kib = 0
        for pid in self._tree():
            with suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        kib += int(line.split()[1])
        return kib * 1024

    def signal(self, number: signal.Signals) -> None:
        """To the first process of the tree, which taskset has become."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """Ask it to end; what has not ended in time is killed."""
        if not self.has_ended:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_S)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _tree(self) -> Iterator[int]:
        waiting = [self._process.pid]
        while waiting:
            pid = waiting.pop()
            yield pid
            # A thread may have children too.
            for path in Path(f"/proc/{pid}/task").glob("*/children"):
                with suppress(OSError):
                    waiting += map(int, path.read_text().split())


def wait_until_listening(process: Process, port: int, timeout_s: float) -> None:
    """Raises RuntimeError with what it has said if it ends or takes too long."""
    end = time.monotonic() + timeout_s
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.has_ended or time.monotonic() > end:
            raise RuntimeError(f"it did not start: {process.log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)
