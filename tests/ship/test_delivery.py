"""`ingestd ship` delivers each sealed segment once, byte for byte, to a folder and to S3."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import obstore
import pytest

from ingestd.ship.content import PART_BYTES, Content
from ingestd.ship.destination import Template, destination
from ingestd.ship.pace import Pace
from ingestd.ship.shipper import Shipper
from ingestd.ship.store import Deliver, Store, at_once_bytes_max
from ingestd.storage.disk import Disk
from ingestd.storage.shipped import Markers
from tests.support.server import clean_environ, wait_until
from tests.support.shipping import Shipping, assert_delivered, files, markers, stock
from tests.support.weed import Weed

TEMPLATE = Template("date={date}/hour={hour}/{name}-{sha256}.ndjson.zst")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty folder to deliver to."""
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def shipper_to(folder: Path, data_dir: Path, at_once: int = 1 << 30) -> Shipper:
    """A shipper of this process, to a folder."""
    place = destination(f"file://{folder}", {})
    deliver = Store(place, Pace(0, lambda: 0.0), 20).deliver
    markers = Markers(Disk(), data_dir, place.label)
    shipper = Shipper(Disk(), data_dir, deliver, TEMPLATE, markers, at_once)
    shipper.begin(str(place))
    return shipper


async def counting(deliver: Deliver, new: list[str], key: str, content: Content, name: str) -> bool:
    """The same, and the names of objects that were made."""
    is_new = await deliver(key, content, name)
    if is_new:
        new.append(name)
    return is_new


def test_a_folder_has_all_segments_after_once_and_a_second_time_changes_nothing(
    tmp_path: Path, target: Path
) -> None:
    made = stock(tmp_path / "data", 5)
    shipping = Shipping(tmp_path, f"file://{target}", "--once")
    assert shipping.once() == 0, shipping.log
    assert_delivered(files(target), made)
    assert markers(tmp_path / "data") == made.keys()
    before = {path: path.stat() for path in target.rglob("*.zst")}
    assert shipping.once() == 0
    assert {path: path.stat() for path in target.rglob("*.zst")} == before


def test_s3_has_all_segments_after_once_and_a_second_time_changes_nothing(
    tmp_path: Path, weed: Weed, place: str
) -> None:
    made = stock(tmp_path / "data", 5)
    shipping = Shipping(tmp_path, f"s3://{place}", "--once", environ=weed.environ())
    assert shipping.once() == 0, shipping.log
    assert_delivered(weed.objects(place), made)
    assert shipping.once() == 0
    assert "0 segments delivered" in shipping.log
    assert_delivered(weed.objects(place), made)


def test_a_shipper_that_goes_on_delivers_what_is_sealed_later(tmp_path: Path, weed: Weed, place: str) -> None:
    made = stock(tmp_path / "data", 2)
    with Shipping(tmp_path, f"s3://{place}", environ=weed.environ()) as shipping:
        shipping.wait_for_markers(made)
        made |= stock(tmp_path / "data", 2, first=2)
        shipping.wait_for_markers(made)
    assert "SIGTERM: stopping" in shipping.log
    assert_delivered(weed.objects(place), made)


def test_a_segment_that_is_too_large_to_go_at_once_goes_in_parts(
    tmp_path: Path, weed: Weed, place: str
) -> None:
    # With a bound no more than a second's worth goes at once. Random bytes in hex shrink to a half.
    rate = PART_BYTES
    made = stock(tmp_path / "data", 1, event_bytes=3_000_000)
    assert len(next(iter(made.values()))) > at_once_bytes_max(rate) == PART_BYTES
    shipping = Shipping(tmp_path, f"s3://{place}", "--once", environ=weed.environ(), ship_bytes_per_s=rate)
    assert shipping.once() == 0, shipping.log
    # Nothing is left where it was gathered.
    assert_delivered(weed.objects(place), made)


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
        shipper._deliver_to = partial(counting, shipper._deliver_to, new)
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
    assert list(shipper.behind) == [name]
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
    shipper._markers.put(name, b"{}")
    next((tmp_path / "data").rglob(f"{name}.ndjson.zst")).unlink()
    await shipper.look()
    assert (shipper.tally.segments_gone, shipper.behind) == (1, {})


async def test_markers_go_with_their_segments(tmp_path: Path, target: Path) -> None:
    made = stock(tmp_path / "data", 3)
    shipper = shipper_to(target, tmp_path / "data")
    assert await shipper.run_once()
    path = sorted((tmp_path / "data").rglob("*.ndjson.zst"))[0]
    path.unlink()
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


def test_the_template_says_where_objects_stand(tmp_path: Path, weed: Weed, place: str) -> None:
    made = stock(tmp_path / "data", 2)
    shipping = Shipping(
        tmp_path,
        f"s3://{place}",
        "--once",
        environ=weed.environ(),
        ship_key="node={node}/date={date}/hour={hour}/{sha256}.{name}.ndjson.zst",
    )
    assert shipping.once() == 0, shipping.log
    assert sorted(weed.objects(place).values()) == sorted(made.values())
    assert all(key.startswith("node=node/date=2026-01-0") for key in weed.objects(place))


def test_a_marker_tells_what_is_where(tmp_path: Path, target: Path) -> None:
    stock(tmp_path / "data", 1)
    assert Shipping(tmp_path, f"file://{target}", "--once").once() == 0
    (marker,) = (tmp_path / "data").glob("shipped/*/*.json")
    told = json.loads(marker.read_text())
    assert (target / told["object"]).stat().st_size == told["bytes"]
    assert (marker.parent / "destination").read_text() == f"file://{target}\n"


def test_metrics_tell_how_far_it_is(tmp_path: Path, weed: Weed, place: str) -> None:
    made = stock(tmp_path / "data", 3)
    shipping = Shipping(
        tmp_path, f"s3://{place}", "--admin", f"unix:{tmp_path}/admin", environ=weed.environ()
    )
    with shipping:
        shipping.wait_for_log("metrics and probes on")
        shipping.wait_for_markers(made)

        def ask(path: str) -> str:
            return subprocess.run(
                ["curl", "--silent", "--unix-socket", f"{tmp_path}/admin", f"http://x{path}"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout

        wait_until(lambda: "ingestd_ship_behind_segments 0.0" in ask("/metrics"), "all is counted")
        text = ask("/metrics")
        assert "ingestd_ship_segments_total 3.0" in text
        assert f"ingestd_ship_bytes_total {float(sum(map(len, made.values())))}" in text
        assert "ingestd_ship_lag_seconds 0.0" in text
        assert ask("/readyz") == '{"status":"ok"}'


def test_without_the_extra_a_line_says_what_to_install(tmp_path: Path) -> None:
    stock(tmp_path / "data", 1)
    program = (
        "import sys; sys.modules['obstore'] = None; from ingestd.cli import main; "
        "sys.exit(main(['ship', '--data-dir', 'data', '--to', 's3://bucket', '--once']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=clean_environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'ingestd[ship]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_no_other_command_loads_any_of_it() -> None:
    program = (
        "import sys, ingestd.cli, ingestd.service.worker, ingestd.storage.verify; "
        "sys.exit(any(name.split('.')[0] in ('obstore', 'fsspec') or name.startswith('ingestd.ship') "
        "for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], env=clean_environ(), check=False).returncode == 0


def test_the_wrong_directory_is_not_taken_for_one_that_is_delivered(tmp_path: Path, target: Path) -> None:
    (tmp_path / "data").mkdir()
    shipping = Shipping(tmp_path, f"file://{target}", "--once")
    assert shipping.once() == 2
    assert "name a data directory" in shipping.log


def test_secrets_are_in_no_argument_and_no_line(tmp_path: Path, weed: Weed, place: str) -> None:
    stock(tmp_path / "data", 1)
    environ = weed.environ() | {"AWS_SECRET_ACCESS_KEY": "a-wrong-secret-4711"}
    shipping = Shipping(tmp_path, f"s3://{place}", environ=environ, log_level="debug")
    with shipping:
        shipping.wait_for_log("cannot deliver")
        assert b"4711" not in Path(f"/proc/{shipping.pid}/cmdline").read_bytes()
    assert "AWS_SECRET_ACCESS_KEY" in shipping.log
    assert "4711" not in shipping.log
    assert environ["AWS_ACCESS_KEY_ID"] not in shipping.log
    assert "4711" not in "".join(path.read_text() for path in (tmp_path / "data").rglob("destination"))


def test_an_object_is_made_only_where_none_is(weed: Weed, place: str) -> None:
    # What all of it rests on.
    store = weed.store(place)
    obstore.put(store, "x", b"first", mode="create")
    with pytest.raises(obstore.exceptions.AlreadyExistsError):
        obstore.put(store, "x", b"second", mode="create")
    assert weed.objects(place) == {"x": b"first"}
    assert os.environ.get("AWS_SECRET_ACCESS_KEY") is None
