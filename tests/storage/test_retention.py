"""Retention: which sealed segments go, and that nothing else ever does."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingestd.storage.disk import Disk
from ingestd.storage.retention import delete, expired
from tests.storage.samples import DATA, new_disk, put
from tests.support.disk import FaultyDisk

NAMES = [f"202601{day:02}T030405.678Z-node-w0-000001" for day in range(1, 6)]
PATHS = [
    DATA / "segments" / f"date=2026-01-{day:02}" / "hour=03" / f"{name}.ndjson.zst"
    for day, name in enumerate(NAMES, 1)
]
NOW = 1_000_000.0


def stocked() -> FaultyDisk:
    """Five sealed segments of 100 bytes, an hour apart, the youngest just written, and other files."""
    disk = new_disk()
    for age, path in enumerate(reversed(PATHS)):
        put(disk, path, bytes(100))
        disk.times[path] = NOW - 3600 * age
    for other in ("open/x.ndjson.zst.open", "open/x.torn", "quarantine/x.ndjson.zst.open", "keys.toml"):
        put(disk, DATA / other, bytes(100))
    return disk


@pytest.mark.parametrize(
    ("age_s", "bytes_max", "count"),
    [
        (0, 0, 0),
        (3600 * 10, 0, 0),
        (3600 * 2, 0, 2),
        (1800, 0, 4),
        (0, 500, 0),
        (0, 499, 1),
        (0, 250, 3),
        (0, 1, 5),
        (3600 * 3, 400, 1),
        (3600 * 3, 200, 3),
    ],
)
def test_the_oldest_go_until_both_limits_hold(age_s: float, bytes_max: int, count: int) -> None:
    assert expired(stocked(), DATA, age_s, bytes_max, NOW) == PATHS[:count]


def test_deleting_takes_the_directories_that_are_empty_then_and_no_others() -> None:
    disk = stocked()
    sibling = PATHS[0].parent.parent / "hour=04" / "20260101T040405.678Z-node-w0-000002.ndjson.zst"
    put(disk, sibling, b"x")
    for path in PATHS[:2]:
        delete(disk, path)
    assert not disk.exists(PATHS[0].parent)
    assert disk.exists(sibling)
    assert not disk.exists(PATHS[1].parent.parent)
    assert all(disk.exists(path) for path in PATHS[2:])


def test_what_was_deleted_does_not_come_back_after_a_power_cut() -> None:
    # Its name may have been given to another segment since.
    disk = stocked()
    for path in PATHS[:2]:
        delete(disk, path)
        assert not disk.crash().exists(path)
    assert all(disk.crash().exists(path) for path in PATHS[2:])


def test_what_another_worker_has_deleted_already_is_no_error() -> None:
    disk = stocked()
    delete(disk, PATHS[0])
    delete(disk, PATHS[0])
    assert not disk.exists(PATHS[0].parent)


def test_on_the_real_disk(tmp_path: Path) -> None:
    disk = Disk()
    paths = [tmp_path / path.relative_to(DATA) for path in PATHS]
    for path in paths:
        disk.make_directory(path.parent)
        path.write_bytes(bytes(100))
    for path in expired(disk, tmp_path, 0, 300, NOW):
        delete(disk, path)
    assert [path.exists() for path in paths] == [False, False, True, True, True]
    assert sorted(p.name for p in (tmp_path / "segments").iterdir()) == [
        "date=2026-01-03", "date=2026-01-04", "date=2026-01-05",
    ]  # fmt: skip
    assert disk.size_and_time(paths[0]) is None
