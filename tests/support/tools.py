"""The system's commands that tests use: skipped where one is missing, but never in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def tool(name: str, extra: str = "") -> str:
    """The path of a command; where it is missing the test is skipped, and fails if CI is set.

    With `extra` it is one that this extra puts beside Python.
    """
    beside = f"{Path(sys.executable).parent}:" if extra else ""
    path = shutil.which(name, path=beside + os.environ.get("PATH", os.defpath))
    if path is not None:
        return path
    reason = f"the command '{name}' is not installed"
    if extra:
        reason += f": pip install -e '.[{extra}]'"
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; .ci/run installs what tests need")
    pytest.skip(reason)


def faked_clock(clock: Path) -> dict[str, str]:
    """The environment of a process whose clock, but for the monotonic one, is off as the file says: +10h."""
    faked = subprocess.run(
        [tool("faketime"), "now", "sh", "-c", "echo $LD_PRELOAD"], capture_output=True, text=True, check=True
    )
    return {
        "LD_PRELOAD": faked.stdout.strip(),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def copy_tree(target: Path) -> None:
    """Make what a clone of the working tree would hold: no virtualenv, no data, nothing ignored."""
    listed = subprocess.run(
        [tool("git"), "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def clickhouse(query: str, output_format: str, cwd: Path) -> str:
    """A query's answer, in a process of its own: chdb takes over the signals of the one it is in."""
    program = "import chdb, sys; print(chdb.query(sys.argv[1], sys.argv[2]), end='')"
    done = subprocess.run(
        [sys.executable, "-c", program, query, output_format],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
