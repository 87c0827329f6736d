"""Servers under load: started on a free port, pinned to a core, asked for the CPU time they used."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SERVER_CORE = 0
LOAD_CORE = 1
_START_S = 20.0


@dataclass(frozen=True, slots=True)
class Contender:
    """A running server."""

    name: str
    port: int
    pid: int
    key: str

    def cpu_s(self) -> float:
        """User and system seconds of the process and all that it has started: a supervisor does little."""
        return _cpu_ticks(self.pid) / os.sysconf("SC_CLK_TCK")


@contextmanager
def noop(*, handed: bool = False) -> Iterator[Contender]:
    """The server that keeps nothing."""
    command = [*pinned(SERVER_CORE), sys.executable, "-m", "bench.noop", *(["handed"] if handed else [])]
    with _ended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        yield Contender(
            "no-op, handed" if handed else "no-op", int(process.stdout.readline()), process.pid, "none"
        )


@contextmanager
def ingestd(folder: Path, ack: str = "fsync", *, python_path: Path | None = None) -> Iterator[Contender]:
    """ingestd with one worker, on a new data directory; `python_path` names another checkout."""
    data_dir, log = folder / "data", folder / "log"
    command = [*pinned(SERVER_CORE), sys.executable, "-m", "ingestd", "serve", "--listen", "127.0.0.1:0"]
    command += ["--data-dir", str(data_dir), "--ack", ack]
    # From that checkout's folder, or `-m` would find the package of this one first.
    started = subprocess.Popen(command, stderr=log.open("w"), cwd=python_path)
    with _ended(started) as process:
        end = time.monotonic() + _START_S
        while True:
            text = log.read_text()
            port, key = re.search(r"http://127\.0\.0\.1:(\d+)", text), re.search(r"\bing_[\w-]+", text)
            if port and key:
                break
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"ingestd did not start:\n{text}")
            time.sleep(0.02)
        yield Contender(f"ingestd {ack}", int(port[1]), process.pid, key[0])


@contextmanager
def _ended(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process  # type: ignore[misc]
    finally:
        process.terminate()
        process.wait(timeout=60)
        if process.stdout is not None:
            process.stdout.close()


def _cpu_ticks(pid: int) -> int:
    """Of a process, all its threads, its ended children, and those that run with all of theirs."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(int(ticks) for ticks in fields[11:15]) + sum(_cpu_ticks(int(child)) for child in children)


def pinned(core: int) -> list[str]:
    """The prefix that keeps a command on one core."""
    return ["taskset", "-c", str(core)]
