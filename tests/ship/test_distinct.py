"""`ingestd ship --dedup`: each messageId is in the store once, whatever repeats it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from ingestd.storage.disk import Disk
from ingestd.storage.shipped import undelivered
from tests.support.distinct import (
    assert_once,
    marker_of,
    run_cat,
    run_cat_ids,
    seal,
    started,
)
from tests.support.server import run
from tests.support.shipping import (
    assert_delivered,
    files,
    message_ids,
    sealed,
    stock,
)


async def test_what_has_no_repeats_goes_byte_for_byte_under_the_same_name(
    tmp_path: Path, target: Path
) -> None:
    made = stock(tmp_path / "data", 5)
    assert await started(f"file://{target}", tmp_path / "data").run_once()
    assert_delivered(files(target), made)


@pytest.mark.parametrize("at_once", [1 << 30, 100], ids=["at once", "in parts"])
async def test_repeats_in_a_segment_across_segments_and_across_workers_are_left_out(
    at_once: int, tmp_path: Path, target: Path
) -> None:
    data = tmp_path / "data"
    first = seal(data, 1, ["a", "b"], ["a", "c"], ["d"], more="first" * 40)
    second = seal(data, 2, ["e"], ["b", "f"], ["f", "d"], worker=1, more="second")
    third = seal(data, 3, ["g"], more="third")
    before = sealed(data)
    shipper = started(f"file://{target}", data, at_once=at_once)
    assert await shipper.run_once()
    objects = files(target)
    assert_once(objects, "abcdefg")
    assert shipper.tally.events_dropped == 4
    assert [marker_of(data, name)["dropped"] for name in (first, second, third)] == [1, 3, 0]
    lines = b"".join(run_cat(target / str(marker_of(data, name)["object"])) for name in (first, second))
    # The first to be delivered is the one that stays.
    assert {one["messageId"]: one["x"][:6] for one in map(json.loads, lines.splitlines())} == {
        **dict.fromkeys("abcd", "firstf"),
        **dict.fromkeys("ef", "second"),
    }
    # What is here stays as it was.
    assert sealed(data) == before
    assert not list(data.glob("shipped/*/.*"))


async def test_what_is_written_anew_is_a_segment_that_verifies(tmp_path: Path, target: Path) -> None:
    data, random = tmp_path / "data", Random(1)
    ids = [str(number) for number in range(3000)]
    # More than one frame of it.
    name = seal(data, 1, *(random.choices(ids, k=400) for _ in range(20)), more="x" * 2000)
    wanted = Counter(run_cat_ids(data))
    assert await started(f"file://{target}", data).run_once()
    told = marker_of(data, name)
    assert told["dropped"] == 8000 - len(wanted)
    copy = tmp_path / "copy" / "segments" / "date=2026-01-01" / "hour=00" / f"{name}.ndjson.zst"
    copy.parent.mkdir(parents=True)
    shutil.copy(target / str(told["object"]), copy)
    done = run("verify", "copy", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (
        0,
        f"1 segments, 2 commits, {len(wanted)} events, 0 problems\n",
    )
    assert list(run_cat_ids(tmp_path / "copy")) == list(wanted)
    # Which commits it had is not known any more, and not made up.
    done = run("find", "--receipt", f"{name}:0", "copy", cwd=tmp_path)
    assert "without an index" in done.stderr


async def test_a_segment_of_repeats_only_needs_no_object_and_may_go(tmp_path: Path, target: Path) -> None:
    data = tmp_path / "data"
    seal(data, 1, ["a", "b"])
    name = seal(data, 2, ["b"], ["a", "a"])
    shipper = started(f"file://{target}", data)
    assert await shipper.run_once()
    assert len(files(target)) == 1
    told = marker_of(data, name)
    assert (told["dropped"], set(told)) == (3, {"dropped", "confirmed"})
    missing = undelivered(Disk(), data)
    assert [missing(path.stem) for path in data.glob("shipped/*/*.json")] == ["", ""]


async def test_lines_without_an_id_all_arrive(tmp_path: Path, target: Path) -> None:
    data = tmp_path / "data"
    seal(data, 1, ["", "a", ""], ["", "a"])
    assert await started(f"file://{target}", data).run_once()
    assert Counter(message_ids(files(target))) == {"": 3, "a": 1}
