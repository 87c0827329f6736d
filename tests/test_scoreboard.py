"""The memory that all processes share: regions, tables, and rows that survive their writers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from ingestd.service import scoreboard
from ingestd.service.scoreboard import FLUSHER_BEAT_MS, LOOP_BEAT_MS, WORKERS, SharedMemory, Table
from tests.support.server import Server, wait_until

FIELDS: Final = ("first", "second", "third")
BEATS: Final = (LOOP_BEAT_MS, FLUSHER_BEAT_MS)

_WRITER: Final = """
import sys
from ingestd.service.scoreboard import SharedMemory, Table
fd, number, rounds = map(int, sys.argv[1:])
row = Table(SharedMemory(fd).region("t", 0)).row(number)
for _ in range(rounds):
    row["first"] += 1
    row["third"] -= number
"""


def table(memory: SharedMemory, rows: int = 2) -> Table:
    return Table.lay_out(memory.region("t", Table.bytes_for(FIELDS, rows)), FIELDS)


@pytest.fixture
def memory() -> SharedMemory:
    return SharedMemory.make({"t": Table.bytes_for(FIELDS, 8), "other": 1000})


def test_it_begins_as_zeros_and_regions_do_not_overlap(memory: SharedMemory) -> None:
    made, other = table(memory, 8), memory.region("other", 1000)
    assert bytes(other) == bytes(len(other))
    for number in range(8):
        for name in FIELDS:
            assert made.row(number)[name] == 0
            made.row(number)[name] = -(1 << 63) + number
    assert bytes(other) == bytes(len(other))
    other[:] = b"\xff" * len(other)
    assert [made.row(n)["third"] for n in range(8)] == [-(1 << 63) + n for n in range(8)]


def test_processes_write_at_once_each_to_its_row_and_one_that_comes_later_goes_on(
    memory: SharedMemory,
) -> None:
    made = table(memory)
    for _ in range(2):
        arguments = [[str(memory.fd), str(number), "20000"] for number in range(4)]
        writers = [
            subprocess.Popen([sys.executable, "-c", _WRITER, *given], pass_fds=[memory.fd])
            for given in arguments
        ]
        assert [writer.wait(60) for writer in writers] == [0] * 4
    for number in range(4):
        row = made.row(number)
        assert (row["first"], row["second"], row["third"]) == (40_000, 0, -40_000 * number)


def test_a_newer_worker_finds_the_columns_of_an_older_supervisor_by_name(memory: SharedMemory) -> None:
    region = memory.region("t", 0)
    Table.lay_out(region, ("third", "gone"))
    row = Table(region).row(1)
    row["third"], row["first"] = 3, 1
    assert (row["third"], row["first"], row["gone"]) == (3, 0, 0)


def test_a_region_that_the_memory_lacks_is_the_process_s_own(memory: SharedMemory) -> None:
    for own in (memory.region("new", 64), memory.region("other", 5000)):
        own[0] = 1
        assert Table(memoryview(bytearray(64))).row(0)["first"] == 0
    assert bytes(memory.region("other", 0)) == bytes(1024)


def test_nobody_can_cut_it(memory: SharedMemory) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(memory.fd, 0)


def test_both_threads_of_each_worker_beat(tmp_path: Path) -> None:
    with Server(tmp_path, workers=2) as server:
        fds = [fd for fd in Path(f"/proc/{server.pid}/fd").iterdir() if "memfd:ingestd" in os.readlink(fd)]
        workers = Table(SharedMemory(os.open(fds[0], os.O_RDWR)).region(WORKERS, 0))
        for number in range(2):
            row = workers.row(number)
            before = [row[name] for name in BEATS]
            assert all(0 < beat <= scoreboard.monotonic_ms() for beat in before)
            wait_until(
                lambda row=row, before=before: all(  # type: ignore[misc]
                    row[name] > beat for name, beat in zip(BEATS, before, strict=True)
                ),
                "both beats move",
            )
