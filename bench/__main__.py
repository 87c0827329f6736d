"""`python -m bench`: CPU of ingestd as a ratio of its two floors, interleaved in one run.

Each round measures the floor and ingestd one after the other, so that a machine whose speed drifts
drifts for both; the ratio is taken round by round, and its median is what counts.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import contenders, corpus, load
from bench.contenders import SERVER_CORE, pinned

_BODIES = 64
_BODIES_MANY = 16
_CONNECTIONS = 64
_CONNECTIONS_MANY = 8


def one_event(folder: Path, seconds: int) -> tuple[float, float]:
    """CPU µs per 1-event request: the no-op server's and ingestd's."""
    bodies = corpus.bodies(1, _BODIES, gzipped=False)
    spent = []
    for start in (contenders.noop(), contenders.ingestd(folder)):
        with start as contender:
            done = load.drive(
                contender, bodies, folder / "load", seconds=seconds, connections=_CONNECTIONS, is_many=False,
                gzipped=False,
            )  # fmt: skip
            spent.append(done.cpu_us_per_request)
    return spent[0], spent[1]


def many_events(folder: Path, seconds: int, events: int, *, gzipped: bool) -> tuple[float, float]:
    """CPU µs per event at `events` a request: the bare kernels' and ingestd's."""
    command = [*pinned(SERVER_CORE), sys.executable, "-m", "bench.kernels", str(events), str(seconds)]
    command += [str(folder / "kernels"), *(["--gzip"] if gzipped else [])]
    floor = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    bodies = corpus.bodies(events, _BODIES_MANY, gzipped=gzipped)
    with contenders.ingestd(folder) as contender:
        done = load.drive(
            contender, bodies, folder / "load", seconds=seconds, connections=_CONNECTIONS_MANY, is_many=True,
            gzipped=gzipped,
        )  # fmt: skip
    return floor, done.cpu_us_per_request / events


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of load, per contender and round")
    args = parser.parse_args()
    print("| load, ack fsync | unit | floor | ingestd | ratio (lowest to highest) |\n|--|--|--|--|--|", flush=True)
    for name, unit, events, gzipped in (
        ("1 event a request, against the no-op server", "µs/request", 1, False),
        ("1,000 events a request, against the bare kernels", "µs/event", 1000, False),
        ("1,000 events a request, gzip, against the bare kernels", "µs/event", 1000, True),
    ):
        rounds = []
        for _ in range(args.rounds):
            with tempfile.TemporaryDirectory(prefix="ingestd-bench-") as folder:
                if events == 1:
                    rounds.append(one_event(Path(folder), args.seconds))
                else:
                    rounds.append(many_events(Path(folder), args.seconds, events, gzipped=gzipped))
        ratios = [ours / floor for floor, ours in rounds]
        floor, ours = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(
            f"| {name} | {unit} | {floor:.2f} | {ours:.2f} | "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
