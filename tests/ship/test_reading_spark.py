"""docs/reading.md is true of Spark: its programs are run on segments that were shipped to a folder."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from ingestd.storage.disk import Disk
from ingestd.storage.segment import open_directory
from tests.ship.test_reading import HOURS, blocks, line
from tests.storage.samples import write
from tests.support.server import clean_environ
from tests.support.shipping import Shipping, files
from tests.support.tools import tool

_SPARK_S: Final = 100.0
_BROKEN: Final = "date=2026-01-03/hour=00/20260103T000405.678Z-node-w0-000002-0.ndjson.zst"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three events in each of three hours, one of them sent twice. Another date is broken."""
    tool("java")
    if importlib.util.find_spec("pyspark") is None:
        reason = "pyspark is not installed: pip install -e '.[dev-spark]'"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    folder = tmp_path_factory.mktemp("spark")
    target = folder / "target"
    target.mkdir()
    disk = Disk()
    disk.make_directory(open_directory(folder / "data"))
    for hour in HOURS:
        # A frame each, as commits are before a segment is packed.
        lines = [line("signup", hour * 10), line("view", hour * 10 + 1), line("view", 999)]
        write(disk, folder / "data", lines, f"20260102T{hour:02}0405.678Z-node-w0-000001").seal()
    shipping = Shipping(folder, f"file://{target}", "--once")
    assert shipping.once() == 0, shipping.log
    assert len(files(target)) == len(HOURS)
    (target / _BROKEN).parent.mkdir(parents=True)
    (target / _BROKEN).write_bytes(b"this is not zstd")
    return target


def run(program: str, shipped: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of the page, with one core and no web page of Spark's."""
    changed = program.replace("/srv/events", str(shipped))
    assert changed != program
    # A machine need not know its own name; and executors must have the Python of the tests.
    environ = {
        "PYSPARK_SUBMIT_ARGS": "--master local[1] --conf spark.ui.enabled=false pyspark-shell",
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "HOME": str(folder),
    }
    return subprocess.run(
        [sys.executable, "-c", changed],
        cwd=folder,
        env=clean_environ(environ),
        capture_output=True,
        text=True,
        timeout=_SPARK_S,
        check=False,
    )


def programs() -> tuple[str, str]:
    """The one for which Spark decompresses, and the one in which Python does."""
    first, second = [block for block in blocks("python") if "from pyspark." in block]
    return first, second


def test_spark_reads_the_partitions_that_are_asked_for(shipped: Path, tmp_path: Path) -> None:
    done = run(programs()[0], shipped, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = (("signup", "1"), ("view", "2"))
    assert re.findall(r"\| +(\d+)\| *(\w+)\| +(\d+)\|", done.stdout) == [
        (str(hour), event, count) for hour in (0, 1) for event, count in counts
    ]
    # Nine lines, of which three tell of one event.
    assert re.findall(r"^\| +(\d+)\| +(\d+)\|$", done.stdout, re.M) == [("7", "7")]


def test_spark_reads_what_python_decompresses(shipped: Path, tmp_path: Path) -> None:
    done = run(programs()[1], shipped, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.findall(r"\| *(\w+)\| +(\d+)\|", done.stdout) == [("signup", "2"), ("view", "4")]


def test_spark_would_have_failed_on_more_than_its_partition(shipped: Path, tmp_path: Path) -> None:
    program = programs()[0]
    everything = program.replace(""".where("date = '2026-01-02'")""", "")
    assert everything != program
    done = run(everything, shipped, tmp_path)
    assert done.returncode != 0
    assert "date=2026-01-03" in done.stderr
