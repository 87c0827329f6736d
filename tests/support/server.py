"""The real server as a child process, and a client for it that hides nothing of HTTP."""

from __future__ import annotations

import fcntl
import gzip
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

DEADLINE_S = 20.0
_POLL_S = 0.005
_LISTENS = re.compile(r"listens on http://(\S+):(\d+),")
_ADMIN = re.compile(r"metrics and probes on http://(\S+):(\d+)")
_SECRET = re.compile(r"^ +(ing_\S+)$", re.MULTILINE)

EVENT: dict[str, Any] = {
    "event": "signup",
    "properties": {"plan": "basic"},
    "timestamp": "2025-10-29T22:00:00.778Z",
}


def wait_until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Poll until `condition` is true; fails with `what` in its text when the deadline has passed."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline_s} s in vain until {what}")
        time.sleep(_POLL_S)


def clean_environ(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without settings of ingestd, so that only a test's own count."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INGESTD_")}
    return {**kept, **(extra or {})}


def run(*arguments: str | Path, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run one `ingestd` command to its end, its output captured as text."""
    return subprocess.run(
        [sys.executable, "-m", "ingestd", *map(str, arguments)],
        cwd=cwd,
        env=clean_environ(),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S * 3,
        check=False,
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP response, read whole."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which every answer has as JSON."""
        return json.loads(self.body)


class Client:
    """One kept-alive connection that sends what it is told, byte for byte."""

    def __init__(self, host: str, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=DEADLINE_S)
        self._key = key

    def post(
        self,
        path: str,
        body: bytes | object,
        *,
        form: Literal["plain", "gzip", "chunked"] = "plain",
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """POST bytes as they are, anything else as JSON; `form` says how the body travels."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {key or self._key}", "Content-Type": "application/json"}
        sent.update(headers or {})
        if form == "chunked":
            sent["Transfer-Encoding"] = "chunked"
            return self.request("POST", path, _pieces(data), sent)
        if form == "gzip":
            sent["Content-Encoding"] = "gzip"
            data = gzip.compress(data, 1)
        return self.request("POST", path, data, sent)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Any request; raises OSError or HTTPException if the server does not answer."""
        self._connection.request(
            method, path, body, dict(headers or {}), encode_chunked=not isinstance(body, bytes)
        )
        response = self._connection.getresponse()
        return Answer(response.status, response.msg, response.read())

    def close(self) -> None:
        """Close the connection; a later request opens another."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _pieces(data: bytes, size: int = 1000) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


class Raw:
    """A connection on which the test writes the bytes itself, and reads one answer after the other."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=DEADLINE_S)
        self._file = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        """Write all of `data`."""
        self._socket.sendall(data)

    def answer(self, *, has_body: bool = True) -> Answer:
        """The next response; `has_body=False` for one to HEAD."""
        line = self._file.readline()
        assert line.startswith(b"HTTP/1.1 "), line
        headers = http.client.parse_headers(self._file)
        body = self._file.read(int(headers.get("Content-Length", "0"))) if has_body else b""
        return Answer(int(line.split()[1]), headers, body)

    def rest(self) -> bytes:
        """All that still comes until the server closes the connection."""
        return self._file.read()

    def end(self) -> None:
        """Say that nothing more will be sent."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close both directions."""
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Server:
    """One `ingestd serve` on a data directory; with `with`, its process never outlives the block."""

    STOP = signal.SIGTERM
    BEFORE: tuple[str, ...] = ()
    """Put before the command: a program that becomes it by exec, so that the process stays the same."""

    def __init__(self, folder: Path, *flags: str, **settings: str | int | float) -> None:
        """`settings` go through the environment: `segment_age_max_s=0.2` is INGESTD_SEGMENT_AGE_MAX_S."""
        self.folder = folder
        self.data_dir = folder / "data"
        self.host, self.port = "", 0
        self.inherited: tuple[int, ...] = ()
        """Descriptors that the process gets beside the standard ones, under the same numbers."""
        self._flags = flags
        settings.setdefault("listen", "127.0.0.1:0")
        settings.setdefault("workers", 1)
        self._settings = {f"INGESTD_{name.upper()}": str(value) for name, value in settings.items()}
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._key = ""

    def launch(self) -> None:
        """Start the process, on a free port if `listen` says nothing else, and do not wait for it."""
        assert self._process is None, "it runs already"
        self._starts += 1
        with self._log_path.open("wb") as stderr:
            self._process = subprocess.Popen(
                [*self.BEFORE, sys.executable, "-m", "ingestd", "serve", *self._flags],
                cwd=self.folder,
                env=clean_environ(self._settings),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=self.inherited,
                # A group of its own, so that a kill takes all that it has started.
                process_group=0,
            )

    def start(self) -> Self:
        """Start the process and wait until it listens."""
        self.launch()
        self.wait_for_log("listens on ")
        match = _LISTENS.search(self.log)
        if match is not None:
            self.host, self.port = match[1], int(match[2])
        return self

    @property
    def pid(self) -> int:
        """The id of the running process."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    @property
    def worker_pids(self) -> list[int]:
        """The ids of the worker processes, in no order."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    @property
    def worker_pid(self) -> int:
        """The id of the only worker process."""
        (pid,) = self.worker_pids
        return pid

    @property
    def _log_path(self) -> Path:
        return self.folder / f"stderr-{self._starts}.txt"

    @property
    def log(self) -> str:
        """What the last start has written to stderr so far."""
        return self._log_path.read_text()

    def wait_for_log(self, text: str) -> None:
        """Wait until `text` is in the log; fails at once if the process ends before."""

        def seen() -> bool:
            ended = self._process is None or self._process.poll() is not None
            found = text in self.log
            assert found or not ended, f"the server ended without {text!r}:\n{self.log}"
            return found

        wait_until(seen, f"the log says {text!r}")

    @property
    def admin(self) -> tuple[str, int]:
        """Host and port of the admin listener, if the settings have one."""
        self.wait_for_log("metrics and probes on ")
        match = _ADMIN.search(self.log)
        assert match is not None
        return match[1], int(match[2])

    @property
    def key(self) -> str:
        """The key that the first start printed."""
        if not self._key:

            def printed() -> bool:
                match = _SECRET.search((self.folder / "stderr-1.txt").read_text())
                self._key = match[1] if match else ""
                return bool(match)

            wait_until(printed, "the first key is printed")
        return self._key

    def client(self) -> Client:
        """A client with the first key; close it or use it in a `with`."""
        return Client(self.host, self.port, self.key)

    def raw(self) -> Raw:
        """A connection for bytes of the test's own."""
        return Raw(self.host, self.port)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process, by its id."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for the process to end; returns its exit status."""
        assert self._process is not None, "it does not run"
        status = self._process.wait(DEADLINE_S)
        self._process = None
        return status

    def stop(self, number: signal.Signals = STOP) -> None:
        """Stop it as an operator would; it must exit with status 0."""
        self.send(number)
        status = self.wait()
        assert status == 0, f"exit status {status}:\n{self.log}"

    def kill(self) -> None:
        """kill -9 of its whole process group, and wait until it is gone."""
        os.killpg(self.pid, signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL
        wait_until(self.is_free, "the last worker has let go of the lock")

    def is_free(self) -> bool:
        """True if nothing of the server is left: a worker may outlive its supervisor by a moment."""
        path = self.data_dir / "lock"
        if not path.exists():
            return True
        with path.open("rb") as lock, suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def restart(self) -> Self:
        """Stop it and start it on the same data."""
        self.stop()
        return self.start()

    def segments(self) -> list[Path]:
        """The sealed segments, oldest first."""
        return sorted(self.data_dir.glob("segments/date=*/hour=*/*.ndjson.zst"), key=lambda path: path.name)

    def events(self) -> list[Any]:
        """All stored events, by `ingestd cat`."""
        done = run("cat", self.data_dir, cwd=self.folder)
        assert done.returncode == 0, done.stderr
        # Not splitlines: strings may hold what it takes for a line break.
        return [json.loads(line) for line in done.stdout.split("\n")[:-1]]

    def __enter__(self) -> Self:
        return self.start() if self._process is None else self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        if kind is None:
            self.stop()
        else:
            self.kill()
