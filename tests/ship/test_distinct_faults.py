"""`ingestd ship --dedup` while answers, disks, networks and shippers fail: nothing lost, nothing doubled."""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random

import pytest

from ingestd.ship import pace
from ingestd.storage.repeats import Seen, Sifted
from tests.support.distinct import (
    FullDisk,
    assert_once,
    name_of,
    seal,
    started,
)
from tests.support.proxy import Proxy
from tests.support.server import wait_until
from tests.support.shipping import (
    Shipping,
    files,
    markers,
    sealed,
)
from tests.support.weed import Weed


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
