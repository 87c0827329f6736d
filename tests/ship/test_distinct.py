"""`ingestd ship --dedup`: each messageId is in the store once, whatever repeats it and whatever fails."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ingestd.config import Settings
from ingestd.errors import StorageError
from ingestd.ship import pace, process
from ingestd.ship.destination import destination
from ingestd.ship.distinct import DistinctObjects
from ingestd.ship.pace import Pace
from ingestd.ship.shipper import Shipper
from ingestd.ship.store import Store
from ingestd.ship.window import rebuild
from ingestd.storage.disk import Disk
from ingestd.storage.repeats import Seen, Sifted
from ingestd.storage.segment import open_directory
from ingestd.storage.shipped import Markers, undelivered
from tests.storage.samples import Sample, write
from tests.support.proxy import Proxy
from tests.support.server import run, wait_until
from tests.support.shipping import (
    TEMPLATE,
    Shipping,
    assert_delivered,
    files,
    markers,
    message_ids,
    sealed,
    stock,
)
from tests.support.weed import Weed

DAY_S = 86400.0


def name_of(number: int, worker: int = 0) -> str:
    return (
        f"20260101T{number // 3600:02}{number // 60 % 60:02}{number % 60:02}.678Z-node-w{worker}-{number:06d}"
    )


def seal(data_dir: Path, number: int, *commits: Sequence[str], worker: int = 0, more: str = "") -> str:
    """Seal a segment of these commits of messageIds; returns its name."""
    disk = Disk()
    disk.make_directory(open_directory(data_dir))
    contents = [
        b"".join(b'{"messageId":"%b","x":"%b"}\n' % (one.encode(), more.encode()) for one in commit)
        for commit in commits
    ]
    name = name_of(number, worker)
    write(disk, data_dir, contents, name).seal()
    return name


def marker_of(data_dir: Path, name: str) -> dict[str, object]:
    [path] = data_dir.glob(f"shipped/*/{name}-*.json")
    told: dict[str, object] = json.loads(path.read_text())
    return told


def started(place: str, data_dir: Path, *, at_once: int = 1 << 30, ids_max: int = 1_000_000) -> Shipper:
    """A shipper of this process, as it is after a start."""
    there = destination(place, os.environ)
    kept = Markers(Disk(), data_dir, there.label)
    seen = Seen(DAY_S, ids_max)
    store = Store(there, Pace(0, lambda: 0.0), 20)
    stopping = asyncio.Event()
    delivery = DistinctObjects(Disk(), store, TEMPLATE, at_once, kept, seen, stopping)
    shipper = Shipper(Disk(), data_dir, delivery, kept, stopping=stopping)
    shipper.begin(str(there))
    rebuild(Disk(), data_dir, kept, seen, lambda *_: None, lambda: False)
    shipper.seen = seen
    return shipper


def assert_once(objects: Mapping[str, bytes], expected: Sequence[str] | set[str]) -> None:
    """Each of these is in the store, once, and nothing else is."""
    assert Counter(message_ids(objects)) == Counter(set(expected))


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


def run_cat(path: Path) -> bytes:
    done = run("cat", path, cwd=path.parent)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.encode()


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


def run_cat_ids(data: Path) -> list[str]:
    done = run("cat", data, cwd=data.parent)
    return [json.loads(line)["messageId"] for line in done.stdout.splitlines()]


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


@pytest.mark.usefixtures("hasty")
async def test_what_is_not_delivered_is_not_remembered(tmp_path: Path, target: Path) -> None:
    data, away = tmp_path / "data", tmp_path / "away"
    damaged = seal(data, 1, ["a", "b"], ["c"])
    [path] = data.rglob(f"{damaged}.ndjson.zst")
    whole = path.read_bytes()
    # The first commit is good, the last is not.
    path.write_bytes(whole[:-1])
    seal(data, 2, ["d"])
    shipper = started(f"file://{target}", data)
    target.rename(away)
    assert not await shipper.run_once()
    assert "no such folder" in shipper.problem
    # An older one, of a slower worker, repeats all.
    seal(data, 0, ["d", "c", "b", "a"], worker=1)
    away.rename(target)
    await shipper.look()
    wait_until(lambda: shipper._due_in_s(99) == 0, "it is due")
    await shipper._round(99)
    assert_once(files(target), "abcd")
    assert len(markers(data)) == 2


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("is_restarted", [False, True])
async def test_an_answer_that_is_lost_is_settled_before_anything_else_is_sent(
    is_restarted: bool, tmp_path: Path, weed: Weed, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    with Proxy(weed.port) as proxy:
        for variable, value in weed.environ(proxy.port).items():
            monkeypatch.setenv(variable, value)
        seal(data, 2, ["a", "b"])
        proxy.set("deaf")
        first = started(f"s3://{place}", data)
        first._delivery._store._timeout_s = 0.5  # type: ignore[attr-defined]
        assert not await first.run_once()
        wait_until(lambda: len(weed.objects(place)) == 1, "it is there, and nobody knows")
        proxy.set("cut")
        proxy.set("pass")
        seal(data, 1, ["a", "c"], worker=1)
        shipper = started(f"s3://{place}", data) if is_restarted else first
        await shipper.look()
        wait_until(lambda: shipper._due_in_s(99) == 0, "it is due")
        await shipper._round(99)
        assert shipper.tally.segments_found == 1
    assert_once(weed.objects(place), "abc")
    assert len(markers(data)) == 2


class FullDisk(Disk):
    """Cannot make or replace some files."""

    def __init__(self) -> None:
        self.refused = ""

    def replace_file(self, path: Path, data: bytes) -> None:
        if self.refused and path.name.endswith(self.refused):
            raise StorageError("write: No space left on device")
        super().replace_file(path, data)

    @contextmanager
    def making(self, path: Path) -> Iterator[int]:
        with super().making(path) as fd:
            yield fd
            if self.refused and self.refused in path.name:
                raise StorageError("write: No space left on device")


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("is_restarted", [False, True])
async def test_a_marker_that_cannot_be_written_doubles_nothing_and_is_no_repeat(
    is_restarted: bool, tmp_path: Path, target: Path
) -> None:
    data, disk = tmp_path / "data", FullDisk()
    seal(data, 2, ["a", "b", "a"])
    seal(data, 3, ["a", "b"])
    shipper = started(f"file://{target}", data)
    shipper._markers._disk = disk
    disk.refused = ".json"
    await shipper.look()
    await shipper._round(99)
    assert (markers(data), shipper.tally.events_dropped) == (set(), 0)
    assert_once(files(target), "ab")
    disk.refused = ""
    seal(data, 1, ["b", "c"], worker=1)
    if is_restarted:
        shipper = started(f"file://{target}", data)
    assert await shipper.run_once()
    assert_once(files(target), "abc")
    # One is found there, of the second nothing is new, and "b" of the last.
    assert (shipper.tally.segments_found, shipper.tally.events_dropped) == (1, 3)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("refused", ["anew", "underway"])
async def test_a_full_disk_holds_up_what_must_be_written_there_and_loses_nothing(
    refused: str, tmp_path: Path, target: Path
) -> None:
    data, disk = tmp_path / "data", FullDisk()
    seal(data, 1, ["a", "a"])
    seal(data, 2, ["b", "a"])
    shipper = started(f"file://{target}", data)
    shipper._markers._disk = shipper._delivery._disk = disk  # type: ignore[attr-defined]
    disk.refused = refused
    await shipper.look()
    await shipper._round(99)
    # The other one has the first "a" meanwhile, if it need not be written anew.
    assert_once(files(target), "ab" if refused == "anew" else "")
    assert not list(data.glob("shipped/*/.*"))
    disk.refused = ""
    assert await shipper.run_once()
    assert_once(files(target), "ab")


async def test_an_object_that_is_there_is_right_whatever_its_size(tmp_path: Path, target: Path) -> None:
    data = tmp_path / "data"
    seal(data, 1, ["a", "b", "c"])
    seal(data, 2, ["c", "d"])
    assert await started(f"file://{target}", data).run_once()
    before = files(target)
    for marker in data.glob("shipped/*/*.json"):
        marker.unlink()
    # Retention has deleted what the second one repeats: now nothing of it is a repeat.
    next(data.rglob(f"{name_of(1)}.ndjson.zst")).unlink()
    again = started(f"file://{target}", data)
    assert await again.run_once()
    assert (again.tally.segments_found, files(target)) == (1, before)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("refused", ["anew", "underway"])
@pytest.mark.parametrize("is_restarted", [False, True])
async def test_a_full_disk_after_a_lost_answer_lets_nothing_else_go_first(
    is_restarted: bool, refused: str, tmp_path: Path, weed: Weed, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, disk = tmp_path / "data", FullDisk()
    with Proxy(weed.port) as proxy:
        for variable, value in weed.environ(proxy.port).items():
            monkeypatch.setenv(variable, value)
        name = seal(data, 2, ["a", "b", "a"])
        proxy.set("deaf")
        shipper = started(f"s3://{place}", data)
        shipper._delivery._store._timeout_s = 0.5  # type: ignore[attr-defined]
        await shipper.look()
        await shipper._round(99)
        wait_until(lambda: len(weed.objects(place)) == 1, "it is there, and nobody knows")
        proxy.set("cut")
        proxy.set("pass")
        seal(data, 1, ["a", "c"], worker=1)
        if is_restarted:
            shipper = started(f"s3://{place}", data)
        shipper._markers._disk = shipper._delivery._disk = disk  # type: ignore[attr-defined]
        disk.refused = refused
        assert not await shipper.run_once()
        told = f"{name} must be delivered first: write: No space left on device"
        assert (shipper.problem, markers(data)) == (told, set())
        disk.refused = ""
        wait_until(lambda: shipper._due_in_s(99) == 0, "it is due")
        await shipper._round(99)
    assert (shipper.problem, shipper.behind) == ("", {})
    assert_once(weed.objects(place), "abc")


@pytest.mark.usefixtures("hasty")
async def test_what_is_under_way_and_damaged_or_gone_holds_up_no_other(tmp_path: Path, target: Path) -> None:
    data = tmp_path / "data"
    names = [seal(data, number, [f"{number}", "a"]) for number in range(3)]
    paths = sorted(data.rglob("*.ndjson.zst"))
    first = started(f"file://{target}", data)
    await first.look()
    first._markers.put_underway(list(first.behind)[:2])
    size, at = paths[0].stat().st_size, paths[0].stat().st_mtime_ns
    paths[0].write_bytes(b"x" * size)
    os.utime(paths[0], ns=(at, at))
    paths[1].unlink()
    again = started(f"file://{target}", data)
    assert len(again._delivery.underway) == 2
    assert not await again.run_once()
    assert (again.problem, markers(data)) == ("", set(names[2:]))


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("size", [0, 100, -1])
@pytest.mark.parametrize("is_repeats_only", [False, True])
async def test_an_object_that_a_power_cut_has_cut_is_not_taken_for_delivered(
    is_repeats_only: bool, size: int, tmp_path: Path, target: Path
) -> None:
    data = tmp_path / "data"
    name = seal(data, 1, ["a", "b"], ["a", "c"], more="x" * 99)
    assert await started(f"file://{target}", data).run_once()
    [path] = target.rglob("*.zst")
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    [marker] = data.glob(f"shipped/*/{name}-*.json")
    if is_repeats_only:
        # Remembered, as where only the marker could not be written.
        shipper = started(f"file://{target}", data)
        marker.unlink()
        shipper._delivered.clear()
    else:
        marker.unlink()
        shipper = started(f"file://{target}", data)
    assert not await shipper.run_once()
    told = f"is there with {len(whole[:size])} bytes that are no whole segment"
    assert told in shipper.problem
    assert shipper.problem.endswith("or a power cut has cut it; move it away")
    assert (markers(data), path.read_bytes()) == (set(), whole[:size])
    # Moved away, it is made again.
    path.unlink()
    assert await started(f"file://{target}", data).run_once()
    assert_once(files(target), "abc")


@pytest.mark.parametrize("is_s3", [False, True])
async def test_an_object_of_another_size_is_looked_at_in_parts(
    is_s3: bool, tmp_path: Path, target: Path, weed: Weed, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in weed.environ().items():
        monkeypatch.setenv(variable, value)
    # Smaller than a commit, and than the footer.
    monkeypatch.setattr("ingestd.ship.store.PART_BYTES", 100)
    to, data = f"s3://{place}" if is_s3 else f"file://{target}", tmp_path / "data"
    seal(data, 1, ["a"])
    second = seal(data, 2, *(["a", f"{n}", f"{n}-{n * n}"] for n in range(20)))
    assert await started(to, data).run_once()
    [marker] = data.glob(f"shipped/*/{second}-*.json")
    marker.unlink()
    # Retention has deleted what it repeats: it would be made as large as it is here.
    next(data.rglob(f"{name_of(1)}.ndjson.zst")).unlink()
    seal(data, 1, ["0-0"])
    again = started(to, data)
    assert await again.run_once()
    assert again.tally.segments_found == 1


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
        text = metrics(tmp_path)
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


def metrics(folder: Path) -> str:
    """What a shipper tells of itself at this folder's socket."""
    command = ["curl", "--silent", "--unix-socket", f"{folder}/admin", "http://x/metrics"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_kill_9_at_any_moment_doubles_and_loses_no_event(tmp_path: Path, weed: Weed, place: str) -> None:
    random, data = Random(20261124), tmp_path / "data"
    sent: list[str] = []
    with Proxy(weed.port) as proxy:
        shipping = Shipping(tmp_path, f"s3://{place}", "--dedup", "24h", environ=weed.environ(proxy.port))
        number = 0
        for _ in range(20):
            for worker in range(3):
                number += 1
                commits = []
                for _ in range(3):
                    new = [f"{number}-{random.random()}" for _ in range(3)]
                    commits.append(new + random.choices(sent or new, k=3) + new[:1])
                    sent += new
                # A slow worker's segment is older than what was delivered before.
                seal(data, number + random.choice((0, 0, -9, 9)) + 20, *commits, worker=worker + 3 * number)
            until = proxy.passed + random.randrange(1, 20_000)

            def is_time(until: int = until) -> bool:
                return proxy.passed >= until or markers(data) >= sealed(data).keys()

            with shipping.start():
                wait_until(is_time, "it has sent so much")
                # Between a delivery and its marker there is less than a millisecond or two.
                time.sleep(random.random() * 0.005)
                shipping.kill()
        last = Shipping(tmp_path, f"s3://{place}", "--once", "--dedup", "1d", environ=weed.environ())
        assert last.once() == 0, last.log
    assert_once(weed.objects(place), sent)
    assert markers(data) == sealed(data).keys()
    assert not list(data.glob("shipped/*/.*"))


@pytest.mark.parametrize("seed", range(3))
async def test_a_network_that_is_cut_anywhere_doubles_and_loses_no_event(
    seed: int, tmp_path: Path, weed: Weed, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    random, data = Random(seed), tmp_path / "data"
    monkeypatch.setattr(pace, "_FIRST_S", 0.01)
    sent: list[str] = []
    with Proxy(weed.port) as proxy:
        for variable, value in weed.environ(proxy.port).items():
            monkeypatch.setenv(variable, value)
        shipper = started(f"s3://{place}", data)
        for number in range(30):
            new = [f"{number}-{random.random()}" for _ in range(4)]
            seal(data, 30 + random.randrange(-9, 9), new + random.choices(sent or new, k=4), worker=number)
            sent += new
            proxy.cut_after = random.randrange(1, 4000)
            if random.random() < 0.3:
                shipper = started(f"s3://{place}", data)
            await shipper.look()
            await shipper._round(99)
        proxy.cut_after = None
        assert await shipper.run_once()
    assert_once(weed.objects(place), sent)
    assert markers(data) == sealed(data).keys()


async def test_a_stop_ends_the_writing_anew_and_leaves_nothing(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    seal(data, 1, ["a"], ["a", "b"], ["c"], ["d"])
    shipper, sift = started(f"file://{target}", data), Seen.sift

    def sift_and_stop(seen: Seen, lines: bytes, at_ms: int) -> Sifted:
        if b'"c"' in lines:
            shipper.stopping.set()
        return sift(seen, lines, at_ms)

    monkeypatch.setattr(Seen, "sift", sift_and_stop)
    assert not await shipper.run_once()
    assert (len(shipper.behind), shipper.problem, files(target)) == (1, "", {})
    assert not list(data.glob("shipped/*/.*"))
    monkeypatch.undo()
    shipper.stopping.clear()
    assert await shipper.run_once()
    assert_once(files(target), "abcd")


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
