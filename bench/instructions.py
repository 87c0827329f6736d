"""Has the hot path become heavier? Counted in instructions, which no other load on the machine changes.

`python -m bench.instructions` runs bench/hot_path.py under valgrind's callgrind (half a minute),
prints what each stage costs and compares it with the budget in bench/instructions.json; the exit
status is 1 if a stage has grown by more than MARGIN. `--write` makes what was counted the budget.

Measured: between runs a count differs by less than 1 %, whatever PYTHONHASHSEED is; between the
oldest and the newest allowed msgspec, zstandard, isal and httptools by 2 %; but between two builds
of CPython 3.11 (Debian's with profile-guided optimisation, another without) by 9 %. So the budget
is a ratio to a reference that is counted in the same run: to a plain Python loop where the
interpreter does the work, to the bare kernels where the libraries do. That leaves 5 %. Between
CPython 3.11, 3.12 and 3.13 it leaves 16 %, so a budget is one for its minor version, and machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec

from bench.hot_path import KERNELS, MARK, PYTHON, UNITS, WORKLOADS

BUDGET: Final = Path(__file__).with_suffix(".json")
MARGIN: Final = 0.10
_ROOT: Final = Path(__file__).parents[1]
_PASSES: Final = 3
_TIMEOUT_S: Final = 600
_LIBRARIES: Final = ("httptools", "isal", "msgspec", "uvloop", "zstandard")

PLATFORM: Final = "CPython {}.{}, {}".format(*platform.python_version_tuple()[:2], platform.machine())

REFERENCES: Final = {
    "1 event: read": PYTHON,
    "1 event: commit": KERNELS,
    "1 event: answer": PYTHON,
    "1,000 events: read": KERNELS,
    "1,000 events: commit and answer": KERNELS,
    "1,000 events, gzip: read": KERNELS,
    "1,000 events, gzip: commit and answer": KERNELS,
}
"""Each stage, and what it is compared with. Alone, the answer to 1,000 events varies by a tenth."""


class Cost(msgspec.Struct, frozen=True):
    """Of one event in one stage: in instructions, and in units of the reference."""

    instructions: float
    ratio: float


class Budget(msgspec.Struct, frozen=True):
    """What was counted when the budget was last moved, and with what."""

    platform: str
    """As `PLATFORM`: what the budget is for."""
    libraries: str
    stages: dict[str, Cost]


def count(valgrind: str | Path = "valgrind") -> dict[str, float]:
    """Instructions of each stage and each reference, per event or step. Raises RuntimeError."""
    with tempfile.TemporaryDirectory(prefix="ingestd-bench-") as folder:
        command = [
            str(valgrind),
            "--quiet",
            "--tool=callgrind",
            f"--dump-before={MARK}",
            "--combine-dumps=no",
        ]
        command += [
            f"--callgrind-out-file={folder}/out",
            sys.executable,
            "-m",
            "bench.hot_path",
            str(_PASSES),
        ]
        done = subprocess.run(
            command,
            cwd=_ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        stages = msgspec.json.decode(done.stdout, type=list[str])
        counted = [_total(Path(folder, f"out.{i}")) for i in range(1, len(stages) + 1)]
    # The first of each is a warm-up. Of the others the least: what comes on top is not the work's.
    least = {name: min(n for n, of in zip(counted, stages, strict=True) if of == name) for name in stages}
    for workload in WORKLOADS[1:]:
        commit, answer = least[f"{workload.name}: commit"], least[f"{workload.name}: answer"]
        least[f"{workload.name}: commit and answer"] = commit + answer
    units = {**UNITS, **{name: _workload_events(name) for name in REFERENCES}}
    return {name: least[name] / of for name, of in units.items()}


def _total(dump: Path) -> int:
    """Of one dump: what was counted since the one before."""
    found = re.search(r"^totals: (\d+)$", dump.read_text(), re.MULTILINE)
    assert found, f"no totals in {dump.name}"
    return int(found[1])


def _workload_events(stage: str) -> int:
    return next(workload.events for workload in WORKLOADS if stage.startswith(f"{workload.name}: "))


def costs(counted: Mapping[str, float]) -> dict[str, Cost]:
    """Each stage beside its reference."""
    return {
        stage: Cost(round(counted[stage]), round(counted[stage] / counted[reference], 4))
        for stage, reference in REFERENCES.items()
    }


def grown(now: Mapping[str, Cost], budget: Mapping[str, Cost]) -> list[str]:
    """A sentence for each stage that is over its budget by more than the margin."""
    return [
        f"{stage}: {now[stage].ratio / was.ratio - 1:+.0%} ({MARGIN:.0%} is let pass). It takes "
        f"{now[stage].ratio:.3g} times what {REFERENCES[stage]} takes ({now[stage].instructions:,.0f} "
        f"instructions an event), the budget is {was.ratio:.3g} times ({was.instructions:,.0f})."
        for stage, was in budget.items()
        if now[stage].ratio > was.ratio * (1 + MARGIN)
    ]


ADVICE: Final = """\
Look again with `python -m bench.instructions`, and at the tree without the change in another worktree. If it
is worth its price, `python -m bench.instructions --write` moves the budget; the commit message says why."""


def table(now: Mapping[str, Cost], budget: Mapping[str, Cost]) -> str:
    """For people."""
    lines = ["stage                                  instructions/event   ratio  budget  change"]
    for stage, cost in now.items():
        was = budget[stage].ratio if stage in budget else cost.ratio
        change = cost.ratio / was - 1
        lines.append(f"{stage:38} {cost.instructions:18,.0f} {cost.ratio:7.3f} {was:7.3f} {change:+7.1%}")
    return "\n".join(lines)


def load_budget() -> Budget:
    """What is committed."""
    return msgspec.json.decode(BUDGET.read_bytes(), type=Budget)


def _libraries() -> str:
    """For whoever wonders later why figures differ."""
    return ", ".join([f"{name} {metadata.version(name)}" for name in _LIBRARIES])


def main() -> int:
    """Count, show, compare."""
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description=__doc__)
    parser.add_argument("--write", action="store_true", help="make what is counted the budget")
    args = parser.parse_args()
    now = costs(count())
    budget = load_budget() if BUDGET.exists() else Budget("", "", {})
    print(table(now, budget.stages))
    if args.write:
        made = msgspec.json.encode(Budget(PLATFORM, _libraries(), now))
        BUDGET.write_bytes(msgspec.json.format(made, indent=2) + b"\n")
        return 0
    if budget.platform != PLATFORM:
        print(f"The budget is for {budget.platform}, this is {PLATFORM}: ratios differ by themselves.")
    problems = grown(now, budget.stages)
    for problem in problems:
        print(problem)
    if problems:
        print(ADVICE)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
