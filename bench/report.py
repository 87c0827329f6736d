"""docs/benchmarks.md, its plots and parts of README.md and docs/fleet.md, made of a file of results.

No figure in them is typed by hand. The plots need matplotlib (extra `bench`) and are drawn only when
the results have changed: each bears the digest of those it shows.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Final

from bench import results, tables, targets
from bench.contenders import ROOT
from bench.view import View

RESULTS: Final = ROOT / "bench" / "results.json"
PAGE: Final = ROOT / "docs" / "benchmarks.md"
TEMPLATE: Final = ROOT / "bench" / "page.md"
README: Final = ROOT / "README.md"
FLEET: Final = ROOT / "docs" / "fleet.md"
PLOTS: Final = {name: PAGE.with_name(f"benchmarks-{name}.svg") for name in ("throughput", "cpu", "latency")}


def write(measured: Path, *, check: bool) -> int:
    """Make all of `measured`, which becomes bench/results.json; returns the exit status.

    With `check` nothing is written, and the status is 1 if something would change.
    """
    made = results.load(measured)
    if made.format != results.FORMAT:
        print(f"{measured} has format {made.format}, not {results.FORMAT}")
        return 1
    view, digest = View(made), hashlib.sha256(measured.read_bytes()).hexdigest()[:16]
    texts = {PAGE: page(view), README: _readme(view), FLEET: _fleet(view)}
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    undrawn = [path for path in PLOTS.values() if not path.exists() or digest not in path.read_text()]
    if check:
        for path in stale + undrawn:
            print(
                f"{path.relative_to(ROOT)} is not what bench/results.json makes: run `python -m bench report`"
            )
        return 1 if stale or undrawn else 0
    if measured.resolve() != RESULTS:
        shutil.copyfile(measured, RESULTS)
    for path, text in texts.items():
        path.write_text(text)
    if undrawn:
        # matplotlib is no part of a development environment that draws nothing.
        from bench import plots

        plots.draw(view, PLOTS, digest)
    return 0


def _readme(view: View) -> str:
    lines = [
        "What each level costs: one worker on one core, one event a request.",
        "",
        *tables.acks(view),
        "",
        _measured(view),
        "[docs/benchmarks.md](docs/benchmarks.md) has the rest, and what others cost; "
        "[docs/performance.md](docs/performance.md) says where the time goes.",
    ]
    return _replaced(README, "measured prices", lines)


def _fleet(view: View) -> str:
    return _replaced(FLEET, "capacity", [*tables.fleet(view), "", _measured(view)])


def _measured(view: View) -> str:
    machine = view.results.machine
    return f"Measured {view.results.started}: {machine.cpu}, {machine.cores} cores, {machine.file_system}."


def _replaced(path: Path, name: str, lines: list[str]) -> str:
    """The text of a page, with these lines between the markers of this name."""
    begin = f"<!-- {name}: made by `python -m bench report` from bench/results.json -->"
    end = f"<!-- end of {name} -->"
    before, _, rest = path.read_text().partition(begin)
    _, _, after = rest.partition(end)
    assert after, f"{path.name} has no {begin} … {end}"
    made = "\n".join(lines)
    return f"{before}{begin}\n\n{made}\n\n{end}{after}"


def page(view: View) -> str:
    """docs/benchmarks.md: bench/page.md with its places filled."""
    made = view.results
    # Of a run that was ended early, fewer than were asked for.
    done = len({one.round for one in made.throughput}) or made.rounds
    rounds = "1 round" if done == 1 else f"{done} rounds"
    places = {
        "when": [f"Measured {made.started}, commit {made.commit}, {rounds}"],
        "connections": [str(max((one.connections for one in made.latency), default=0))],
        "targets": targets.table(view),
        "cpu": tables.cpu(view),
        "throughput": tables.throughput(view),
        "latency": tables.latency(view),
        "halves": tables.halves(view),
        "disk": tables.disk(view),
        "memory": tables.memory(view),
        "stored": tables.stored(view),
        "sealed": tables.sealed(view),
        "contenders": tables.contenders(view),
        "troubles": tables.troubles(view),
        "machine": tables.machine(view),
        "commands": tables.commands(view),
    }
    text = TEMPLATE.read_text()
    for name, lines in places.items():
        text = text.replace(f"{{{{{name}}}}}", "\n".join(lines))
    return text
