"""The hot path costs no more instructions than its budget says."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench import hot_path, instructions
from bench.instructions import ADVICE, PLATFORM, Cost, costs, grown, load_budget
from tests.support.server import run
from tests.support.tools import tool


@pytest.mark.timeout(900)
def test_no_stage_of_the_hot_path_has_grown() -> None:
    budget = load_budget()
    if budget.platform != PLATFORM:
        reason = f"the budget is for {budget.platform}, this is {PLATFORM}"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}: `python -m bench.instructions --write`")
        pytest.skip(reason)
    problems = grown(costs(instructions.count(tool("valgrind"))), budget.stages)
    assert not problems, "\n".join([*problems, ADVICE])


def test_what_is_counted_is_the_real_path(tmp_path: Path) -> None:
    """All the events of the workloads are stored, and can be verified."""
    stages = hot_path.run(1, tmp_path)
    assert {f"{workload.name}: read" for workload in hot_path.WORKLOADS} <= set(stages)
    told = json.loads(run("verify", "--json", tmp_path, cwd=tmp_path).stdout)
    assert told["ok"]
    assert told["events"] == sum(workload.events for workload in hot_path.WORKLOADS)


def test_the_budget_has_every_stage() -> None:
    assert load_budget().stages.keys() == instructions.REFERENCES.keys()


@dataclass
class _Counts:
    """Plausible ones, of a machine with a slower or faster interpreter."""

    python: float = 5_000.0
    kernels: float = 15_000.0

    def of(self, **more: float) -> dict[str, float]:
        stages = {
            stage: (self.python if reference == hot_path.PYTHON else self.kernels) * 3
            for stage, reference in instructions.REFERENCES.items()
        }
        return {hot_path.PYTHON: self.python, hot_path.KERNELS: self.kernels, **stages, **more}


def test_another_interpreter_is_no_growth() -> None:
    assert grown(costs(_Counts(python=9_000.0).of()), costs(_Counts().of())) == []


def test_what_grew_is_named_with_how_much_and_what_to_do() -> None:
    budget = costs(_Counts().of())
    assert grown(costs(_Counts().of(**{"1 event: read": 16_400.0})), budget) == []
    [problem] = grown(costs(_Counts().of(**{"1 event: read": 16_800.0})), budget)
    assert problem == (
        "1 event: read: +12% (10% is let pass). It takes 3.36 times what a plain Python loop takes (16,800 "
        "instructions an event), the budget is 3 times (15,000)."
    )
    assert "--write" in ADVICE


def test_getting_lighter_is_no_problem_and_is_shown() -> None:
    budget: dict[str, Cost] = costs(_Counts().of())
    now = costs(_Counts().of(**{"1,000 events: read": 30_000.0}))
    assert grown(now, budget) == []
    [row] = [line for line in instructions.table(now, budget).splitlines() if "1,000 events: read" in line]
    assert row.endswith("-33.3%")
