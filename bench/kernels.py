"""The floor of the work: inflate, decode, join, zstd, write, and no HTTP around them.

`python -m bench.kernels EVENTS plain|gzip SECONDS FILE` takes the bodies that are in the file, and
prints the events it has done and the seconds of CPU they took, from the first body to the last write.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import msgspec
import zstandard
from msgspec import Raw

from bench import wrk
from bench.corpus import Load
from ingestd.config import Settings
from ingestd.forms import Event


def _inflater() -> Any:
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib
    return isal_zlib


class Kernels:
    """What cannot be done without, for the bodies of one load."""

    def __init__(self, load: Load) -> None:
        is_array = load.events > 1
        self._typed: Any = msgspec.json.Decoder(list[Event]) if is_array else msgspec.json.Decoder(Event)
        self._raws = msgspec.json.Decoder(list[Raw]) if is_array else None
        self._inflate: Any = _inflater().decompress if load.is_gzip else None
        self._compressor = zstandard.ZstdCompressor(
            level=Settings().zstd_level, write_checksum=True, write_content_size=True
        )

    def lines(self, body: bytes) -> bytes:
        """A body's events as a zstd frame of lines."""
        text = self._inflate(body, wbits=31) if self._inflate is not None else body
        text.decode()
        self._typed.decode(text)
        lines = b"\n".join(self._raws.decode(text)) if self._raws is not None else text
        return self._compressor.compress(lines)


class Spent(msgspec.Struct):
    """Of a run."""

    events: int
    cpu_s: float


def run(load: Load, bodies: list[bytes], seconds: float, folder: Path) -> Spent:
    """Nothing but the kernels, one body at a time, each written to a file."""
    kernels, events = Kernels(load), 0
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        cpu_from, end = time.process_time(), time.monotonic() + seconds
        while time.monotonic() < end:
            for body in bodies:
                os.write(file.fileno(), kernels.lines(body))
            events += load.events * len(bodies)
        return Spent(events, time.process_time() - cpu_from)


def main(events: str, coding: str, seconds: str, file: str) -> None:
    """Command line."""
    load = Load(int(events), is_gzip=coding == "gzip")
    bodies = wrk.read_bodies(Path(file))
    sys.stdout.buffer.write(msgspec.json.encode(run(load, bodies, float(seconds), Path(file).parent)))


if __name__ == "__main__":
    main(*sys.argv[1:])
