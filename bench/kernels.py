"""The floor of the work: inflate, decode, join, zstd, write, and no HTTP around them.

`python -m bench.kernels EVENTS_PER_REQUEST SECONDS FILE [--gzip]` prints CPU µs per event, of the
whole process from the first body to the last write.
"""

from __future__ import annotations

import argparse
import os
import time
import zlib
from pathlib import Path
from typing import Any

import msgspec
import zstandard
from msgspec import Raw

from bench import corpus
from ingestd.config import Settings
from ingestd.forms import Event

_BODIES = 16


def _inflater() -> Any:
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib
    return isal_zlib


def run(events_per_request: int, seconds: float, path: Path, *, gzipped: bool) -> float:
    """CPU µs per event of doing nothing but the kernels, one body at a time."""
    bodies = corpus.bodies(events_per_request, _BODIES, gzipped=gzipped)
    typed, raws = msgspec.json.Decoder(list[Event]), msgspec.json.Decoder(list[Raw])
    level = Settings().zstd_level
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
    inflate = _inflater().decompress
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    events = 0
    cpu_from, end = time.process_time(), time.monotonic() + seconds
    while time.monotonic() < end:
        for body in bodies:
            text = inflate(body, wbits=31) if gzipped else body
            text.decode()
            events += len(typed.decode(text))
            os.write(fd, compressor.compress(b"\n".join(raws.decode(text))))
    cpu_s = time.process_time() - cpu_from
    os.close(fd)
    path.unlink()
    return cpu_s / events * 1e6


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events_per_request", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("file", type=Path)
    parser.add_argument("--gzip", action="store_true")
    args = parser.parse_args()
    print(run(args.events_per_request, args.seconds, args.file, gzipped=args.gzip))


if __name__ == "__main__":
    main()
