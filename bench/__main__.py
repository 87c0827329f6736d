"""`python -m bench run` measures; `python -m bench report` makes docs/benchmarks.md and its plots of it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bench import contenders, machine, report, results
from bench.contenders import FSYNC, ROOT
from bench.processes import LOAD_CORE
from bench.results import FORMAT, Results
from bench.run import LONG, QUICK, Plan, Run
from bench.view import View

REAL = "INGESTD_BENCH_EVENTS"


def main(arguments: list[str]) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure, and write a file of results")
    run.add_argument("out", type=Path, help="the file, JSON")
    run.add_argument("--quick", action="store_true", help="about a minute: ingestd and its floors")
    run.add_argument("--rounds", type=int)
    run.add_argument("--seconds", type=float, help="of each load")
    run.add_argument(
        "--load", action="append", metavar="NAME", help="this one, as 1000-nested-gzip; may be repeated"
    )
    run.add_argument("--timed-seconds", type=float, help="of each rate; 0: no latencies")
    run.add_argument("--only", action="append", metavar="CONTENDER", help="this one; may be repeated")
    run.add_argument("--all", action="store_true", help="with --quick: all contenders")
    run.add_argument("--folder", type=Path, help="where contenders write; on the disk that is meant")
    run.add_argument(
        "--events", type=Path, default=os.environ.get(REAL), help=f"real events, one a line; or ${REAL}"
    )
    run.add_argument("--against", type=Path, metavar="CHECKOUT", help="another ingestd takes part as well")
    run.add_argument("--fluent-bit", type=Path, metavar="BINARY")
    run.add_argument("--vector", type=Path, metavar="BINARY")
    shown = commands.add_parser("show", help="print the page that would be made of a file of results")
    shown.add_argument("results", type=Path)
    made = commands.add_parser("report", help="make docs/benchmarks.md and the plots of it")
    made.add_argument(
        "results", type=Path, nargs="?", default=report.RESULTS, help="becomes bench/results.json"
    )
    made.add_argument("--check", action="store_true", help="only compare the page; 1 if it differs")
    args = parser.parse_args(arguments)
    if args.command == "show":
        print(report.page(View(results.load(args.results))))
        return 0
    return _run(args) if args.command == "run" else report.write(args.results, check=args.check)


def _plan(args: argparse.Namespace) -> Plan:
    plan = QUICK if args.quick else LONG
    only = frozenset(args.only) if args.only else None if args.all else plan.only
    timed = plan.timed_seconds if args.timed_seconds is None else args.timed_seconds
    by_name = {load.name: load for load in LONG.loads}
    return replace(
        plan,
        loads=tuple(by_name[name] for name in args.load) if args.load else plan.loads,
        rounds=args.rounds or plan.rounds,
        seconds=args.seconds or plan.seconds,
        timed_seconds=timed,
        rates=plan.rates if timed else (),
        only=only,
    )


def _run(args: argparse.Namespace) -> int:
    for command in ("wrk", "taskset"):
        if shutil.which(command) is None:
            print(f"'{command}' is missing: apt-get install wrk util-linux", file=sys.stderr)
            return 1
    if args.events is not None and not Path(args.events).is_file():
        print(f"there is no file {args.events}", file=sys.stderr)
        return 1
    # What measures stays off the core of what is measured.
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    those = contenders.every(args.fluent_bit, args.vector)
    plan = _plan(args)
    names = {one.name for one in those} | {contenders.KERNELS}
    if plan.only is not None and plan.only - names:
        print(f"unknown: {', '.join(plan.only - names)}; there are {', '.join(names)}", file=sys.stderr)
        return 1
    if args.against is not None:
        other = f"{FSYNC}, the other checkout"
        those.append(contenders.ingestd(other, "fsync", those[1].kept, checkout=args.against.resolve()))
        plan = plan if plan.only is None else replace(plan, only=plan.only | {other})
    with tempfile.TemporaryDirectory(prefix="ingestd-bench-", dir=args.folder) as folder:
        out = Results(
            FORMAT, datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), machine.commit(), _command(args),
            plan.rounds, machine.look(Path(folder)), machine.tools(),
        )  # fmt: skip
        run = Run(plan, those, Path(folder), out, say, Path(args.events) if args.events else None)
        for number in range(plan.rounds):
            say(f"round {number + 1} of {plan.rounds}")
            run.round(number)
            # What an interrupted run has measured is kept.
            results.save(out, args.out)
    return 0


def _command(args: argparse.Namespace) -> str:
    """What was typed, but for places of this machine."""
    given = ["python -m bench run results.json"]
    for name, value in vars(args).items():
        if name in ("command", "out", "folder") or value in (None, False):
            continue
        flag = f"--{name.replace('_', '-')}"
        for one in value if isinstance(value, list) else [value]:
            shown = one.name if isinstance(one, Path) else f"'{one}'" if " " in str(one) else str(one)
            given.append(flag if one is True else f"{flag} {shown}")
    return " ".join(given)


def say(line: str) -> None:
    """Progress, for people."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main(sys.argv[1:]))
