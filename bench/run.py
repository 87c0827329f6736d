"""A whole run: round by round, load by load, each contender in turn.

In a round every contender is started once, and all stay up; for each load they are driven one after
the other, so that a machine whose speed drifts drifts for all of them, and who begins changes from
round to round. After each load the files are emptied and synced: nobody's writes are left for the
kernel to do while somebody else is measured.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from bench import contenders, kernels, machine, openloop, results, running, wrk
from bench.contenders import FSYNC, KERNELS, MEMORY, NOOP, TWO, WRITE, Contender
from bench.corpus import Load, bodies
from bench.processes import SERVER_CORE, pinned
from bench.results import Absent, DiskProbe, Failure, Latency, Results, Throughput
from bench.running import Bodies, Running

ONE: Final = Load(1)
COMMIT_BYTES: Final = 8 * 1024
"""Of the disk probe: what some 60 events of 400 bytes come to, compressed."""
_TIMED_BODIES: Final = 2000
_FILL: Final = 0.85
"""A rate above this share of what a contender takes would show nothing but its queue."""


@dataclass(frozen=True)
class Plan:
    """What is measured, and for how long."""

    rounds: int
    seconds: float
    """Of each load."""
    timed_seconds: float
    """Of each rate."""
    loads: tuple[Load, ...]
    rates: tuple[float, ...]
    only: frozenset[str] | None = None
    """Names of contenders; None: all."""


_NESTED: Final = tuple(
    Load(events, "nested", is_gzip) for is_gzip in (False, True) for events in (1, 10, 100, 1000, 10_000)
)
_FLAT: Final = (Load(1, "flat"), Load(1000, "flat"), Load(1000, "flat", True))
_REAL: Final = (Load(1, "real"), Load(100, "real"), Load(100, "real", True))

LONG: Final = Plan(5, 3.0, 5.0, _NESTED + _FLAT + _REAL, (500.0, 1e3, 2e3, 4e3, 8e3, 16e3, 24e3, 32e3))
QUICK: Final = Plan(
    1, 1.0, 2.0, (ONE, Load(1000), Load(1000, is_gzip=True), Load(10_000)), (1e3, 8e3),
    frozenset({KERNELS, NOOP, FSYNC, WRITE, MEMORY, TWO}),
)  # fmt: skip
"""ingestd and its floors."""

Say = Callable[[str], None]


class Run:
    """A run in `folder`, which contenders write to."""

    def __init__(
        self, plan: Plan, those: Sequence[Contender], folder: Path, out: Results, say: Say, real: Path | None
    ) -> None:
        self._plan = plan
        self._out = out
        self._say = say
        self._folder = folder
        self._those = [one for one in those if self._takes_part(one)]
        loads = [load for load in plan.loads if load.shape != "real" or real is not None]
        self._bodies = [self._written(load, real) for load in loads]
        self._has_kernels = plan.only is None or KERNELS in plan.only
        if self._has_kernels:
            told = results.Contender(
                KERNELS, "written to a file, not synced", "python -m bench.kernels",
                contenders.python_packages("msgspec", "zstandard", "isal"), SERVER_CORE,
            )  # fmt: skip
            out.contenders.append(told)

    def _takes_part(self, contender: Contender) -> bool:
        if self._plan.only is not None and contender.name not in self._plan.only:
            return False
        remedy = contender.needs()
        if remedy is not None:
            self._out.absent.append(Absent(contender.name, remedy))
            self._say(f"{contender.name} takes no part: {remedy}")
        return remedy is None

    def _written(self, load: Load, real: Path | None) -> Bodies:
        texts = bodies(load, real)
        once: list[bytes] = []
        if load.shape == "real" and real is not None:
            once = texts[: len(real.read_bytes().splitlines()) // load.events]
        made = Bodies(load, texts, self._folder / "bodies" / load.name, once)
        wrk.write_bodies(made.texts, made.file)
        return made

    def round(self, number: int) -> None:
        """Start all, measure all, end all."""
        with ExitStack() as stack:
            up = [one for contender in self._those for one in self._started(stack, number, contender)]
            at = number % len(up) if up else 0
            up = up[at:] + up[:at]
            for load in self._bodies:
                if self._has_kernels:
                    self._kernels(number, load)
                for one in up:
                    with self._told(number, one, load.load.name):
                        self._throughput(number, one, load)
            timed = [one for one in up if one.contender.name != TWO]
            if self._plan.rates:
                self._disk(number)
            for rate in [*self._plan.rates, None] if self._plan.rates else []:
                for one in timed:
                    asked = self._rate(number, one, rate)
                    if asked is not None:
                        with self._told(number, one, f"{asked:.0f}/s"):
                            self._latency(number, one, asked, is_half=rate is None)

    def _started(self, stack: ExitStack, number: int, contender: Contender) -> Iterator[Running]:
        try:
            slug = re.sub(r"\W+", "-", contender.name)
            one = Running(contender, self._folder / f"{number}-{slug}")
            stack.callback(one.stop)
            checked = one.check()
        except (OSError, RuntimeError, subprocess.SubprocessError) as e:
            self._failed(number, contender.name, "start", e)
            return
        if contender.name not in {told.name for told in self._out.contenders}:
            environ = [f"{name}={value}" for name, value in contender.environ.items()]
            command = " ".join([*environ, machine.shown(one.argv, one.site.folder)])
            command = command.replace(str(one.site.port), "PORT")
            told = results.Contender(
                contender.name, contender.kept, command, contender.versions(), contender.cores, checked
            )
            self._out.contenders.append(told)
        yield one

    @contextmanager
    def _told(self, number: int, one: Running, load: str) -> Iterator[None]:
        """What cannot be measured is told, and the run goes on."""
        if one.process.has_ended:
            self._failed(number, one.contender.name, load, RuntimeError("it has ended"))
            return
        try:
            yield
        except (OSError, RuntimeError, subprocess.SubprocessError) as e:
            self._failed(number, one.contender.name, load, e)

    def _failed(self, number: int, name: str, load: str, error: Exception) -> None:
        text = " ".join(str(error).replace(str(self._folder), "FOLDER").split())[:300]
        self._out.failures.append(Failure(number, name, load, text))
        self._say(f"{name}, {load}: {text}")

    def _throughput(self, number: int, one: Running, bodies: Bodies) -> None:
        one.process.forget_peak()
        try:
            driven, cpu_s = one.drive(bodies, self._seconds(bodies.load))
            settling_cpu_s, peak = one.settle(), one.process.peak_rss_bytes()
            if bodies.once:
                one.store_once(bodies)
            stored = one.stored(bodies.load)
        finally:
            one.forget()
        sizes = [len(text) for text in bodies.texts]
        sent = round(driven.requests * sum(sizes) / len(sizes))
        made = Throughput(
            number, one.contender.name, bodies.load.name, bodies.load.events, driven.connections,
            driven.seconds, driven.requests, driven.refused, cpu_s, settling_cpu_s, peak, sent, *stored,
        )  # fmt: skip
        self._record(made)

    def _seconds(self, load: Load) -> float:
        """What is still on its way at the end has cost CPU and does not count: large requests take longer."""
        return self._plan.seconds * (2 if load.events >= 10_000 else 1)

    def _record(self, made: Throughput) -> None:
        self._out.throughput.append(made)
        self._say(
            f"{made.load:18} {made.contender:30} {made.requests / made.seconds:10,.0f} requests/s "
            f"{made.cpu_s / made.events * 1e6:8.2f} µs/event"
        )

    def _kernels(self, number: int, bodies: Bodies) -> None:
        load = bodies.load
        done = subprocess.run(
            [
                *(*pinned(SERVER_CORE), sys.executable, "-m", "bench.kernels", str(load.events)),
                *("gzip" if load.is_gzip else "plain", str(self._plan.seconds), str(bodies.file)),
            ],
            stdout=subprocess.PIPE,
            check=True,
            cwd=contenders.ROOT,
        )
        spent = msgspec.json.decode(done.stdout, type=kernels.Spent)
        requests = spent.events // load.events
        self._record(
            Throughput(
                number,
                KERNELS,
                load.name,
                load.events,
                0,
                spent.cpu_s,
                requests,
                0,
                spent.cpu_s,
                0.0,
                0,
                0,
                0,
                0,
            )
        )

    def _disk(self, number: int) -> None:
        took = machine.probe_disk(self._folder, COMMIT_BYTES, self._plan.timed_seconds)
        shares = [round(openloop.percentile(took, share), 4) for share in (0.5, 0.99, 0.999)]
        self._out.disk.append(DiskProbe(number, COMMIT_BYTES, len(took), *shares))
        self._say(f"fdatasync p50 {shares[0]:.2f} ms, p99 {shares[1]:.2f} ms")

    def _rate(self, number: int, one: Running, rate: float | None) -> float | None:
        """The rate if this contender can keep up with it; for None half of what it takes."""
        full = [
            made.requests / made.seconds
            for made in self._out.throughput
            if (made.round, made.contender, made.load) == (number, one.contender.name, ONE.name)
        ]
        if not full:
            return None
        if rate is None:
            return float(round(full[0] / 2))
        return rate if rate <= full[0] * _FILL else None

    def _latency(self, number: int, one: Running, rate: float, *, is_half: bool) -> None:
        texts = next(made.texts for made in self._bodies if made.load == ONE)[:_TIMED_BODIES]
        try:
            timing = one.time(texts, rate, self._plan.timed_seconds)
        finally:
            one.settle()
            one.forget()
        made = Latency(
            number, one.contender.name, rate, is_half, running.CONNECTIONS, self._plan.timed_seconds,
            timing.requests, *(round(ms, 4) for ms in msgspec.structs.astuple(timing)[1:]),
        )  # fmt: skip
        self._out.latency.append(made)
        self._say(
            f"{rate:8,.0f}/s {made.contender:30} p50 {made.p50_ms:.2f} p99 {made.p99_ms:.2f} "
            f"p99.9 {made.p999_ms:.2f} ms (late by {made.late_p99_ms:.2f})"
        )
