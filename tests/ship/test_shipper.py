"""The shipper in this process, mostly to a folder: markers, repeats, segments that are damaged or gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ingestd.errors import StorageError
from ingestd.ship.content import load
from ingestd.ship.delivery import Delivered, Delivery, Segment
from ingestd.ship.destination import destination
from ingestd.ship.objects import Objects
from ingestd.ship.pace import Pace
from ingestd.ship.shipper import Shipper
from ingestd.ship.store import Store
from ingestd.storage.disk import Disk
from ingestd.storage.shipped import Markers
from tests.support.proxy import Proxy
from tests.support.shipping import TEMPLATE, Shipping, assert_delivered, files, markers, stock
from tests.support.weed import Weed


def shipper_to(folder: Path, data_dir: Path, at_once: int = 1 << 30) -> Shipper:
    """A shipper of this process, to a folder."""
    place = destination(f"file://{folder}", {})
    delivery = Objects(Disk(), Store(place, Pace(0, lambda: 0.0), 20), TEMPLATE, at_once)
    shipper = Shipper(Disk(), data_dir, delivery, Markers(Disk(), data_dir, place.label))
    shipper.begin(str(place))
    return shipper


class Counting:
    """The same delivery, and the names of the objects that it has made."""

    def __init__(self, delivery: Delivery, new: list[str]) -> None:
        self.lanes = delivery.lanes
        self.underway = delivery.underway
        self._delivery = delivery
        self._new = new

    async def deliver(self, segment: Segment) -> Delivered | None:
        delivered = await self._delivery.deliver(segment)
        if delivered is not None and delivered.is_new:
            self._new.append(segment.name)
        return delivered

    async def close(self) -> None:
        await self._delivery.close()


async def test_in_parts_to_a_folder_too_and_a_repeat_finds_it(tmp_path: Path, target: Path) -> None:
    made = stock(tmp_path / "data", 2, event_bytes=1000)
    assert await shipper_to(target, tmp_path / "data", at_once=100).run_once()
    assert_delivered(files(target), made)
    for marker in (tmp_path / "data").glob("shipped/*/*.json"):
        marker.unlink()
    again = shipper_to(target, tmp_path / "data", at_once=100)
    assert await again.run_once()
    assert (again.tally.segments_delivered, again.tally.segments_found) == (2, 2)
    assert_delivered(files(target), made)


async def test_what_was_delivered_without_a_marker_is_found_there_and_marked(
    tmp_path: Path, target: Path
) -> None:
    made = stock(tmp_path / "data", 3)
    assert await shipper_to(target, tmp_path / "data").run_once()
    lost = next((tmp_path / "data").glob("shipped/*/*.json"))
    lost.unlink()
    again = shipper_to(target, tmp_path / "data")
    assert await again.run_once()
    assert (again.tally.segments_delivered, again.tally.segments_found) == (1, 1)
    assert markers(tmp_path / "data") == made.keys()
    assert_delivered(files(target), made)


async def test_two_shippers_at_once_deliver_each_segment_once(tmp_path: Path, target: Path) -> None:
    made = stock(tmp_path / "data", 30)
    both = [shipper_to(target, tmp_path / "data"), shipper_to(target, tmp_path / "data", at_once=100)]
    new: list[str] = []
    for shipper in both:
        shipper._delivery = Counting(shipper._delivery, new)
    assert await asyncio.gather(*(shipper.run_once() for shipper in both)) == [True, True]
    assert_delivered(files(target), made)
    # One or the other has made each object, and knows it.
    assert sorted(new) == sorted(made)


@pytest.mark.usefixtures("hasty")
async def test_another_object_of_the_same_name_is_left_alone_and_told_of(
    tmp_path: Path, target: Path
) -> None:
    made = stock(tmp_path / "data", 2)
    assert await shipper_to(target, tmp_path / "data").run_once()
    victim = sorted(target.rglob("*.zst"))[0]
    victim.write_bytes(b"other")
    for marker in (tmp_path / "data").glob("shipped/*/*.json"):
        marker.unlink()
    shipper = shipper_to(target, tmp_path / "data")
    assert not await shipper.run_once()
    assert "is there with 5 bytes instead of" in shipper.problem
    # The other one is not held up by it.
    assert len(markers(tmp_path / "data")) == len(made) - 1
    assert victim.read_bytes() == b"other"


@pytest.mark.usefixtures("hasty")
async def test_a_damaged_segment_is_not_delivered_and_holds_up_no_other(tmp_path: Path, target: Path) -> None:
    made = stock(tmp_path / "data", 3)
    path = sorted((tmp_path / "data").rglob("*.ndjson.zst"))[1]
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    told: list[str] = []
    shipper = shipper_to(target, tmp_path / "data")
    shipper._say = lambda _level, text, *arguments: told.append(text % arguments)
    assert not await shipper.run_once()
    name = path.name.removesuffix(".ndjson.zst")
    assert [waiting.segment.path for waiting in shipper.behind.values()] == [path]
    assert sum("is damaged" in line for line in told) == 1
    made.pop(name)
    assert_delivered(files(target), made)
    assert markers(tmp_path / "data") == made.keys()


async def test_a_segment_that_vanishes_before_its_turn_is_told_of(tmp_path: Path, target: Path) -> None:
    made = stock(tmp_path / "data", 3)
    shipper = shipper_to(target, tmp_path / "data")
    await shipper.look()
    path = sorted((tmp_path / "data").rglob("*.ndjson.zst"))[0]
    path.unlink()
    made.pop(path.name.removesuffix(".ndjson.zst"))
    await shipper._round(9)
    assert (shipper.tally.segments_gone, shipper.behind) == (1, {})
    assert_delivered(files(target), made)
    # One that another shipper has delivered was not lost.
    more = stock(tmp_path / "data", 1, first=9)
    (name,) = more
    await shipper.look()
    (one,) = shipper.behind
    shipper._markers.put(one, b"{}")
    next((tmp_path / "data").rglob(f"{name}.ndjson.zst")).unlink()
    await shipper.look()
    assert (shipper.tally.segments_gone, shipper.behind) == (1, {})


async def test_markers_go_with_their_segments(tmp_path: Path, target: Path) -> None:
    made = stock(tmp_path / "data", 3)
    shipper = shipper_to(target, tmp_path / "data")
    assert await shipper.run_once()
    path = sorted((tmp_path / "data").rglob("*.ndjson.zst"))[0]
    path.unlink()
    # Not at once, for another shipper may be about to see that it is gone.
    await shipper.look()
    assert markers(tmp_path / "data") == made.keys()
    shipper._prune_at = 0.0
    await shipper.look()
    assert markers(tmp_path / "data") == made.keys() - {path.name.removesuffix(".ndjson.zst")}
    assert_delivered(files(target), made)


async def test_a_file_with_another_name_is_not_delivered_and_told_of_once(
    tmp_path: Path, target: Path
) -> None:
    made = stock(tmp_path / "data", 1)
    next((tmp_path / "data").rglob("*.ndjson.zst")).with_name("mine.ndjson.zst").write_bytes(b"x")
    told: list[str] = []
    shipper = shipper_to(target, tmp_path / "data")
    shipper._say = lambda _level, text, *arguments: told.append(text % arguments)
    assert await shipper.run_once()
    await shipper.look()
    assert sum("has not the name of a segment" in line for line in told) == 1
    assert_delivered(files(target), made)


async def test_the_clock_may_be_set_back_and_forth(tmp_path: Path, target: Path) -> None:
    made = stock(tmp_path / "data", 3)
    shipper = shipper_to(target, tmp_path / "data")
    now = [0.0]
    shipper._wall = lambda: now[0]
    await shipper.look()
    assert shipper.lag_s == 0, "the segments are of the future"
    now[0] = max(path.stat().st_mtime for path in (tmp_path / "data").rglob("*.zst")) + 100
    assert shipper.lag_s >= 100
    now[0] = 5e9
    assert await shipper.run_once()
    assert shipper.lag_s == 0
    assert_delivered(files(target), made)


@pytest.mark.usefixtures("hasty")
async def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path, target: Path) -> None:
    stock(tmp_path / "data", 1)
    shipper = shipper_to(target, tmp_path / "data")
    target.rmdir()
    assert not await shipper.run_once()
    assert not target.exists()
    assert "no such folder" in shipper.problem
    shipping = Shipping(tmp_path, f"file://{target}", "--once")
    assert shipping.once() == 2
    assert "mount what belongs there" in shipping.log


async def test_what_a_killed_shipper_has_left_in_a_folder_is_cleared(tmp_path: Path, target: Path) -> None:
    made = stock(tmp_path / "data", 1)
    assert await shipper_to(target, tmp_path / "data").run_once()
    (path,) = target.rglob("*.zst")
    path.with_name(f"{path.name}#1").write_bytes(path.read_bytes()[:10])
    path.unlink()
    next((tmp_path / "data").glob("shipped/*/*.json")).unlink()
    assert await shipper_to(target, tmp_path / "data").run_once()
    assert_delivered(files(target), made)


async def test_in_parts_what_is_there_already_is_not_sent_again(
    tmp_path: Path, weed: Weed, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in weed.environ().items():
        monkeypatch.setenv(name, value)
    stock(tmp_path / "data", 1, event_bytes=100_000)
    (path,) = (tmp_path / "data").rglob("*.ndjson.zst")
    content = load(Disk(), path, 0)
    with Proxy(weed.port) as proxy:
        there = destination(f"s3://{place}", weed.environ(proxy.port))
        monkeypatch.setenv("AWS_ENDPOINT_URL", there.endpoint)
        store = Store(there, Pace(0, lambda: 0.0), 20)
        assert await store.deliver("key", content, "name")
        before = proxy.passed
        assert before > content.size
        assert not await store.deliver("key", content, "name")
        assert proxy.passed - before < content.size / 10
    assert weed.objects(place) == {"key": path.read_bytes()}


async def test_a_file_that_changes_while_it_is_sent_in_parts_is_not_delivered(
    tmp_path: Path, target: Path
) -> None:
    stock(tmp_path / "data", 1, event_bytes=1000)
    (path,) = (tmp_path / "data").rglob("*.ndjson.zst")
    content = load(Disk(), path, 0)
    path.write_bytes(path.read_bytes()[::-1])
    store = Store(destination(f"file://{target}", {}), Pace(0, lambda: 0.0), 20)
    with pytest.raises(StorageError, match="has changed while it was sent"):
        await store.deliver("key", content, "name")
    assert files(target) == {}


async def test_another_segment_of_a_name_that_was_delivered_is_delivered_too(
    tmp_path: Path, target: Path
) -> None:
    # A machine without a clock battery boots into the same time; retention has deleted the first one.
    made = stock(tmp_path / "data", 1, seed=1)
    assert await shipper_to(target, tmp_path / "data").run_once()
    (path,) = (tmp_path / "data").rglob("*.ndjson.zst")
    path.unlink()
    again = stock(tmp_path / "data", 1, seed=2)
    assert again.keys() == made.keys()
    assert again != made
    shipper = shipper_to(target, tmp_path / "data")
    assert await shipper.run_once()
    assert sorted(files(target).values()) == sorted([*made.values(), *again.values()])


async def test_a_file_that_takes_the_place_of_another_has_its_own_turn(tmp_path: Path, target: Path) -> None:
    stock(tmp_path / "data", 1, seed=1)
    shipper = shipper_to(target, tmp_path / "data")
    await shipper.look()
    (path,) = (tmp_path / "data").rglob("*.ndjson.zst")
    path.unlink()
    again = stock(tmp_path / "data", 1, seed=2, event_bytes=100)
    await shipper._round(9)
    assert (shipper.tally.segments_gone, files(target)) == (1, {})
    await shipper.look()
    await shipper._round(9)
    assert_delivered(files(target), again)


async def test_shippers_that_start_at_the_same_time_do_not_disturb_each_other(
    tmp_path: Path, target: Path
) -> None:
    # Found as it ran: one took what the other was about to write for what a crash had left.
    stock(tmp_path / "data", 1)
    for _ in range(20):
        await asyncio.gather(*(asyncio.to_thread(shipper_to, target, tmp_path / "data") for _ in range(4)))


class FullDisk(Disk):
    """Cannot write or sync files, a few times."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals

    def _refuse(self, call: str) -> None:
        if self.refusals:
            self.refusals -= 1
            raise StorageError(f"{call}: No space left on device")

    def replace_file(self, path: Path, data: bytes) -> None:
        self._refuse("write")
        super().replace_file(path, data)

    def sync_file(self, path: Path) -> None:
        self._refuse("fsync")
        super().sync_file(path)


@pytest.mark.usefixtures("hasty")
async def test_a_marker_that_cannot_be_written_is_written_later_and_nothing_is_sent_twice(
    tmp_path: Path, target: Path
) -> None:
    made = stock(tmp_path / "data", 3)
    shipper = shipper_to(target, tmp_path / "data")
    shipper._markers._disk = FullDisk(4)
    assert await shipper.run_once()
    assert shipper.tally.retries == 4
    assert_delivered(files(target), made)
    assert markers(tmp_path / "data") == made.keys()


@pytest.mark.usefixtures("hasty")
async def test_what_a_folder_does_not_make_durable_is_not_delivered(tmp_path: Path, target: Path) -> None:
    made = stock(tmp_path / "data", 1)
    place = destination(f"file://{target}", {})
    store = Store(place, Pace(0, lambda: 0.0), 20)
    store._disk = FullDisk(3)
    kept = Markers(Disk(), tmp_path / "data", place.label)
    shipper = Shipper(Disk(), tmp_path / "data", Objects(Disk(), store, TEMPLATE, 1 << 20), kept)
    shipper.begin(str(place))
    await shipper.look()
    await shipper._round(9)
    assert (shipper.problem, markers(tmp_path / "data")) == ("fsync: No space left on device", set())
    assert await shipper.run_once()
    assert_delivered(files(target), made)
    assert markers(tmp_path / "data") == made.keys()
