"""The hot path in one process, without sockets and threads, for counting instructions.

`python -m bench.hot_path PASSES` drives real Connections, Hub, Ring and Flusher through the stages
of a request: *read* (the bytes of requests arrive, and batches of them wait in the ring), *commit*
(the flusher compresses and writes them) and *answer* (the answers leave). Before each stage and
after it stands a `mark`, a system call that nothing else makes and that callgrind is told to look
for: so start-up is not counted. It prints the stages, in the order of their marks.
"""

from __future__ import annotations

import gc
import hashlib
import os
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from bench import kernels
from bench.corpus import Load, bodies
from ingestd.config import AckLevel, Settings
from ingestd.errors import StorageError
from ingestd.events import Batch
from ingestd.http.hub import Hub
from ingestd.http.logged import connection
from ingestd.http.protocol import Connection
from ingestd.keys import Key, Keyring
from ingestd.ring import Ring
from ingestd.storage.disk import Disk
from ingestd.storage.flusher import Flusher
from ingestd.storage.sealer import Sealer
from ingestd.storage.segment import open_directory

MARK: Final = "getppid"
"""The C function whose calls part the stages."""
mark: Final = os.getppid

PYTHON: Final = "a plain Python loop"
KERNELS: Final = "the bare kernels"
UNITS: Final = {PYTHON: 10_000, KERNELS: 2_000}
"""Steps of the loop, and events through the kernels, in each pass."""

_SECRET: Final = "ing_a-key-that-is-known"
_READ_BYTES: Final = 256 * 1024
"""What uvloop reads at most at once."""


class Workload(NamedTuple):
    """Requests of one kind: one on each connection, in each pass."""

    name: str
    load: Load
    requests: int
    round_requests: int
    """How many of them one turn of the loop reads."""

    @property
    def events(self) -> int:
        """In each pass."""
        return self.requests * self.load.events


WORKLOADS: Final = (
    Workload("1 event", Load(1), 512, 64),
    Workload("1,000 events", Load(1000), 2, 1),
    Workload("1,000 events, gzip", Load(1000, is_gzip=True), 2, 1),
)


class _Transport:
    """Where answers go."""

    def __init__(self) -> None:
        self.answers = 0

    def write(self, data: bytes) -> None:
        assert data.startswith(b"HTTP/1.1 200 OK\r\n")
        self.answers += 1

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        """There is no buffer."""


class Server:
    """What a worker has, without its loop and its threads."""

    def __init__(self, data_dir: Path) -> None:
        # One batch a commit: what one round has gathered, as when the flusher keeps up.
        settings = Settings(data_dir=str(data_dir), commit_bytes_max=1)
        disk, ring = Disk(), Ring(settings.ring_batches_max, settings.ring_bytes_max)
        disk.make_directory(open_directory(data_dir))
        digest = hashlib.sha256(_SECRET.encode()).hexdigest()
        keyring = Keyring([Key(name="default", sha256=digest, created=datetime(2025, 1, 1, tzinfo=UTC))])
        self._deferred: deque[Callable[[], None]] = deque()
        self._committed: list[tuple[Batch, str]] = []
        """Batches, and the receipt of each."""
        self._hub = Hub(
            settings,
            keyring,
            ring,
            clock=lambda: 1000.0,
            defer=self._deferred.append,
            drain_bytes_per_s=lambda: 0.0,
            not_ready=lambda: "",
        )
        sealer = Sealer(settings, disk)
        self._flusher = Flusher(settings, disk, ring, self._acknowledge, sealer, "bench")

    def _acknowledge(
        self, batches: list[Batch], error: StorageError | None, receipt: str, _ack: AckLevel
    ) -> None:
        assert error is None
        self._committed += [(batch, receipt) for batch in batches]

    def connect(self) -> tuple[Connection, _Transport]:
        """A new connection."""
        made, transport = connection(self._hub), _Transport()
        made.connection_made(transport)
        return made, transport

    def turn(self) -> None:
        """Turn the loop until nobody asks for another turn."""
        while self._deferred:
            due = list(self._deferred)
            self._deferred.clear()
            for call in due:
                call()

    def commit(self) -> None:
        """The flusher's part."""
        while self._flusher.step():
            pass

    def answer(self) -> None:
        """What the loop does when commits are told to it."""
        for batch, receipt in self._committed:
            assert batch.ack is not None
            batch.ack(None, receipt)
        self._committed.clear()
        self.turn()

    def finish(self) -> None:
        """Commit and seal all."""
        self._flusher.finish()


class _Clients:
    """The connections of one workload, and what each sends again and again, cut as a socket would."""

    def __init__(self, server: Server, workload: Workload) -> None:
        texts = [_request(body, workload.load) for body in bodies(workload.load, count=workload.requests)]
        cut = [[text[i : i + _READ_BYTES] for i in range(0, len(text), _READ_BYTES)] for text in texts]
        self._server = server
        self._connections = [server.connect() for _ in texts]
        pairs = list(zip(self._connections, cut, strict=True))
        size = workload.round_requests
        self._rounds = [pairs[i : i + size] for i in range(0, len(pairs), size)]

    def read(self) -> None:
        """All send their request; what a round brings is validated together."""
        for pairs in self._rounds:
            for (one, _), pieces in pairs:
                for piece in pieces:
                    one.data_received(piece)
            self._server.turn()

    def check(self, passes: int) -> None:
        """Each has had its answers."""
        assert {transport.answers for _, transport in self._connections} == {passes}


def _request(body: bytes, load: Load) -> bytes:
    lines = [
        f"POST {load.path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {_SECRET}",
        "Content-Type: application/json",
        *(["Content-Encoding: gzip"] if load.is_gzip else []),
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


class _Loop:
    """Attributes, calls, small objects: Python that does a bit of everything, and nothing of ours."""

    def __init__(self) -> None:
        self.made: list[tuple[int, bytes]] = []
        self.known: dict[int, bytes] = {}

    def run(self, texts: list[bytes]) -> None:
        for i in range(UNITS[PYTHON]):
            self.step(i, texts[i % len(texts)])
        self.made.clear()

    def step(self, i: int, text: bytes) -> int:
        start = text[:4]
        self.made.append((i, start))
        self.known[i & 63] = start
        return self.other(start) if i % 7 else len(self.made)

    def other(self, start: bytes) -> int:
        return len([start for _ in (1, 2)])


@contextmanager
def _told(name: str, stages: list[str]) -> Iterator[None]:
    mark()
    stages.append("between")
    yield
    mark()
    stages.append(name)


def run(passes: int, data_dir: Path) -> list[str]:
    """Everything `passes` times; the first is a warm-up. Returns the stages, one for each mark."""
    server = Server(data_dir)
    clients = {workload.name: _Clients(server, workload) for workload in WORKLOADS}
    texts, many = bodies(Load(1), count=512), bodies(Load(1000), count=UNITS[KERNELS] // 1000)
    loop, bare = _Loop(), kernels.Kernels(Load(1000))
    # A collection now and then would fall into one stage or another.
    gc.collect()
    gc.disable()
    stages: list[str] = []
    for _ in range(passes):
        with _told(PYTHON, stages):
            loop.run(texts)
        with _told(KERNELS, stages):
            for body in many:
                bare.lines(body)
        for name, one in clients.items():
            for stage, act in (("read", one.read), ("commit", server.commit), ("answer", server.answer)):
                with _told(f"{name}: {stage}", stages):
                    act()
    for one in clients.values():
        one.check(passes)
    server.finish()
    return stages


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="ingestd-bench-") as folder:
        sys.stdout.buffer.write(msgspec.json.encode(run(int(sys.argv[1]), Path(folder))))
