"""Room: when there is too little, and how long it takes until there is enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingestd.storage.disk import Disk
from ingestd.storage.room import Room
from tests.storage.samples import DATA, new_disk

MIB = 1024 * 1024


def test_there_is_too_little_below_the_reserve_and_enough_at_it() -> None:
    disk = new_disk()
    room = Room(disk, DATA, reserve_bytes=100 * MIB)
    told = []
    for free in (100, 99, 0, 100):
        disk.free_bytes = free * MIB
        room.look(0.0)
        told.append(room.problem)
    assert told == [
        "",
        "99 MiB of disk are free, and disk_reserve_bytes keeps 100 MiB back",
        "0 MiB of disk are free, and disk_reserve_bytes keeps 100 MiB back",
        "",
    ]


@pytest.mark.parametrize(("files", "is_short"), [(None, False), (16, False), (15, True), (0, True)])
def test_a_file_system_may_run_out_of_files_first(files: int | None, is_short: bool) -> None:
    disk = new_disk()
    disk.free_files = files
    room = Room(disk, DATA, reserve_bytes=0)
    room.look(0.0)
    assert bool(room.problem) is is_short


@pytest.mark.parametrize(
    ("free_mib", "seconds"), [([10, 20], 8), ([10, 99], 1), ([10, 11], 60), ([50, 10], 10), ([10, 10], 10)]
)
def test_the_wait_is_what_the_rate_of_the_last_second_says(free_mib: list[int], seconds: int) -> None:
    disk = new_disk()
    room = Room(disk, DATA, reserve_bytes=100 * MIB)
    for at, free in enumerate(free_mib):
        disk.free_bytes = free * MIB
        room.look(float(at))
    assert room.retry_after_s == seconds


def test_the_real_disk_tells_what_is_free(tmp_path: Path) -> None:
    free_bytes, free_files = Disk().free(tmp_path)
    assert free_bytes > 0
    assert free_files is None or free_files > 0
