"""Results looked at: figures of a contender under a load, round by round, and their medians."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import NamedTuple

from bench.results import Latency, Results, Throughput

ONE = "1-nested"
Figure = Callable[[Throughput], float]


class Spread(NamedTuple):
    """Of some rounds."""

    median: float
    least: float
    most: float


def spread(values: Iterable[float]) -> Spread | None:
    """None of no values."""
    known = list(values)
    return Spread(statistics.median(known), min(known), max(known)) if known else None


def cpu_us(made: Throughput) -> float:
    """Per event."""
    return made.cpu_s / made.events * 1e6


def settling_us(made: Throughput) -> float:
    """The same, of sealing."""
    return made.settling_cpu_s / made.events * 1e6


def events_per_s(made: Throughput) -> float:
    return made.events / made.seconds


def requests_per_s(made: Throughput) -> float:
    return made.requests / made.seconds


def peak_mib(made: Throughput) -> float:
    return made.peak_rss_bytes / (1 << 20)


def bytes_per_event(made: Throughput) -> float:
    return made.stored_bytes / (made.stored_events or made.events)


def sent_per_event(made: Throughput) -> float:
    """Bytes of bodies, as they were sent."""
    return made.sent_bytes / made.events


def against_zstd3(made: Throughput) -> float:
    return made.stored_bytes / made.zstd3_bytes


class View:
    """Of one run."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.contenders = [contender.name for contender in results.contenders]
        self.loads = list(dict.fromkeys(made.load for made in results.throughput))
        self._made = {(made.round, made.contender, made.load): made for made in results.throughput}

    def get(self, number: int, contender: str, load: str) -> Throughput | None:
        """One figure of one round."""
        return self._made.get((number, contender, load))

    def each(self, contender: str, load: str, figure: Figure) -> list[float]:
        """Of the rounds that have it."""
        found = [self.get(number, contender, load) for number in range(self.results.rounds)]
        return [figure(made) for made in found if made is not None]

    def median(self, contender: str, load: str, figure: Figure) -> float | None:
        """None where it was not measured."""
        values = self.each(contender, load, figure)
        return statistics.median(values) if values else None

    def ratios(self, over: tuple[str, str], under: tuple[str, str], figure: Figure) -> list[float]:
        """One (contender, load) against another, taken within each round: they ran side by side."""
        pairs = [(self.get(n, *over), self.get(n, *under)) for n in range(self.results.rounds)]
        return [figure(a) / figure(b) for a, b in pairs if a is not None and b is not None]

    def timed(self, contender: str, *, is_half: bool) -> dict[float, list[Latency]]:
        """Latencies by rate; all at 0 for halves, for each round has another rate."""
        found: dict[float, list[Latency]] = {}
        for made in self.results.latency:
            if made.contender == contender and made.is_half == is_half:
                found.setdefault(0.0 if is_half else made.rate, []).append(made)
        return dict(sorted(found.items()))
