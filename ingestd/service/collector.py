"""/metrics, for all workers at once: what stands in the shared memory, as prometheus-client's families.

Nothing is kept here, and neither the client's registry nor its files are used: the numbers are read
when somebody asks.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector as BaseCollector

from ingestd import __version__
from ingestd.config import Settings
from ingestd.service import scoreboard, tallies
from ingestd.service.families import DISTRIBUTIONS, FAMILIES, Distribution, Family
from ingestd.service.reporter import ANSWERS, KEY_EVENTS
from ingestd.service.scoreboard import SharedMemory
from ingestd.service.standing import Standing
from ingestd.service.tallies import Name, Tallies

_PREFIX: Final = "ingestd_"
CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
"""Of the form that generate_latest makes, and every Prometheus reads."""

_OVER: Final[dict[str, Callable[[list[int]], int]]] = {"sum": sum, "max": max, "min": min}


class Collector(BaseCollector):
    """Reads the shared memory of a server."""

    def __init__(self, settings: Settings, memory: SharedMemory, standing: Standing) -> None:
        self._settings = settings
        self._standing = standing
        self._workers = len(standing.rows)
        region = memory.region(tallies.REGION, tallies.BLOCK_BYTES * self._workers)
        self._tallies = [Tallies(region, number) for number in range(self._workers)]

    def text(self) -> bytes:
        """The page."""
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """Everything, in the order in which it is shown."""
        yield InfoMetricFamily(
            f"{_PREFIX}build",
            "The version that answers, and the Python that runs it.",
            {"version": __version__, "python": platform.python_version()},
        )
        yield from self._of_workers()
        yield from self._labelled()
        made: dict[str, Metric] = {}
        for family in FAMILIES:
            metric = made.setdefault(family.name, _empty(family))
            labels = [family.label[1]] if family.label else []
            assert isinstance(metric, CounterMetricFamily | GaugeMetricFamily)
            metric.add_metric(labels, self._value(family))
        yield from made.values()
        yield from map(self._distribution, DISTRIBUTIONS)
        yield from self._limits()

    def _of_workers(self) -> Iterator[Metric]:
        standing, reasons = self._standing, self._standing.reasons()
        yield _gauge("ready", "1 if every worker takes events.", not any(reasons))
        up = GaugeMetricFamily(f"{_PREFIX}worker_up", "1 while the worker's process runs.", labels=["worker"])
        ready = GaugeMetricFamily(
            f"{_PREFIX}worker_ready", "1 while the worker takes events.", labels=["worker"]
        )
        restarts = CounterMetricFamily(
            f"{_PREFIX}worker_restarts",
            "Times that the worker has ended without being asked to, and was started again.",
            labels=["worker"],
        )
        silence = GaugeMetricFamily(
            f"{_PREFIX}worker_silence_seconds",
            "Since the worker's loop, or its flusher, has gone round last; of a worker that runs.",
            labels=["worker", "thread"],
        )
        now_ms = scoreboard.monotonic_ms()
        for number, (row, place) in enumerate(zip(standing.rows, standing.places, strict=True)):
            worker = str(number)
            up.add_metric([worker], place[scoreboard.IS_UP])
            ready.add_metric([worker], not reasons[number])
            restarts.add_metric([worker], place[scoreboard.RESTARTS])
            beats = ("loop", row[scoreboard.LOOP_BEAT_MS]), ("flusher", row[scoreboard.FLUSHER_BEAT_MS])
            for thread, beat_ms in beats:
                if beat_ms:
                    silence.add_metric([worker, thread], max(0, now_ms - beat_ms) / 1000)
        yield from (up, ready, restarts, silence)

    def _labelled(self) -> Iterator[Metric]:
        """What has labels that were found as the server ran."""
        answers: dict[tuple[str, str], int] = {}
        refusals: dict[str, int] = {}
        keys: dict[str, int] = {}
        for name, count in self._tallied().items():
            if name[0] == ANSWERS:
                _, route, status, code = map(str, name)
                answers[route, status] = answers.get((route, status), 0) + count
                if code:
                    refusals[code] = refusals.get(code, 0) + count
            elif name[0] == KEY_EVENTS:
                keys[str(name[1])] = count
        requests = CounterMetricFamily(
            f"{_PREFIX}requests", "Requests whose answer is decided.", labels=["route", "status"]
        )
        for which in sorted(answers):
            requests.add_metric(list(which), answers[which])
        yield requests
        yield _by("refusals", "Answers that were errors, by the error's code.", "code", refusals)
        yield _by("key_events", "Events that were answered 200, by the name of their key.", "key", keys)

    def _tallied(self) -> dict[Name, int]:
        found: dict[Name, int] = {}
        for block in self._tallies:
            for name, number in block.read().items():
                found[name] = found.get(name, 0) + number
        return found

    def _value(self, family: Family) -> float:
        # Of a worker that is not there, or has not told yet, what tells of now is not known.
        rows = [row for row in self._standing.rows if family.over == "sum" or row[scoreboard.LOOP_BEAT_MS]]
        numbers = [row[family.column] for row in rows]
        total = _OVER[family.over](numbers) if numbers else 0
        return total if family.divisor == 1 else total / family.divisor

    def _distribution(self, distribution: Distribution) -> Metric:
        rows = self._standing.rows
        *counts, total = (sum(row[column] for row in rows) for column in distribution.columns)
        bounds = [*(str(bound / distribution.divisor) for bound in distribution.bounds), "+Inf"]
        family = HistogramMetricFamily(_PREFIX + distribution.name, distribution.text)
        family.add_metric(
            [], list(zip(bounds, accumulate(counts), strict=True)), total / distribution.divisor
        )
        return family

    def _limits(self) -> Iterator[Metric]:
        """Settings that the numbers above stand against, of all workers together."""
        settings, workers = self._settings, self._workers
        yield _gauge("workers", "Worker processes that there are to be.", workers)
        yield _gauge("connections_limit", "Connections that may be open.", workers * settings.connections_max)
        yield _gauge(
            "inflight_limit_bytes", "Bytes of bodies that may be in flight.",
            workers * settings.inflight_bytes_max,
        )  # fmt: skip
        yield _gauge(
            "ring_limit_bytes", "Bytes of lines that may wait for their commit.",
            workers * settings.ring_bytes_max,
        )  # fmt: skip
        yield _gauge(
            "disk_reserve_bytes", "Events get 429 while less than this is free.", settings.disk_reserve_bytes
        )


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(_PREFIX + name, text, value)


def _by(name: str, text: str, label: str, counts: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(_PREFIX + name, text, labels=[label])
    for value in sorted(counts):
        family.add_metric([value], counts[value])
    return family


def _empty(family: Family) -> CounterMetricFamily | GaugeMetricFamily:
    make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    return make(_PREFIX + family.name, family.text, labels=[family.label[0]] if family.label else [])
