"""Whatever happens on the way, each segment is there once in the end, byte for byte, and so is the marker.

Against a real store. The network between is a proxy of the tests' own; processes are killed for real.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from ingestd.ship import pace
from ingestd.ship.destination import destination
from ingestd.ship.objects import Objects
from ingestd.ship.pace import Pace
from ingestd.ship.shipper import Shipper
from ingestd.ship.store import Store
from ingestd.storage.disk import Disk
from ingestd.storage.shipped import Markers
from tests.support.proxy import Proxy
from tests.support.server import wait_until
from tests.support.shipping import TEMPLATE, Shipping, assert_delivered, files, markers, stock
from tests.support.tools import faked_clock, tool
from tests.support.weed import BUCKET, Weed


@pytest.fixture
def proxy(weed: Weed) -> Iterator[Proxy]:
    """The network between a shipper and the store."""
    with Proxy(weed.port) as running:
        yield running


@pytest.fixture
def started(
    tmp_path: Path, weed: Weed, place: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> Callable[[float], Shipper]:
    """Starts one in this process, through the proxy, that waits so long for an answer."""
    monkeypatch.setattr(pace, "_FIRST_S", 0.01)
    environ = weed.environ(proxy.port)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    def start(timeout_s: float) -> Shipper:
        there = destination(f"s3://{place}", environ)
        delivery = Objects(Disk(), Store(there, Pace(0, lambda: 0.0), timeout_s), TEMPLATE, 1_000_000)
        shipper = Shipper(
            Disk(), tmp_path / "data", delivery, Markers(Disk(), tmp_path / "data", there.label)
        )
        shipper.begin(str(there))
        return shipper

    return start


def shipping_to(
    folder: Path, weed: Weed, place: str, proxy: Proxy, *flags: str, **settings: object
) -> Shipping:
    """A process that delivers through the proxy."""
    return Shipping(folder, f"s3://{place}", *flags, environ=weed.environ(proxy.port), **settings)


def test_a_store_that_is_away_at_the_start_is_waited_for(
    tmp_path: Path, weed: Weed, place: str, proxy: Proxy
) -> None:
    made = stock(tmp_path / "data", 3)
    proxy.set("cut")
    with shipping_to(tmp_path, weed, place, proxy) as shipping:
        shipping.wait_for_log("cannot deliver: ")
        assert markers(tmp_path / "data") == set()
        proxy.set("pass")
        shipping.wait_for_markers(made)
        shipping.wait_for_log("delivers again")
    assert_delivered(weed.objects(place), made)


def test_once_does_not_wait_for_ever_and_says_that_not_all_is_there(
    tmp_path: Path, weed: Weed, place: str, proxy: Proxy
) -> None:
    made = stock(tmp_path / "data", 3)
    proxy.set("cut")
    shipping = shipping_to(tmp_path, weed, place, proxy, "--once")
    assert shipping.once() == 1
    assert "behind: 3 segments" in shipping.log
    proxy.set("pass")
    assert shipping.once() == 0
    assert_delivered(weed.objects(place), made)


@pytest.mark.parametrize("seed", range(3))
async def test_a_network_that_is_cut_anywhere_again_and_again(
    seed: int, tmp_path: Path, weed: Weed, place: str, proxy: Proxy, started: Callable[[float], Shipper]
) -> None:
    rng = Random(seed)
    # Every third goes in parts, for it is larger than a megabyte.
    made: dict[str, bytes] = {}
    for number in range(9):
        size = 700_000 if number % 3 == 0 else rng.choice((100, 10_000, 100_000))
        made |= stock(tmp_path / "data", 1, first=number, seed=number, event_bytes=size)
    cuts = 0
    while not await started(20).run_once():
        cuts += 1
        assert cuts < 300, "it makes no progress"
        proxy.cut_after = rng.randrange(1, 1_500_000) if cuts < 20 else None
    assert_delivered(weed.objects(place), made)
    assert markers(tmp_path / "data") == made.keys()


@pytest.mark.parametrize("seed", range(2))
async def test_answers_that_are_lost_double_nothing(
    seed: int, tmp_path: Path, weed: Weed, place: str, proxy: Proxy, started: Callable[[float], Shipper]
) -> None:
    made = stock(tmp_path / "data", 4, seed=seed)
    proxy.set("deaf")
    shipper = started(0.5)
    assert not await shipper.run_once()
    assert "has not answered in time" in shipper.problem
    assert markers(tmp_path / "data") == set()
    # What nobody has confirmed is there.
    assert weed.objects(place)
    proxy.set("cut")
    proxy.set("pass")
    shipper = started(20)
    assert await shipper.run_once()
    assert shipper.tally.segments_found > 0
    assert_delivered(weed.objects(place), made)


def test_a_network_that_stalls_is_given_up_and_tried_again(
    tmp_path: Path, weed: Weed, place: str, proxy: Proxy
) -> None:
    made = stock(tmp_path / "data", 3)
    proxy.set("stall")
    with shipping_to(tmp_path, weed, place, proxy, ship_timeout_s=1) as shipping:
        shipping.wait_for_log("it has not answered in time: see ship_timeout_s")
        proxy.set("pass")
        shipping.wait_for_markers(made)
    assert_delivered(weed.objects(place), made)


def test_a_stop_does_not_wait_for_a_network_that_stalls(
    tmp_path: Path, weed: Weed, place: str, proxy: Proxy
) -> None:
    made = stock(tmp_path / "data", 3)
    proxy.set("stall")
    with shipping_to(tmp_path, weed, place, proxy) as shipping:
        wait_until(lambda: proxy.connections > 0, "it is on its way")
    assert "behind: 3 segments" in shipping.log
    proxy.set("cut")
    proxy.set("pass")
    assert shipping_to(tmp_path, weed, place, proxy, "--once").once() == 0
    assert_delivered(weed.objects(place), made)


def test_credentials_that_are_wrong_and_then_right(tmp_path: Path, weed: Weed, place: str) -> None:
    made = stock(tmp_path / "data", 3)
    wrong = weed.environ() | {"AWS_ACCESS_KEY_ID": "nobody"}
    with Shipping(tmp_path, f"s3://{place}", environ=wrong) as shipping:
        shipping.wait_for_log("the store does not know the access key: see AWS_ACCESS_KEY_ID")
    assert markers(tmp_path / "data") == set()
    with Shipping(tmp_path, f"s3://{place}", environ=weed.environ()) as shipping:
        shipping.wait_for_markers(made)
    assert_delivered(weed.objects(place), made)


def test_kill_9_at_any_moment(tmp_path: Path, weed: Weed, place: str, proxy: Proxy) -> None:
    rng = Random(20261124)
    made = stock(tmp_path / "data", 4, event_bytes=20_000)
    shipping = shipping_to(tmp_path, weed, place, proxy, ship_bytes_per_s=20_000_000)
    for number in range(20):
        made |= stock(tmp_path / "data", 3, first=10 * (number + 1), seed=number, event_bytes=20_000)
        until, names = proxy.passed + rng.randrange(1, 200_000), set(made)

        def is_time(until: int = until, names: set[str] = names) -> bool:
            return proxy.passed >= until or markers(tmp_path / "data") >= names

        with shipping.start():
            wait_until(is_time, "it has sent so much")
            # Between a delivery and its marker there is less than a millisecond or two.
            time.sleep(rng.random() * 0.005)
            shipping.kill()
    shipping = shipping_to(tmp_path, weed, place, proxy, "--once")
    assert shipping.once() == 0, shipping.log
    assert_delivered(weed.objects(place), made)
    assert markers(tmp_path / "data") == made.keys()
    assert not list((tmp_path / "data").glob("shipped/*/.*"))


def test_two_processes_at_once(tmp_path: Path, weed: Weed, place: str) -> None:
    made = stock(tmp_path / "data", 60)
    both = [Shipping(tmp_path, f"s3://{place}", "--once", environ=weed.environ()) for _ in range(2)]
    for shipping in both:
        shipping.start()
    statuses = [shipping.wait() for shipping in both]
    assert statuses == [0, 0], [shipping.log for shipping in both]
    assert_delivered(weed.objects(place), made)
    assert markers(tmp_path / "data") == made.keys()


def test_a_store_that_is_full_is_waited_for(tmp_path: Path) -> None:
    made = stock(tmp_path / "data", 16, event_bytes=400_000)
    small = Weed(tmp_path / "weed", volumes=8, volume_mb=1)
    place = f"{BUCKET}/full"
    with small, Shipping(tmp_path, f"s3://{place}", environ=small.environ()) as shipping:
        shipping.wait_for_log("cannot deliver: it has answered 500 InternalError")
        delivered = markers(tmp_path / "data")
        assert delivered < made.keys()
        small.stop()
        small.volumes = 60
        small.start()
        shipping.wait_for_markers(made)
        assert_delivered(small.objects(place), made)


def test_a_disk_that_is_full_is_waited_for(tmp_path: Path) -> None:
    made = stock(tmp_path / "data", 6, event_bytes=400_000)
    target = tmp_path / "target"
    target.mkdir()
    mounted = subprocess.run(
        [tool("mount"), "-t", "tmpfs", "-o", "size=4m", "none", target], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no right to mount here; a store that is full is another test's")
    try:
        with Shipping(tmp_path, f"file://{target}") as shipping:
            shipping.wait_for_log("cannot deliver: the disk there is full: make room")
            assert markers(tmp_path / "data") < made.keys()
            subprocess.run([tool("mount"), "-o", "remount,size=64m", target], check=True)
            shipping.wait_for_markers(made)
        assert_delivered(files(target), made)
    finally:
        subprocess.run([tool("umount"), target], check=True)


def test_a_clock_that_is_wrong_is_told_of_and_one_that_steps_is_no_matter(
    tmp_path: Path, weed: Weed, place: str
) -> None:
    made = stock(tmp_path / "data", 3)
    clock = tmp_path / "clock"
    environ = weed.environ() | faked_clock(clock)
    clock.write_text("+10h")
    with Shipping(tmp_path, f"s3://{place}", environ=environ) as shipping:
        shipping.wait_for_log("the clocks of this machine and the store differ too much")
        clock.write_text("+0")
        shipping.wait_for_markers(made)
        for first, step in enumerate(("-4m", "+4m", "-2m", "+0"), 1):
            clock.write_text(step)
            made |= stock(tmp_path / "data", 2, first=10 * first)
            shipping.wait_for_markers(made)
    assert_delivered(weed.objects(place), made)


def test_a_segment_that_goes_while_it_is_sent_is_whole_or_not_there(
    tmp_path: Path, weed: Weed, place: str, proxy: Proxy
) -> None:
    made = stock(tmp_path / "data", 2, event_bytes=100_000)
    proxy.set("stall")
    with shipping_to(tmp_path, weed, place, proxy, ship_timeout_s=1) as shipping:
        wait_until(lambda: proxy.connections > 0, "one is on its way")
        gone = sorted((tmp_path / "data").rglob("*.ndjson.zst"))[0]
        os.unlink(gone)
        proxy.set("pass")
        name = gone.name.removesuffix(".ndjson.zst")
        shipping.wait_for_markers({other: b"" for other in made if other != name})
        wait_until(lambda: name in shipping.log or name in markers(tmp_path / "data"), "its fate is known")
    objects = weed.objects(place)
    assert_delivered(objects, made if len(objects) == 2 else {n: d for n, d in made.items() if n != name})
