"""The model test of storage: random actions from a seed, against promises kept in memory.

`python -m tests.storage.model --seeds 10000 --first 0` runs seed after seed. Of one that fails it
prints the fewest actions that still fail, to be kept as a test in test_model.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from tests.storage.machine import CALLS, MEANWHILE, NAMES, Action, Machine
from tests.storage.processes import Shape

_WEIGHTS = {
    "post": 30, "commit": 22, "seal": 14, "wait": 6,
    "fail": 8, "full": 1, "short": 3, "mend": 4, "at": 12, "sweep": 4,
    "cut": 5, "cut_start": 3, "crash": 2, "kill": 2, "kill_all": 1, "stop": 1,
}  # fmt: skip


@dataclass
class Tally:
    """What was done, over all seeds."""

    done: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)

    def add(self, machine: Machine) -> None:
        self.done.update(machine.counts)
        self.failed.update(machine.failed)


def plan(seed: int) -> tuple[Shape, list[Action]]:
    """The run of a seed."""
    rng = Random(seed)
    shape = Shape(
        ack="fsync" if rng.random() < 0.7 else "write",
        workers=rng.choice((1, 1, 2)),
        segment_bytes=rng.choice((400, 1500, 1500, 4000, 12_000)),
        commit_bytes=rng.choice((1500, 100_000)),
        commits_max=rng.choice((3, 65_536)),
        packed_bytes=rng.choice((700, 4000, 1 << 20)),
        retain_bytes=rng.choice((0, 0, 0, 3000)),
        retain_age_s=rng.choice((0, 0, 0, 90)),
        has_links=rng.random() < 0.85,
        has_dsync=rng.random() < 0.5,
        has_clock=rng.random() < 0.9,
    )
    weights = dict(_WEIGHTS)
    if rng.random() < 0.3:
        weights["rot"] = 3
    if rng.random() < 0.2:
        # Many commits and few faults, so that what takes long to build up is built up.
        weights.update(fail=1, full=0, cut=2, crash=1, kill=1)
    words = rng.choices(list(weights), list(weights.values()), k=rng.randint(10, 90))
    return shape, [_action(word, rng) for word in words]


def _action(word: str, rng: Random) -> Action:
    seed = rng.randrange(1 << 20)
    nth = rng.choice((1, 1, 2, 3, 5, 8, 13, rng.randint(1, 40)))
    match word:
        case "post":
            size = rng.choice((5, 5, 40, 200, 600, rng.randint(1, 5000)))
            count, is_random = rng.choice((1, 1, 1, 2, 5)), int(rng.random() < 0.4)
            return word, rng.randrange(3), count, size, is_random, rng.choice((0, 0, 0, 1, 3))
        case "commit" | "seal" | "kill":
            return word, rng.randrange(2)
        case "wait":
            return word, rng.choice((0, 50, 1100, 5100, 61_000))
        case "fail":
            call = rng.choice((0, 1, *(rng.randrange(len(CALLS)) for _ in range(3))))
            name = rng.choice((0, 0, rng.randrange(len(NAMES))))
            once, lies = int(rng.random() < 0.7), int(rng.random() < 0.5)
            return word, call, name, nth, rng.randrange(2), once, lies, seed
        case "short":
            return word, nth, int(rng.random() < 0.7), seed
        case "at":
            return word, nth, rng.randrange(len(MEANWHILE)), seed
        case "cut" | "cut_start":
            return word, nth - 1, int(rng.random() < 0.6), seed
        case "crash":
            return word, seed
        case "stop":
            return word, rng.randrange(2), seed
        case "rot":
            return word, rng.randrange(8), rng.randrange(3), seed
        case "sweep":
            return word, rng.choice((5, 15, 50)), seed
    return (word,)


def run(shape: Shape, actions: list[Action], tally: Tally | None = None) -> None:
    """Raises Failure, or what else is wrong."""
    machine = Machine(shape)
    with machine.patched():
        try:
            machine.run(actions)
        finally:
            if tally is not None:
                tally.add(machine)


def failure(shape: Shape, actions: list[Action], tally: Tally | None = None) -> Exception | None:
    """What comes of it: nothing, one hopes."""
    try:
        run(shape, actions, tally)
    except Exception as e:
        return e
    return None


def shrink(shape: Shape, actions: list[Action]) -> list[Action]:
    """The fewest actions that still fail: larger pieces are left out first, then single ones."""
    size = len(actions)
    while size:
        before, at = len(actions), 0
        while at < len(actions):
            fewer = actions[:at] + actions[at + size :]
            if failure(shape, fewer) is not None:
                actions = fewer
            else:
                at += size
        if size > 1:
            size //= 2
        elif len(actions) == before:
            size = 0
    return actions


def report(seed: int, shape: Shape, actions: list[Action]) -> str:
    """What to keep of a seed that fails."""
    fewest = shrink(shape, actions)
    return (
        f"seed {seed}: {failure(shape, fewest)!r}\n{shape}\n[\n"
        + "".join(f"    {action},\n" for action in fewest)
        + "]"
    )


def failures(seeds: range, tally: Tally) -> Iterator[str]:
    """A report for each seed that fails."""
    for seed in seeds:
        shape, actions = plan(seed)
        if failure(shape, actions, tally) is not None:
            yield report(seed, shape, actions)


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.storage.model", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--first", type=int, help="the first of them (default: another one each time)")
    arguments = parser.parse_args()
    first = arguments.first if arguments.first is not None else time.time_ns() // 1_000_000 % 10**9
    print(f"seeds {first} to {first + arguments.seeds - 1}", flush=True)
    tally = Tally()
    count = 0
    for text in failures(range(first, first + arguments.seeds), tally):
        print(text, flush=True)
        count += 1
    print(f"{count} of {arguments.seeds} seeds fail")
    print("done:  ", ", ".join(f"{name} {n}" for name, n in sorted(tally.done.items())))
    print("failed:", ", ".join(f"{name} {n}" for name, n in sorted(tally.failed.items())))
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
