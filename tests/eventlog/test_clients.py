"""The two clients against what servers and settings can do to them: no false promise, no hang, no leak."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from ingestd.errors import UsageError
from ingestd.eventlog.address import address
from ingestd.eventlog.jetstream import JetStream
from ingestd.eventlog.kafka import Kafka, properties
from ingestd.eventlog.log import LogError, Message
from tests.support.nats_cluster import NatsCluster
from tests.support.server import run

NOBODY_NATS = address("nats://127.0.0.1:1/events", "--to")
NOBODY_KAFKA = address("kafka://127.0.0.1:1/events", "--to")
MAX = 1_000_000


def message(number: int) -> Message:
    return Message(b"{}", str(number), None, [])


@pytest.mark.parametrize(
    ("answer", "is_promise"),
    [
        (b'{"stream":"events","seq":7}', True),
        (b'{"stream":"events","seq":7,"duplicate":true}', True),
        # Of a repeat whose first is not agreed on yet, by old servers: it may be lost still.
        (b'{"stream":"events","seq":0,"duplicate":true}', False),
        (b'{"stream":"events"}', False),
        (b'{"seq":7}', False),
        (b'{"error":{"code":503,"err_code":10077,"description":"x"},"stream":"events","seq":7}', False),
        (b"+OK", False),
        (b"\xff", False),
        (b"", False),
    ],
)
def test_only_a_place_in_the_stream_is_an_acknowledgement(answer: bytes, is_promise: bool) -> None:
    log = JetStream(NOBODY_NATS, {}, MAX)
    try:
        log.put([message(0)])
        log._call(log._hear(SimpleNamespace(subject="_INBOX.x.0", headers=None, data=answer)))
        assert bool(log._unacked) is not is_promise
        log._call(log._hear(SimpleNamespace(subject="_INBOX.x.0", headers={"Status": "503"}, data=b"")))
        assert bool(log._unacked) is not is_promise
    finally:
        log.close()


def test_connections_that_fail_leave_no_socket_behind(tmp_path: Path) -> None:
    with NatsCluster(tmp_path / "nats", 1, user="shipper", password="right") as cluster:
        wrong = {"NATS_USER": "shipper", "NATS_PASSWORD": "wrong"}
        log = JetStream(address(f"nats://{cluster.address}/events", "--to"), wrong, MAX)
        try:
            with pytest.raises(LogError, match="does not take the credentials"):
                log.probe(2)
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(10):
                with pytest.raises(LogError):
                    log.probe(2)
            cluster.freeze(0)
            for _ in range(3):
                with pytest.raises(LogError):
                    log.probe(0.2)
            cluster.thaw(0)
            assert len(os.listdir("/proc/self/fd")) <= before + 1
        finally:
            log.close()


def test_servers_that_take_less_than_an_event_may_have_are_told_of_at_once(tmp_path: Path) -> None:
    with NatsCluster(tmp_path / "nats", 1, payload_bytes_max=100_000) as cluster:
        cluster.make_stream("events", ["events"], replicas=1)
        log = JetStream(address(f"nats://{cluster.address}/events", "--to"), {}, MAX)
        try:
            with pytest.raises(
                LogError, match="max_payload of the servers is 100000: lower message_bytes_max to that"
            ):
                log.probe(5)
        finally:
            log.close()


@pytest.mark.parametrize("name", ["NATS_CREDS", "NATS_NKEY", "NATS_CA"])
def test_a_file_of_credentials_that_is_not_there_is_told_of(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=name):
        JetStream(NOBODY_NATS, {name: str(tmp_path / "none")}, MAX)


@pytest.mark.parametrize("name", ["NATS_CREDS", "NATS_NKEY"])
def test_credentials_that_are_none_are_an_error_like_any_other(name: str, tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.write_text("secret-7b1f\n")
    with NatsCluster(tmp_path / "nats", 1, user="shipper", password="right") as cluster:
        log = JetStream(address(f"nats://{cluster.address}/events", "--to"), {name: str(path)}, MAX)
        try:
            with pytest.raises(LogError) as error:
                log.probe(2)
            assert "7b1f" not in str(error.value)
            log.put([message(0)])
            with pytest.raises(LogError):
                log.settle(0.5)
        finally:
            log.close()


def test_more_messages_than_a_client_holds_as_it_comes_do_not_hang_while_brokers_are_away() -> None:
    log = Kafka(NOBODY_KAFKA, {}, MAX)
    log.put([message(number) for number in range(110_000)])
    with pytest.raises(LogError):
        log.settle(0.2)
    log.forget()
    log.settle(5)


@pytest.mark.parametrize("name", ["throttle_cb", "default.topic.config", "queue.buffering.max.messages"])
def test_properties_that_would_change_how_it_works_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "kafka.properties"
    path.write_text(f"{name}=5\n")
    with pytest.raises(UsageError, match="is ingestd's to set"):
        properties(path)


def test_a_property_that_librdkafka_does_not_know_is_named() -> None:
    with pytest.raises(UsageError, match=r'No such configuration property: "no\.such"'):
        Kafka(NOBODY_KAFKA, {"no.such": "secret-7b1f"}, MAX)


@pytest.mark.parametrize(
    "connect", [lambda: JetStream(NOBODY_NATS, {}, MAX), lambda: Kafka(NOBODY_KAFKA, {}, MAX)]
)
def test_after_a_stop_nothing_is_taken_for_acknowledged(connect: Callable[[], JetStream | Kafka]) -> None:
    log = connect()
    log.put([message(0)])
    log.close()
    with pytest.raises(LogError, match="stopped"):
        log.put([message(1)])
    with pytest.raises(LogError):
        log.settle(0.1)


def test_a_setting_that_is_wrong_ends_the_start_in_one_line_before_there_is_a_key(tmp_path: Path) -> None:
    (tmp_path / "kafka.properties").write_text("no.such=x\n")
    config = tmp_path / "ingestd.toml"
    config.write_text(
        'listen = "127.0.0.1:0"\nack = "replicated"\nreplicate_to = "kafka://127.0.0.1:1/e"\n'
        'kafka_config_file = "kafka.properties"\n'
    )
    found = run("serve", "--config", config, cwd=tmp_path)
    assert found.returncode == 2
    assert len(found.stderr.splitlines()) == 1
    assert "kafka_config_file: No such configuration property" in found.stderr
    assert not (tmp_path / "data" / "keys.toml").exists()
