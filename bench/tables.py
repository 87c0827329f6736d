"""The tables of docs/benchmarks.md."""

from __future__ import annotations

import math
from typing import Final

from bench.contenders import FSYNC, KERNELS, TWO
from bench.results import Checked, Latency
from bench.view import (
    ONE,
    Figure,
    View,
    against_zstd3,
    bytes_per_event,
    cpu_us,
    events_per_s,
    peak_mib,
    requests_per_s,
    sent_per_event,
    settling_us,
    spread,
)

FLEET_EVENTS_PER_S: Final = 1e6
NODE_CORES: Final = 8
NODE_BUSY: Final = 0.6
"""Of a node's cores, when one node of the fleet is lost: a busier one makes its clients wait."""


def number(value: float | None) -> str:
    """Three digits that count, and thousands parted."""
    if value is None:
        return "–"
    if value >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def title(load: str) -> str:
    """`1000-nested-gzip` as people say it."""
    events, shape, *gzip = load.split("-")
    size = f"{int(events):,}"
    return " ".join([size, *([shape] if shape != "nested" else []), *gzip])


def grid(view: View, loads: list[str], figure: Figure, *, but: tuple[str, ...] = ()) -> list[str]:
    """A row for each contender, a column for each load: medians."""
    loads = [load for load in loads if load in view.loads]
    lines = [
        f"| | {' | '.join(map(title, loads))} |",
        "|--|" + "--:|" * len(loads),
    ]
    for contender in view.contenders:
        if contender not in but:
            cells = [number(view.median(contender, load, figure)) for load in loads]
            lines.append(f"| {contender} | {' | '.join(cells)} |")
    return lines


def by_coding(view: View, figure: Figure, *, but: tuple[str, ...] = ()) -> list[str]:
    """Nested events plain, nested events gzipped, other shapes: three tables."""
    nested = [load for load in view.loads if "-nested" in load]
    plain = [load for load in nested if not load.endswith("-gzip")]
    groups = (
        plain,
        [load for load in nested if load not in plain],
        [x for x in view.loads if x not in nested],
    )
    lines: list[str] = []
    for loads in groups:
        if loads:
            lines += [*grid(view, loads, figure, but=but), ""]
    return lines[:-1]


def contenders(view: View) -> list[str]:
    """Who took part, and what was found by asking them."""
    lines = [
        "| | a 200 means | unknown keys | wrong events | gzip | core | versions |",
        "|--|--|--|--|--|--|--|",
    ]
    for one in view.results.contenders:
        versions = ", ".join(f"{name} {version}" for name, version in one.versions.items())
        said = _said(one.checked) if one.checked else "– | – | –"
        lines.append(f"| {one.name} | {one.kept} | {said} | {one.cores} | {versions} |")
    return lines


def _said(checked: Checked) -> str:
    gzip = (
        "inflated" if checked.keeps_gzip_inflated else "kept as it came" if checked.takes_gzip else "refused"
    )
    if not checked.keeps_events:
        return "taken | taken | taken"
    key = "refused" if checked.refuses_unknown_keys else "taken"
    return f"{key} | {'refused' if checked.refuses_invalid_events else 'taken'} | {gzip}"


def throughput(view: View) -> list[str]:
    """As much as each takes on its core."""
    return by_coding(view, events_per_s, but=(KERNELS,))


def cpu(view: View) -> list[str]:
    return by_coding(view, cpu_us)


def memory(view: View) -> list[str]:
    """MiB."""
    loads = [
        load for load in view.loads if load in ("1-nested", "1000-nested", "1000-nested-gzip", "10000-nested")
    ]
    return grid(view, loads, peak_mib, but=(KERNELS,))


def stored(view: View) -> list[str]:
    """Bytes an event takes on disk, by all who store some."""
    silent = tuple(
        one.name for one in view.results.contenders if not (one.checked and one.checked.keeps_events)
    )
    return by_coding(view, bytes_per_event, but=silent)


def sealed(view: View) -> list[str]:
    """ingestd's segments against one file of the same content, and what sealing them costs."""
    lines = [
        "| events a request | bytes of lines an event | stored | `zstd -3` | stored against `zstd -3` | "
        "sealing, CPU µs/event | serving, CPU µs/event |",
        "|--|--:|--:|--:|--:|--:|--:|",
    ]
    for load in view.loads:
        made = [one for one in view.results.throughput if (one.contender, one.load) == (FSYNC, load)]
        made = [one for one in made if one.zstd3_bytes and one.stored_events]
        if made:
            content = spread(one.content_bytes / one.stored_events for one in made)
            zstd3 = spread(one.zstd3_bytes / one.stored_events for one in made)
            assert content
            assert zstd3
            cells = [
                content.median, view.median(FSYNC, load, bytes_per_event), zstd3.median,
                view.median(FSYNC, load, against_zstd3), view.median(FSYNC, load, settling_us),
                view.median(FSYNC, load, cpu_us),
            ]  # fmt: skip
            lines.append(f"| {title(load)} | {' | '.join(map(number, cells))} |")
    return lines


def acks(view: View) -> list[str]:
    """What README.md shows of the ack levels."""
    lines = [
        "| `ack` | requests/s, 64 clients | CPU µs/request | p50 ms at half of that | p99 ms |",
        "|--|--:|--:|--:|--:|",
    ]
    for level in ("fsync", "write", "memory"):
        name = f"ingestd, ack {level}"
        halves = view.timed(name, is_half=True).get(0.0, [])
        cells = [
            view.median(name, ONE, requests_per_s), view.median(name, ONE, cpu_us),
            *(_median(halves, percentile) for percentile in ("p50_ms", "p99_ms")),
        ]  # fmt: skip
        lines.append(f"| `{level}` | {' | '.join(map(number, cells))} |")
    return lines


def fleet(view: View) -> list[str]:
    """What docs/fleet.md has: CPU, nodes, network and disk of a fleet, by the size of requests."""
    lines = [
        f"| events a request | CPU µs/event | cores busy | nodes of {NODE_CORES} cores "
        "| bodies MB/s | stored MB/s | stored TB a day |",
        "|--|--:|--:|--:|--:|--:|--:|",
    ]
    for load in view.loads:
        serving, sealing = view.median(TWO, load, cpu_us), view.median(FSYNC, load, settling_us)
        sent, kept = view.median(TWO, load, sent_per_event), view.median(TWO, load, bytes_per_event)
        if serving is None or sealing is None or sent is None or kept is None:
            continue
        # Microseconds a second, of which a core has a million.
        busy = (serving + sealing) * FLEET_EVENTS_PER_S / 1e6
        nodes = math.ceil(busy / (NODE_CORES * NODE_BUSY)) + 1
        kept_mb_per_s = kept * FLEET_EVENTS_PER_S / 1e6
        cells = [
            *(number(serving + sealing), number(busy), str(nodes), number(sent * FLEET_EVENTS_PER_S / 1e6)),
            *(number(kept_mb_per_s), number(kept_mb_per_s * 86_400 / 1e6)),
        ]
        lines.append(f"| {title(load)} | {' | '.join(cells)} |")
    return lines


def _median(made: list[Latency], name: str) -> float | None:
    found = spread(float(getattr(one, name)) for one in made)
    return found.median if found else None


_PERCENTILES = ("p50_ms", "p99_ms", "p999_ms")


def latency(view: View) -> list[str]:
    """p50 / p99 / p99.9 at each rate."""
    rates = sorted({made.rate for made in view.results.latency if not made.is_half})
    lines = [f"| requests/s | {' | '.join(f'{rate:,.0f}' for rate in rates)} |", "|--|" + "--|" * len(rates)]
    for contender in view.contenders:
        by_rate = view.timed(contender, is_half=False)
        if by_rate:
            cells = [_three(by_rate.get(rate, [])) for rate in rates]
            lines.append(f"| {contender} | {' | '.join(cells)} |")
    return lines


def _three(made: list[Latency]) -> str:
    return " / ".join(number(_median(made, name)) for name in _PERCENTILES) if made else "–"


def halves(view: View) -> list[str]:
    """The same at half of what each takes; and how late the generator was."""
    lines = [
        "| | requests/s | p50 ms | p99 ms | p99.9 ms | the generator's own lateness, p99 ms |",
        "|--|--:|--:|--:|--:|--:|",
    ]
    for contender in view.contenders:
        made = view.timed(contender, is_half=True).get(0.0, [])
        if made:
            cells = [_median(made, name) for name in ("rate", *_PERCENTILES, "late_p99_ms")]
            lines.append(f"| {contender} | {' | '.join(map(number, cells))} |")
    return lines


def disk(view: View) -> list[str]:
    """The probes, a row for each round."""
    lines = ["| round | write and fdatasync of | p50 ms | p99 ms | p99.9 ms |", "|--|--:|--:|--:|--:|"]
    for probe in view.results.disk:
        cells = map(number, (probe.p50_ms, probe.p99_ms, probe.p999_ms))
        lines.append(f"| {probe.round + 1} | {probe.bytes:,} bytes | {' | '.join(cells)} |")
    return lines


def troubles(view: View) -> list[str]:
    """What was not measured, and refusals."""
    lines = [f"- {one.name} took no part: {one.remedy}." for one in view.results.absent]
    for failure in view.results.failures:
        lines.append(f"- {failure.contender}, {failure.load}, round {failure.round + 1}: `{failure.error}`")
    for made in view.results.throughput:
        if made.refused:
            share = made.refused / (made.refused + made.requests)
            lines.append(
                f"- {made.contender}, {title(made.load)}, round {made.round + 1}: {share:.1%} of requests "
                "were answered with something else than 200, and are not counted."
            )
    return lines or ["- Everything was measured, and nothing refused."]


def machine(view: View) -> list[str]:
    """Where, and with what."""
    found = view.results.machine
    return [
        f"- {found.cpu}, {found.cores} cores, {found.memory_bytes / (1 << 30):.1f} GiB",
        f"- {found.kernel}, {found.glibc}, {found.file_system}",
        *(f"- {name} {version}" for name, version in view.results.versions.items()),
    ]


def commands(view: View) -> list[str]:
    """The run, and each contender; what stands in FOLDER is the contender's own."""
    lines = [view.results.command]
    for one in view.results.contenders:
        lines += ["", f"# {one.name}", one.command]
    return lines
