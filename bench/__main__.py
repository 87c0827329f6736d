"""`python -m bench`: CPU of ingestd as a ratio of its floors, interleaved in one run.

Each round measures floor and ingestd one after the other, so that a machine whose speed drifts
drifts for both; the ratio is taken round by round, and its median is what counts.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import contenders, corpus, load
from bench.contenders import SERVER_CORE, Contender, pinned

_BODIES = 64
_BODIES_MANY = 16
_CONNECTIONS = 64
_CONNECTIONS_MANY = 8

Round = Callable[[Path, int], tuple[float, float]]


def _driven(contender: Contender, folder: Path, seconds: int, events: int, *, gzipped: bool) -> float:
    """CPU µs per event."""
    bodies = corpus.bodies(events, _BODIES if events == 1 else _BODIES_MANY, gzipped=gzipped)
    done = load.drive(
        contender,
        bodies,
        folder / "load",
        seconds=seconds,
        connections=_CONNECTIONS if events == 1 else _CONNECTIONS_MANY,
        is_many=events > 1,
        gzipped=gzipped,
    )
    return done.cpu_us_per_request / events


def against_noop(*, handed: bool) -> Round:
    """1 event a request: a no-op server's CPU and ingestd's."""

    def measure(folder: Path, seconds: int) -> tuple[float, float]:
        with contenders.noop(handed=handed) as contender:
            floor = _driven(contender, folder, seconds, 1, gzipped=False)
        with contenders.ingestd(folder) as contender:
            return floor, _driven(contender, folder, seconds, 1, gzipped=False)

    return measure


def against_kernels(events: int, *, gzipped: bool) -> Round:
    """Many events a request: the bare kernels' CPU and ingestd's."""

    def measure(folder: Path, seconds: int) -> tuple[float, float]:
        command = [*pinned(SERVER_CORE), sys.executable, "-m", "bench.kernels", str(events), str(seconds)]
        command += [str(folder / "kernels"), *(["--gzip"] if gzipped else [])]
        floor = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        with contenders.ingestd(folder) as contender:
            return floor, _driven(contender, folder, seconds, events, gzipped=gzipped)

    return measure


ROWS = (
    ("1 event a request, against the no-op server", "µs/request", against_noop(handed=False)),
    ("the same, against one that is handed the request", "µs/request", against_noop(handed=True)),
    ("1,000 events a request, against the bare kernels", "µs/event", against_kernels(1000, gzipped=False)),
    ("1,000 events a request, gzip, against the kernels", "µs/event", against_kernels(1000, gzipped=True)),
)


def print_floors(rounds_count: int, seconds: int) -> None:
    """What ingestd costs beside what cannot be done without."""
    print("| load | unit | floor | ingestd | ratio (lowest to highest) |\n|--|--|--|--|--|", flush=True)
    for name, unit, measure in ROWS:
        rounds = []
        for _ in range(rounds_count):
            with tempfile.TemporaryDirectory(prefix="ingestd-bench-") as folder:
                rounds.append(measure(Path(folder), seconds))
        ratios = [ours / floor for floor, ours in rounds]
        floor, ours = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(
            f"| {name} | {unit} | {floor:.2f} | {ours:.2f} | "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |",
            flush=True,
        )


def print_acks(rounds_count: int, seconds: int) -> None:
    """What each ack level costs, for 64 busy clients and for a lone one."""
    print("| ack | requests/s, 64 clients | CPU µs/request | p50 ms, one client | p99 ms |\n|--|--|--|--|--|")
    measured: dict[str, list[tuple[float, ...]]] = {}
    bodies = corpus.bodies(1, _BODIES, gzipped=False)
    for _ in range(rounds_count):
        for ack in ("fsync", "write", "memory"):
            with (
                tempfile.TemporaryDirectory(prefix="ingestd-bench-") as folder,
                contenders.ingestd(Path(folder), ack) as contender,
            ):
                busy, lone = (
                    load.drive(
                        contender, bodies, Path(folder) / "load", seconds=seconds, connections=connections,
                        is_many=False, gzipped=False,
                    )
                    for connections in (_CONNECTIONS, 1)
                )  # fmt: skip
            row = (busy.requests_per_s, busy.cpu_us_per_request, lone.p50_ms, lone.p99_ms)
            measured.setdefault(ack, []).append(row)
    for ack, rows in measured.items():
        rate, cpu_us, p50_ms, p99_ms = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"| `{ack}` | {rate:,.0f} | {cpu_us:.1f} | {p50_ms:.2f} | {p99_ms:.2f} |", flush=True)


def main() -> None:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of load, per contender and round")
    args = parser.parse_args()
    print(f"Python {platform.python_version()}, {args.rounds} rounds of {args.seconds} s, ack fsync\n")
    print_floors(args.rounds, args.seconds)
    print()
    print_acks(args.rounds, args.seconds)


if __name__ == "__main__":
    main()
