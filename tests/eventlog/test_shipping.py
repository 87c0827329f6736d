"""`ingestd ship` to a log: a process, a real stream and librdkafka's brokers, nothing broken on purpose."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.eventlog.conftest import KINDS
from tests.support.kafka_cluster import KafkaCluster
from tests.support.logs import Log, kafka_log, lines_in_order
from tests.support.server import clean_environ, wait_until
from tests.support.shipping import Shipping, ask, markers, stock


@pytest.mark.parametrize("log", KINDS, indirect=True)
def test_all_events_are_there_in_order_after_once_and_a_second_time_sends_nothing(
    tmp_path: Path, log: Log
) -> None:
    made = stock(tmp_path / "data", 12)
    shipping = Shipping(tmp_path, log.url, "--once")
    assert shipping.once() == 0, shipping.log
    assert "12 segments delivered" in shipping.log
    assert log.values() == lines_in_order(tmp_path / "data")
    assert markers(tmp_path / "data") == made.keys()
    assert not list((tmp_path / "data").glob("shipped/*/*.cursor"))
    assert shipping.once() == 0
    assert " 0 segments delivered" in shipping.log
    assert len(log.values()) == 12 * 6


@pytest.mark.parametrize("log", KINDS, indirect=True)
def test_what_is_sealed_later_is_delivered_too_and_metrics_tell_of_it(tmp_path: Path, log: Log) -> None:
    stock(tmp_path / "data", 2)
    with Shipping(tmp_path, log.url, "--admin", f"unix:{tmp_path}/admin") as shipping:
        shipping.wait_for_log("metrics and probes on")
        made = stock(tmp_path / "data", 3, first=50)
        shipping.wait_for_markers(made)

        wait_until(lambda: "ingestd_ship_segments_total 5.0" in ask(tmp_path, "/metrics"), "all is counted")
        assert "ingestd_ship_events_total 30.0" in ask(tmp_path, "/metrics")
    assert sorted(log.values()) == sorted(lines_in_order(tmp_path / "data"))


@pytest.mark.parametrize("log", KINDS, indirect=True)
def test_headers_are_as_the_settings_say_and_have_the_message_id(tmp_path: Path, log: Log) -> None:
    stock(tmp_path / "data", 1)
    shipping = Shipping(tmp_path, log.url, "--once", message_headers="node=a b, x={x}, none={no}")
    assert shipping.once() == 0, shipping.log
    found = log.read()
    assert [headers.get("messageId") or headers.get("Nats-Msg-Id") for _, headers in found] == [
        f"0-{commit}-{event}" for commit in range(2) for event in range(3)
    ]
    assert all(headers["node"] == "a b" and not headers["none"] for _, headers in found)
    assert all(headers["x"].encode() in value for value, headers in found)


def test_a_key_of_the_settings_chooses_the_partition(
    tmp_path: Path, kafka_cluster: KafkaCluster, log_name: str
) -> None:
    stock(tmp_path / "data", 4)
    log = kafka_log(kafka_cluster, log_name, partitions=3)
    shipping = Shipping(tmp_path, log.url, "--once", message_key="of {messageId}")
    assert shipping.once() == 0, shipping.log
    found = kafka_cluster.messages(log_name)
    assert {partition for partition, *_ in found} == {0, 1, 2}
    assert all(key == b"of " + headers["messageId"] for _, key, _, headers in found)
    assert sorted(value or b"" for _, _, value, _ in found) == sorted(lines_in_order(tmp_path / "data"))


@pytest.mark.parametrize("log", KINDS, indirect=True)
def test_a_stop_in_the_middle_of_a_segment_goes_on_there(tmp_path: Path, log: Log) -> None:
    stock(tmp_path / "data", 1, event_bytes=30_000, commits=40)
    # The second megabyte is not sent before the first is paid off.
    with Shipping(tmp_path, log.url, ship_bytes_per_s=200_000):
        wait_until(
            lambda: list((tmp_path / "data").glob("shipped/*/*.cursor")) != [], "the cursor has moved", 60
        )
    (cursor,) = (tmp_path / "data").glob("shipped/*/*.cursor")
    assert 0 < int(cursor.read_text()) < 40
    shipping = Shipping(tmp_path, log.url, "--once")
    assert shipping.once() == 0, shipping.log
    assert not cursor.exists()
    assert log.values() == lines_in_order(tmp_path / "data")


@pytest.mark.parametrize("log", KINDS, indirect=True)
def test_an_event_that_is_too_large_holds_up_its_segment_only(tmp_path: Path, log: Log) -> None:
    stock(tmp_path / "data", 2)
    stock(tmp_path / "data", 1, first=2, event_bytes=80_000)
    made = stock(tmp_path / "data", 2, first=3)
    with Shipping(tmp_path, log.url, message_bytes_max=65_536) as shipping:
        shipping.wait_for_log("the event '2-0-0' makes a message of 80")
        shipping.wait_for_markers(made)
    assert "000002 is not delivered" in shipping.log
    assert {value.split(b'"')[3].split(b"-")[0] for value in log.values()} == {b"0", b"1", b"3", b"4"}
    shipping = Shipping(tmp_path, log.url, "--once")
    assert shipping.once() == 0, shipping.log
    assert sorted(log.values()) == sorted(lines_in_order(tmp_path / "data"))


@pytest.mark.parametrize("log", KINDS, indirect=True)
def test_one_damaged_segment_holds_up_no_other(tmp_path: Path, log: Log) -> None:
    stock(tmp_path / "data", 3)
    path = sorted((tmp_path / "data").rglob("*.ndjson.zst"))[1]
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    with Shipping(tmp_path, log.url) as shipping:
        shipping.wait_for_log("is damaged")
        wait_until(lambda: len(markers(tmp_path / "data")) == 2, "the others are there", 40)
    assert len(log.values()) == 12


@pytest.mark.parametrize("log", KINDS, indirect=True)
def test_a_second_shipper_to_the_same_log_is_refused(tmp_path: Path, log: Log) -> None:
    made = stock(tmp_path / "data", 1)
    with Shipping(tmp_path, log.url) as shipping:
        shipping.wait_for_markers(made)
        second = Shipping(tmp_path, log.url, "--once")
        assert second.once() == 2
        assert f"is in use by process {shipping.pid}" in second.log


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("kafka://host:9092/events", "Kafka needs more: pip install 'ingestd[kafka]'"),
        ("nats://host:4222/events", "NATS needs more: pip install 'ingestd[nats]'"),
    ],
)
def test_without_the_extra_a_line_says_what_to_install(tmp_path: Path, url: str, told: str) -> None:
    stock(tmp_path / "data", 1)
    program = (
        "import sys; sys.modules['confluent_kafka'] = sys.modules['nats'] = None; "
        "from ingestd.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, "ship", "--data-dir", str(tmp_path / "data"), "--to", url],
        env=clean_environ({}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 2
    assert told in found.stderr
    assert len(found.stderr.splitlines()) == 1
