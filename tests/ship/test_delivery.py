"""`ingestd ship` delivers each sealed segment once, byte for byte, to a folder and to S3."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import obstore
import pytest

from ingestd.ship.content import PART_BYTES
from ingestd.ship.store import at_once_bytes_max
from tests.support.server import clean_environ, wait_until
from tests.support.shipping import Shipping, ask, assert_delivered, files, markers, stock
from tests.support.weed import Weed


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

        wait_until(lambda: "ingestd_ship_behind_segments 0.0" in ask(tmp_path, "/metrics"), "all is counted")
        text = ask(tmp_path, "/metrics")
        assert "ingestd_ship_segments_total 3.0" in text
        assert f"ingestd_ship_bytes_total {float(sum(map(len, made.values())))}" in text
        assert "ingestd_ship_lag_seconds 0.0" in text
        assert ask(tmp_path, "/readyz") == '{"status":"ok"}'


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
        "extras = {'obstore', 'fsspec', 'confluent_kafka', 'nats'}; "
        "sys.exit('ingestd.ship' in sys.modules or any(name.split('.')[0] in extras for name in sys.modules))"
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


def test_a_terminal_sees_how_far_it_is(tmp_path: Path, target: Path) -> None:
    stock(tmp_path / "data", 3, event_bytes=100_000)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ingestd", "ship", "--data-dir", "data", "--to", f"file://{target}"]
    # So slow that it is seen on its way.
    environ = clean_environ({"INGESTD_SHIP_BYTES_PER_S": "200000"})
    with subprocess.Popen(
        command, cwd=tmp_path, env=environ, stdin=subprocess.DEVNULL, stderr=theirs
    ) as process:
        os.close(theirs)
        seen = b""
        while not re.search(rb"\[#*\.*\] +\d+%  0\.00 of 0\.00 GB", seen):
            seen += os.read(ours, 4096)
        process.terminate()
    os.close(ours)
    assert process.returncode == 0


def test_once_that_is_stopped_before_it_has_looked_is_no_success(tmp_path: Path, target: Path) -> None:
    stock(tmp_path / "data", 1)
    # What it does first takes longer than it may after a SIGTERM.
    program = (
        "import os, signal, sys, time\n"
        "from ingestd.ship import process\n"
        "process._STOP_S = 0.1\n"
        "process.rebuild = lambda *_: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(1) or 0\n"
        "from ingestd.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    to = ["--data-dir", str(tmp_path / "data"), "--to", f"file://{target}", "--dedup", "24h"]
    found = subprocess.run(
        [sys.executable, "-c", program, "ship", *to, "--once"], env=clean_environ(), timeout=60, check=False
    )
    assert found.returncode == 1
    assert files(target) == {}


def test_nobody_ships_beside_one_that_must_know_of_every_delivery(tmp_path: Path, target: Path) -> None:
    made = stock(tmp_path / "data", 1)
    with Shipping(tmp_path, f"file://{target}", "--dedup", "24h") as shipping:
        shipping.wait_for_markers(made)
        for flags in ((), ("--dedup", "1h")):
            second = Shipping(tmp_path, f"file://{target}", "--once", *flags)
            assert second.once() == 2
            assert f"is in use by process {shipping.pid}" in second.log
