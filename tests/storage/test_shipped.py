"""Markers of what is delivered, and that retention waits for every destination."""

from __future__ import annotations

import pytest

from ingestd.errors import StorageError
from ingestd.storage.retention import expired
from ingestd.storage.segment import invalid_directory
from ingestd.storage.shipped import Markers, mark
from tests.storage.samples import DATA, put
from tests.storage.test_retention import NOW, PATHS, stocked
from tests.support.disk import FaultyDisk

MARKS = [mark(path, 100, NOW - 3600 * age) for age, path in zip((4, 3, 2, 1, 0), PATHS, strict=True)]


def begun(disk: FaultyDisk, destination: str = "one") -> Markers:
    """Markers of a destination, whose shipper has been started."""
    markers = Markers(disk, DATA, destination)
    markers.begin(f"s3://{destination}")
    return markers


def test_where_nothing_is_shipped_retention_waits_for_nobody() -> None:
    assert expired(stocked(), DATA, 1800, 0, NOW) == PATHS[:4]


def test_only_what_is_delivered_goes_by_age_and_the_rest_is_told_of() -> None:
    disk = stocked()
    markers = begun(disk)
    kept: list[tuple[str, str]] = []
    assert expired(disk, DATA, 1800, 0, NOW) == []
    markers.put(MARKS[1], b"{}")
    markers.put(MARKS[4], b"{}")
    gone = expired(disk, DATA, 1800, 0, NOW, lambda path, to: kept.append((path.name[:8], to)))
    assert gone == [PATHS[1]]
    assert kept == [("20260101", "one"), ("20260103", "one"), ("20260104", "one")]


def test_by_size_what_is_delivered_goes_in_place_of_older_ones_that_are_not() -> None:
    disk = stocked()
    markers = begun(disk)
    for one in MARKS[2:]:
        markers.put(one, b"{}")
    assert expired(disk, DATA, 0, 350, NOW) == PATHS[2:4]


def test_every_destination_must_have_it() -> None:
    disk = stocked()
    one, two = begun(disk, "one"), begun(disk, "two")
    one.put(MARKS[0], b"{}")
    one.put(MARKS[1], b"{}")
    two.put(MARKS[1], b"{}")
    assert expired(disk, DATA, 1800, 0, NOW) == [PATHS[1]]


def test_a_destination_and_its_markers_outlive_a_power_cut() -> None:
    disk = stocked()
    begun(disk).put(MARKS[0], b"{}")
    after = disk.crash()
    assert expired(after, DATA, 1800, 0, NOW) == [PATHS[0]]
    assert Markers(after, DATA, "one").begin("s3://one") == {MARKS[0]}


def test_a_start_takes_up_what_is_delivered_and_clears_what_a_crash_has_left() -> None:
    disk = stocked()
    begun(disk).put(MARKS[0], b"{}")
    put(disk, DATA / "shipped" / "one" / f".{MARKS[1]}.json.1.new", b"{")
    markers = Markers(disk, DATA, "one")
    assert markers.begin("s3://one") == {MARKS[0]}
    assert [markers.has(one) for one in MARKS] == [True, False, False, False, False]
    markers.remove(MARKS[0])
    assert not markers.has(MARKS[0])
    assert [path.name for path in disk.list(DATA / "shipped", "*", deep=True)] == ["destination"]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        bytes(4096) + b"\n",
        b"\xff\xfe\n",
        b"x-1-2\n",
        b"--\n",
        MARKS[0][:17].encode() + b"-" + b"n" * 300 + b"-w0-1-2-3\n",
        MARKS[0].encode().replace(b"-w", b"/-w", 1) + b"\n",
        MARKS[0].encode().replace(b"-w", b"\0-w", 1) + b"\n",
    ],
)
def test_what_is_no_mark_of_what_is_under_way_is_passed_over(damage: bytes) -> None:
    disk = stocked()
    markers = begun(disk)
    markers.put_underway(MARKS[1:3])
    path = DATA / "shipped" / "one" / "underway"
    whole = disk.read(path)
    disk.unlink(path)
    put(disk, path, damage + whole)
    assert markers.underway() == MARKS[1:3]
    assert [markers.waits(one) for one in markers.underway()] == [True, True]


def test_what_cannot_be_known_is_not_deleted() -> None:
    disk = stocked()
    begun(disk).put(MARKS[0], b"{}")
    disk.fail("list")
    with pytest.raises(StorageError):
        expired(disk, DATA, 1800, 0, NOW)


def test_a_name_that_is_given_once_more_does_not_pass_for_delivered() -> None:
    # As where a machine boots into the same time again, after retention has deleted the first of that name.
    disk = stocked()
    begun(disk).put(MARKS[0], b"{}")
    assert expired(disk, DATA, 1800, 0, NOW) == PATHS[:1]
    put(disk, PATHS[0], bytes(101))
    disk.times[PATHS[0]] = NOW - 3600 * 4
    assert expired(disk, DATA, 1800, 0, NOW) == []
    put(disk, PATHS[0], bytes(100))
    disk.times[PATHS[0]] = NOW - 3600 * 5
    assert expired(disk, DATA, 1800, 0, NOW) == []


def test_invalid_events_are_not_shipped_and_wait_for_nobody() -> None:
    disk = stocked()
    begun(disk)
    aside = invalid_directory(DATA) / PATHS[0].relative_to(DATA)
    put(disk, aside, bytes(100))
    disk.times[aside] = NOW - 3600
    assert expired(disk, DATA, 1800, 0, NOW) == [aside]
