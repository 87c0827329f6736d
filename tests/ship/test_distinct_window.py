"""`ingestd ship --dedup`: what is remembered, for how long, after a start, and what is said of it."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ingestd.config import Settings
from ingestd.ship import process
from ingestd.ship.destination import destination
from ingestd.ship.window import rebuild
from ingestd.storage.disk import Disk
from ingestd.storage.repeats import Seen
from ingestd.storage.segment import open_directory
from tests.storage.samples import Sample
from tests.support.distinct import (
    DAY_S,
    assert_once,
    name_of,
    run_cat_ids,
    seal,
    started,
)
from tests.support.shipping import (
    Shipping,
    ask,
    files,
    message_ids,
    sealed,
)
from tests.support.weed import Weed


async def test_a_restart_remembers_what_was_delivered_to_this_place(tmp_path: Path, target: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    other.mkdir()
    seal(data, 1, ["a"])
    seal(data, 2, ["b", "a"])
    assert await started(f"file://{target}", data).run_once()
    seal(data, 3, ["a", "b", "c"], worker=1)
    again = started(f"file://{target}", data)
    assert again.seen is not None
    assert len(again.seen) == 2
    assert await again.run_once()
    assert_once(files(target), "abc")
    # Elsewhere nothing is delivered.
    assert await started(f"file://{other}", data).run_once()
    assert_once(files(other), "abc")


async def test_a_restart_passes_over_what_is_damaged_or_gone(tmp_path: Path, target: Path) -> None:
    data = tmp_path / "data"
    for number in range(3):
        seal(data, number, [f"a{number}"], [f"b{number}"])
    assert await started(f"file://{target}", data).run_once()
    gone, damaged, _ = sorted(data.rglob("*.ndjson.zst"))
    gone.unlink()
    size, at = damaged.stat().st_size, damaged.stat().st_mtime_ns
    damaged.write_bytes(b"x" * size)
    os.utime(damaged, ns=(at, at))
    again = started(f"file://{target}", data)
    seal(data, 7, ["a2", "b2", "new"])
    assert await again.run_once()
    assert_once(files(target), ["a0", "b0", "a1", "b1", "a2", "b2", "new"])


@pytest.mark.parametrize("which", range(3))
async def test_a_restart_remembers_all_though_one_is_dated_in_the_future(
    which: int, tmp_path: Path, target: Path
) -> None:
    data, future_s = tmp_path / "data", time.time() + 400 * DAY_S
    for number in range(3):
        disk = Disk()
        disk.make_directory(open_directory(data))
        segment = Sample(disk, data, name_of(number), zstd_level=3)
        at_ms = int(1000 * (future_s if number == which else time.time()))
        segment.commit(b'{"messageId":"%d"}\n' % number, [str(number)], at_ms, at_ms, sync=True)
        path = segment.seal()
        if number == which:
            os.utime(path, (future_s, future_s))
    shipper = started(f"file://{target}", data)
    assert await shipper.run_once()
    again = started(f"file://{target}", data)
    assert again.seen is not None
    assert len(again.seen) == 3
    seal(data, 3, ["0", "1", "2", "3"])
    assert await again.run_once()
    assert_once(files(target), "0123")


async def test_too_many_ids_to_remember_lose_nothing(tmp_path: Path, target: Path) -> None:
    data, random = tmp_path / "data", Random(4)
    ids = [str(number) for number in range(200)]
    for number in range(30):
        seal(data, number, random.choices(ids, k=20), random.choices(ids, k=20))
    sent = set(run_cat_ids(data))
    half = started(f"file://{target}", data, ids_max=16)
    await half.look()
    await half._round(9)
    for number in range(30, 40):
        seal(data, number, random.choices(ids, k=20))
    sent |= set(run_cat_ids(data))
    shipper = started(f"file://{target}", data, ids_max=16)
    assert shipper.seen is not None
    assert shipper.seen.reach_s < DAY_S
    assert await shipper.run_once()
    found = Counter(message_ids(files(target)))
    assert found.keys() == sent
    assert max(found.values()) > 1
    assert shipper.tally.events_dropped > 0


def test_once_to_s3_says_what_it_left_out_and_remembers_at_the_next_start(
    tmp_path: Path, weed: Weed, place: str
) -> None:
    data = tmp_path / "data"
    seal(data, 1, ["a", "b", "a"])
    seal(data, 2, ["b", "c"], worker=1)
    shipping = Shipping(tmp_path, f"s3://{place}", "--once", "--dedup", "24h", environ=weed.environ())
    assert shipping.once() == 0, shipping.log
    assert "2 segments delivered (0 were there already)" in shipping.log
    assert "2 repeats left out" in shipping.log
    seal(data, 3, ["c", "d"], ["a"])
    assert shipping.once() == 0, shipping.log
    assert "remembers 3 events of 2 delivered segments" in shipping.log
    assert "2 repeats left out" in shipping.log
    assert_once(weed.objects(place), "abcd")


def test_without_room_for_the_window_it_warns_once_and_metrics_say_how_far_it_reaches(
    tmp_path: Path, target: Path
) -> None:
    data = tmp_path / "data"
    seal(data, 1, *([f"{commit}-{n}" for n in range(30)] for commit in range(4)))
    seal(data, 2, [f"new-{n}" for n in range(30)])
    flags = ("--dedup", "15m", "--admin", f"unix:{tmp_path}/admin")
    shipping = Shipping(tmp_path, f"file://{target}", *flags, ship_dedup_ids_max=125)
    with shipping:
        shipping.wait_for_log("metrics and probes on")
        shipping.wait_for_log("see ship_dedup_ids_max")
        text = ask(tmp_path, "/metrics")
        assert "ingestd_ship_dedup_reach_seconds 3.0\n" in text
        assert "ingestd_ship_dropped_events_total 0.0\n" in text
    assert shipping.log.count("see ship_dedup_ids_max") == 1


def test_without_a_delivery_nothing_is_said_of_how_far_the_window_reaches(
    tmp_path: Path, target: Path
) -> None:
    for number in range(3):
        seal(tmp_path / "data", number, [f"{number}-{n}" for n in range(30)])
    flags = ("--once", "--dedup", "15m")
    assert Shipping(tmp_path, f"file://{target}", *flags).once() == 0
    shipping = Shipping(tmp_path, f"file://{target}", *flags, ship_dedup_ids_max=40)
    assert shipping.once() == 0
    assert "of 1 delivered segments" in shipping.log
    assert "see ship_dedup_ids_max" not in shipping.log


async def test_how_far_behind_it_is_is_known_before_it_reads_what_was_delivered(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, place = tmp_path / "data", destination(f"file://{target}", {})
    seal(data, 1, ["a"])
    shipper = started(str(place), data)
    assert await shipper.run_once()
    seal(data, 2, ["a", "b"])
    shipper = started(str(place), data)
    running = process._Process(Settings(), place, is_once=True, until_eof=False)
    running._shipper = shipper
    seen_behind = []

    def watched(*arguments: Any) -> int:
        seen_behind.append(len(shipper.behind))
        return rebuild(*arguments)

    monkeypatch.setattr(process, "rebuild", watched)
    await running._work(Disk(), data, shipper._markers)
    assert (seen_behind, shipper.behind) == ([1], {})
    assert_once(files(target), "ab")


async def test_a_stop_ends_the_reading_of_what_was_delivered(tmp_path: Path, target: Path) -> None:
    data = tmp_path / "data"
    for number in range(3):
        seal(data, number, *([f"{number}-{commit}"] for commit in range(3)))
    shipper = started(f"file://{target}", data)
    assert await shipper.run_once()
    answers = iter([False, False, False, False, True])
    seen = Seen(DAY_S, 1000)
    told: list[tuple[int, int]] = []

    def progress(done_bytes: int, total_bytes: int) -> None:
        told.append((done_bytes, total_bytes))

    rebuild(Disk(), data, shipper._markers, seen, progress, lambda: next(answers))
    assert len(seen) == 4
    sizes = [len(one) for _, one in sorted(sealed(data).items())]
    assert told == [(sizes[0], sum(sizes))]


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    data, target = tmp_path / "data", tmp_path / "target"
    target.mkdir()
    seal(data, 1, ["a"])
    with Shipping(tmp_path, f"file://{target}", "--dedup", "24h") as running:
        running.wait_for_markers(sealed(data))
        second = Shipping(tmp_path, f"file://{target}", "--dedup", "24h")
        assert second.once() == 2
        assert f"is in use by process {running.pid}" in second.log


def test_a_window_that_is_shorter_than_a_segment_is_refused(tmp_path: Path, target: Path) -> None:
    data = tmp_path / "data"
    seal(data, 1, ["a"])
    shipping = Shipping(tmp_path, f"file://{target}", "--once", "--dedup", "90s", segment_age_max_s=90.5)
    assert shipping.once() == 2
    told = "--dedup (ship_dedup_s) is 90 s: it must not be less than segment_age_max_s, 90.5 s"
    assert told in shipping.log
    assert files(target) == {}
    shipping = Shipping(tmp_path, f"file://{target}", "--once", "--dedup", "90s", segment_age_max_s=90)
    assert shipping.once() == 0, shipping.log
