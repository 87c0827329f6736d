"""docs/reading.md is true: its queries are run against a real store, in which another partition is broken."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import obstore
import pytest

from ingestd.storage.disk import Disk
from ingestd.storage.segment import open_directory
from tests.storage.samples import write
from tests.support.server import clean_environ
from tests.support.shipping import Shipping
from tests.support.tools import ROOT, clickhouse
from tests.support.weed import ACCESS_KEY, BUCKET, SECRET_KEY, Weed

PAGE: Final = (ROOT / "docs" / "reading.md").read_text()
PLACE: Final = f"{BUCKET}/reading"
HOURS: Final = (0, 1, 7)


def blocks(language: str) -> list[str]:
    """The blocks of the page in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


def line(name: str, number: int) -> bytes:
    """An event as it is stored."""
    return (
        b'{"messageId":"%d","event":"%s","properties":{"plan":"basic"},"timestamp":"2026-01-02T00:00:00Z",'
        b'"receivedAt":"2026-01-02T00:00:0%d.000Z","source":"shop"}\n' % (number, name.encode(), number % 10)
    )


@pytest.fixture(scope="module")
def shipped(weed: Weed, tmp_path_factory: pytest.TempPathFactory) -> Weed:
    """A store with three events in each of three hours; one was sent twice. Another date is broken."""
    folder = tmp_path_factory.mktemp("reading")
    disk = Disk()
    disk.make_directory(open_directory(folder / "data"))
    for hour in HOURS:
        lines = [line("signup", hour * 10), line("view", hour * 10 + 1), line("view", 999)]
        write(disk, folder / "data", [b"".join(lines)], f"20260102T{hour:02}0405.678Z-node-w0-000001").seal()
    shipping = Shipping(folder, f"s3://{PLACE}", "--once", environ=weed.environ())
    assert shipping.once() == 0, shipping.log
    broken = "date=2026-01-03/hour=00/20260103T000405.678Z-node-w0-000002-0.ndjson.zst"
    obstore.put(weed.store(PLACE), broken, b"this is not zstd")
    return weed


def run(program: str, weed: Weed, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of the page, with the store of the tests in its environment."""
    return subprocess.run(
        [sys.executable, "-c", program.replace("my-bucket/events", PLACE)],
        cwd=folder,
        env=clean_environ(weed.environ() | {"HOME": str(folder)}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def outputs(tool: str, weed: Weed, folder: Path) -> list[str]:
    """What the page's programs with this tool print."""
    found = []
    for program in [block for block in blocks("python") if f"import {tool}\n" in block]:
        done = run(program, weed, folder)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
    return found


def test_polars_reads_the_partitions_that_are_asked_for(shipped: Weed, tmp_path: Path) -> None:
    first, second = outputs("polars", shipped, tmp_path)
    assert re.findall(r"│ (\w+) +┆ (\d+) +│", first) == [("signup", "3"), ("view", "6")]
    # Of hours 0 and 1; one event is in both.
    assert second == "5 different events\n"


def test_duckdb_reads_the_partitions_that_are_asked_for(shipped: Weed, tmp_path: Path) -> None:
    [output] = outputs("duckdb", shipped, tmp_path)
    rows = re.findall(r"│ (\d\d) +│ (\w+) +│ +(\d+) │", output)
    assert rows == [
        (hour, event, count) for hour in ("00", "01") for event, count in (("signup", "1"), ("view", "2"))
    ]
    # Nine lines, of which three tell of one event.
    assert re.findall(r"│ +(\d+) │ +(\d+) │", output) == [("7", "7")]


def test_clickhouse_reads_the_partitions_that_are_asked_for(shipped: Weed, tmp_path: Path) -> None:
    [query] = blocks("sql")
    query = query.replace(
        "http://127.0.0.1:8333/my-bucket/events", f"http://127.0.0.1:{shipped.port}/{PLACE}"
    )
    query = query.replace("'KEY', 'SECRET'", f"'{ACCESS_KEY}', '{SECRET_KEY}'")
    answer = clickhouse(query, "CSV", tmp_path)
    counts = (("signup", 1), ("view", 2))
    assert answer.splitlines() == [f'{hour},"{event}",{count}' for hour in HOURS for event, count in counts]


@pytest.mark.parametrize("tool", ["polars", "duckdb"])
def test_a_query_that_read_more_than_its_partition_would_have_failed(
    tool: str, shipped: Weed, tmp_path: Path
) -> None:
    program = next(block for block in blocks("python") if f"import {tool}\n" in block)
    everything = program.replace("date=2026-01-02", "date=*").replace(
        "WHERE date = '2026-01-02' AND", "WHERE"
    )
    assert everything != program
    assert run(everything, shipped, tmp_path).returncode != 0


def test_every_program_of_the_page_is_run() -> None:
    tools = [
        re.findall(r"^(?:import|from) (polars|duckdb|pyspark)\b", block, re.M) for block in blocks("python")
    ]
    assert sorted(tools) == [["duckdb"], ["polars"], ["polars"], ["pyspark"], ["pyspark"]]
    assert len(blocks("sql")) == 1
    assert not blocks("sh")
    assert "AWS_SECRET_ACCESS_KEY" not in os.environ
