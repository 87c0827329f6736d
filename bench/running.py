"""One contender from its start to its end, measured load by load."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import zstandard

from bench import checks, contenders, wrk
from bench.contenders import Contender, Site
from bench.corpus import Load
from bench.openloop import Order, Timing
from bench.processes import LOAD_CORE, Process, free_port, pinned, wait_until_listening
from bench.results import Checked

_START_S: Final = 30.0
_READ_BYTES: Final = 1 << 20
_REST_S: Final = 0.2
_REST_S_MAX: Final = 20.0
_IDLE_CPU_S: Final = 0.015
"""What a server that has nothing to do may take in that time: one tick of the clock."""
CONNECTIONS: Final = 256
"""On which requests at a fixed rate come."""


class Bodies(NamedTuple):
    """Of one load, written to a file for wrk and the kernels."""

    load: Load
    texts: list[bytes]
    file: Path
    once: list[bytes]
    """Where a corpus is so small that it comes again within what zstd looks back on: all of it, once."""


class Stored(NamedTuple):
    """What a load has left; the last two only of sealed segments."""

    bytes: int
    events: int
    content_bytes: int = 0
    zstd3_bytes: int = 0


class Running:
    """A contender that has been started in a new folder."""

    def __init__(self, contender: Contender, folder: Path) -> None:
        folder.mkdir()
        self.contender = contender
        self.site: Site = contender.prepare(contenders.new_site(folder, free_port()))
        self.argv = contender.command(self.site)
        self.process = Process(
            self.argv,
            contender.cores,
            folder / "log",
            contenders.environ(contender, self.site),
            contender.cwd,
        )
        try:
            wait_until_listening(self.process, self.site.port, _START_S)
        except BaseException:
            self.process.stop()
            raise

    def check(self) -> Checked:
        """What it does, and then the files as at the start."""
        found = checks.check(self.contender, self.site, self.process)
        self.forget()
        return found

    def drive(self, bodies: Bodies, seconds: float) -> tuple[wrk.Driven, float]:
        """As much as it takes; and the CPU seconds it took. Raises RuntimeError."""
        before = self.process.cpu_s()
        driven = wrk.drive(self.site.port, self.site.key, bodies.load, bodies.file, seconds)
        return driven, self.process.cpu_s() - before

    def settle(self) -> float:
        """Wait until nothing is on its way, then until all is in its last form: CPU seconds of that."""
        self._rest()
        if self.contender.settle is None:
            return 0.0
        before = self.process.cpu_s()
        self.contender.settle(self.site, self.process)
        return self.process.cpu_s() - before

    def _rest(self) -> None:
        """Until it works no more: requests whose client has gone are still on their way."""
        end, spent = time.monotonic() + _REST_S_MAX, -1.0
        while (now := self.process.cpu_s()) > spent + _IDLE_CPU_S and time.monotonic() < end:
            spent = now
            time.sleep(_REST_S)

    def store_once(self, bodies: Bodies) -> None:
        """In place of what a load has left: what must not come twice, once. Raises RuntimeError."""
        self.forget()
        connection = http.client.HTTPConnection("127.0.0.1", self.site.port, timeout=20)
        headers = {"Authorization": f"Bearer {self.site.key}", "Content-Type": "application/json"}
        if bodies.load.is_gzip:
            headers["Content-Encoding"] = "gzip"
        try:
            for text in bodies.once:
                connection.request("POST", bodies.load.path, text, headers)
                answer = connection.getresponse()
                if answer.status != 200:
                    raise RuntimeError(f"{answer.status}: {answer.read(200)!r}")
                answer.read()
        finally:
            connection.close()
        self.settle()

    def stored(self, load: Load) -> Stored:
        """What is in its files now: of requests whose answer nobody has waited for as well."""
        files = self.contender.files(self.site)
        size = sum(path.stat().st_size for path in files)
        if self.contender.is_sealed:
            return Stored(size, *_contents(files))
        # Where bodies are kept as they came, zipped ones have line breaks anywhere.
        lines = 0 if self.contender.keeps_bodies and load.is_gzip else sum(map(_line_count, files))
        return Stored(size, lines * (load.events if self.contender.keeps_bodies else 1))

    def forget(self) -> None:
        """Empty its files, and leave nothing for the kernel to write while somebody else is measured."""
        for path in self.contender.files(self.site):
            if self.contender.is_sealed:
                path.unlink()
            else:
                # Its owner appends.
                os.truncate(path, 0)
        os.sync()

    def time(self, texts: Sequence[bytes], rate: float, seconds: float) -> Timing:
        """Single events at a fixed rate. Raises RuntimeError."""
        requests = [_request(text, self.site.key) for text in texts]
        order = Order(self.site.port, requests, rate, seconds, min(1.0, seconds / 3), CONNECTIONS)
        done = subprocess.run(
            [*pinned(LOAD_CORE), sys.executable, "-m", "bench.openloop"],
            input=msgspec.json.encode(order),
            capture_output=True,
            check=False,
            cwd=contenders.ROOT,
            timeout=seconds + 60,
        )
        if done.returncode:
            raise RuntimeError(done.stderr.decode().strip())
        return msgspec.json.decode(done.stdout, type=Timing)

    def stop(self) -> None:
        """End it."""
        self.process.stop()


def _request(body: bytes, key: str) -> bytes:
    head = (
        f"POST /v1/track HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _contents(files: Sequence[Path]) -> tuple[int, int, int]:
    """Lines, their bytes, and these as one file by `zstd -3`, which is told the size beforehand."""
    lines = content_bytes = 0
    for path in files:
        for piece in _pieces(path):
            lines += piece.count(b"\n")
            content_bytes += len(piece)
    compressor = zstandard.ZstdCompressor(level=3).compressobj(size=content_bytes)
    sizes = [len(compressor.compress(piece)) for path in files for piece in _pieces(path)]
    return lines, content_bytes, sum(sizes) + len(compressor.flush())


def _pieces(path: Path) -> Iterator[bytes]:
    """Of a segment's lines."""
    decompressor = zstandard.ZstdDecompressor()
    with path.open("rb") as file, decompressor.stream_reader(file, read_across_frames=True) as reader:
        while piece := reader.read(_READ_BYTES):
            yield piece


def _line_count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(piece.count(b"\n") for piece in iter(lambda: file.read(_READ_BYTES), b""))
