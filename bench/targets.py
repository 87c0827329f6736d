"""What issue 6 asks for, and how each figure of it is made from the results."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bench.contenders import FASTAPI, FLUENT_BIT, FSYNC, KERNELS, MEMORY, NOOP, TWO
from bench.view import ONE, View, against_zstd3, cpu_us, requests_per_s, spread

MANY = "1000-nested"
GZIP = "1000-nested-gzip"
LARGE = "10000-nested"


class Target(NamedTuple):
    """`values` are those of the rounds; they are to be at most `limit`, or at least."""

    what: str
    limit: float
    is_most: bool
    values: Callable[[View], list[float]]


def _cpu(over: tuple[str, str], under: tuple[str, str]) -> Callable[[View], list[float]]:
    return lambda view: view.ratios(over, under, cpu_us)


def _half_load(view: View) -> list[float]:
    """p99 at half of full load, as a share of what is allowed."""
    allowed = {probe.round: 2 * probe.p99_ms + 2 for probe in view.results.disk}
    halves = view.timed(FSYNC, is_half=True).get(0.0, [])
    return [made.p99_ms / allowed[made.round] for made in halves if made.round in allowed]


def _stored(view: View) -> list[float]:
    """The worst of all loads, in each round."""
    worst = []
    for number in range(view.results.rounds):
        made = [view.get(number, FSYNC, load) for load in view.loads]
        ratios = [against_zstd3(one) for one in made if one is not None and one.zstd3_bytes]
        worst += [max(ratios)] if ratios else []
    return worst


def _fastapi(view: View) -> list[float]:
    """The least of all loads, in each round."""
    least = []
    for number in range(view.results.rounds):
        pairs = [(view.get(number, FASTAPI, load), view.get(number, FSYNC, load)) for load in view.loads]
        ratios = [cpu_us(theirs) / cpu_us(ours) for theirs, ours in pairs if theirs and ours]
        least += [min(ratios)] if ratios else []
    return least


def _acks(view: View) -> list[float]:
    return view.ratios((MEMORY, ONE), (FSYNC, ONE), requests_per_s)


def _two(load: str) -> Callable[[View], list[float]]:
    """Twice the cores, at what two workers spend on an event."""
    return lambda view: [2 * ratio for ratio in view.ratios((FSYNC, load), (TWO, load), cpu_us)]


_FLUENT = "CPU of Fluent Bit against ours"
_MOST = (
    ("1 event a request: CPU against the no-op server", 1.5, _cpu((FSYNC, ONE), (NOOP, ONE))),
    (
        "1,000 events, plain: CPU per event against the bare kernels",
        1.15,
        _cpu((FSYNC, MANY), (KERNELS, MANY)),
    ),
    (
        "1,000 events, gzip: CPU per event against the bare kernels",
        1.15,
        _cpu((FSYNC, GZIP), (KERNELS, GZIP)),
    ),
    ("10,000 against 1,000 events a request: CPU per event", 1.15, _cpu((FSYNC, LARGE), (FSYNC, MANY))),
    ("p99 at half of full load against 2 × the disk's own fdatasync p99 + 2 ms", 1.0, _half_load),
    ("ack `memory` against `fsync`: throughput, 64 connections", 1.2, _acks),
    ("bytes stored against `zstd -3` of the whole, sealed segments, the worst load", 1.1, _stored),
)
_LEAST = (
    (f"1 event: {_FLUENT}", 2.5, _cpu((FLUENT_BIT, ONE), (FSYNC, ONE))),
    (f"1,000 events: {_FLUENT}", 8.0, _cpu((FLUENT_BIT, MANY), (FSYNC, MANY))),
    (f"1,000 events, gzip: {_FLUENT}", 10.0, _cpu((FLUENT_BIT, GZIP), (FSYNC, GZIP))),
    ("CPU of FastAPI against ours, the load where that is least", 10.0, _fastapi),
    ("two workers against one, 1 event, by CPU accounting", 1.8, _two(ONE)),
    ("two workers against one, 1,000 events, by CPU accounting", 1.8, _two(MANY)),
)
TARGETS = (
    *(Target(what, limit, True, values) for what, limit, values in _MOST),
    *(Target(what, limit, False, values) for what, limit, values in _LEAST),
)


def table(view: View) -> list[str]:
    """Asked, measured, met."""
    lines = ["| what | asked | measured, median | range of the rounds | |", "|--|--|--|--|--|"]
    for target in TARGETS:
        found = spread(target.values(view))
        asked = f"{'at most' if target.is_most else 'at least'} {target.limit:g} ×"
        if found is None:
            lines.append(f"| {target.what} | {asked} | not measured | | |")
            continue
        met = found.median <= target.limit if target.is_most else found.median >= target.limit
        lines.append(
            f"| {target.what} | {asked} | {found.median:.2f} × | "
            f"{found.least:.2f} to {found.most:.2f} | {'met' if met else '**not met**'} |"
        )
    return lines
