"""The plots of docs/benchmarks.md, drawn as SVG with matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter

from bench.contenders import KERNELS
from bench.view import Figure, View, cpu_us, events_per_s, spread

_SIZE = (8.0, 5.0)
_OURS = "ingestd"
_LINES = ("-", "--", ":", "-.")


def draw(view: View, paths: Mapping[str, Path], digest: str) -> None:
    """All of them; each bears the digest of the results it is made of."""
    # The same results make the same bytes.
    mpl.rcParams["svg.hashsalt"] = digest
    mpl.rcParams["svg.fonttype"] = "none"
    drawn: dict[str, Callable[[Any, View], None]] = {
        "throughput": _throughput,
        "cpu": _cpu,
        "latency": _latency,
    }
    for name, path in paths.items():
        figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
        drawn[name](axes, view)
        axes.grid(True, which="major", alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
        figure.savefig(path, format="svg", metadata={"Date": None, "Description": digest})
        plt.close(figure)


def _by_events(axes: Any, view: View, figure: Figure, *, but: tuple[str, ...] = ()) -> None:
    """Nested events, plain, against their number in a request; log-log."""
    loads = {int(load.split("-")[0]): load for load in view.loads if load.endswith("-nested")}
    for i, contender in enumerate(name for name in view.contenders if name not in but):
        found = {events: view.median(contender, load, figure) for events, load in loads.items()}
        points = {float(events): value for events, value in found.items() if value}
        _line(axes, contender, i, points)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("events a request")
    _plain_numbers(axes)


def _line(axes: Any, name: str, i: int, points: Mapping[float, float]) -> None:
    style = _LINES[i // 10 % len(_LINES)]
    width = 2.4 if name.startswith(_OURS) else 1.2
    axes.plot(
        list(points),
        list(points.values()),
        style,
        marker=".",
        linewidth=width,
        label=name,
        color=f"C{i % 10}",
    )


def _plain_numbers(axes: Any) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _throughput(axes: Any, view: View) -> None:
    _by_events(axes, view, events_per_s, but=(KERNELS,))
    axes.set_ylabel("events a second")
    axes.set_title("Throughput, as much as each takes")


def _cpu(axes: Any, view: View) -> None:
    _by_events(axes, view, cpu_us)
    axes.set_ylabel("µs of CPU per event")
    axes.set_title("CPU per event, whole process tree")


def _latency(axes: Any, view: View) -> None:
    for i, contender in enumerate(view.contenders):
        points: dict[float, float] = {}
        for rate, made in view.timed(contender, is_half=False).items():
            found = spread(one.p99_ms for one in made)
            if found:
                points[rate] = found.median
        if points:
            _line(axes, contender, i, points)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("requests of one event a second, open loop")
    axes.set_ylabel("p99, ms, from when a request was due")
    axes.set_title("Latency at fixed rates")
    _plain_numbers(axes)
