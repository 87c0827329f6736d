"""Shipping to a log while nodes, brokers, networks, processes and clocks fail: nothing lost, nothing doubled.

A stream of JetStream has each event once. So has Kafka while the shipper lives; what was on its way when it
was killed may be there twice, one after the other's whole.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from random import Random

import pytest

from tests.eventlog.conftest import KINDS
from tests.support.kafka_cluster import (
    DISCONNECT,
    NOT_ENOUGH_REPLICAS,
    REQUEST_TIMED_OUT,
    TOPIC_AUTHORIZATION_FAILED,
    KafkaCluster,
)
from tests.support.logs import Log, kafka_log, lines_in_order, message_id, nats_log
from tests.support.nats_cluster import NatsCluster
from tests.support.proxy import Proxy
from tests.support.server import EVENT, Server, wait_until
from tests.support.shipping import Shipping, markers, sealed, stock
from tests.support.tools import faked_clock


def test_the_node_that_leads_a_stream_is_killed_while_it_is_sent_to(
    tmp_path: Path, nats_cluster: NatsCluster, log_name: str
) -> None:
    log = nats_log(nats_cluster, log_name)
    made = stock(tmp_path / "data", 4, commits=2000)
    with Shipping(tmp_path, log.url, ship_timeout_s=30) as shipping:
        wait_until(lambda: len(markers(tmp_path / "data")) > 0 or shipping.has_ended, "some is there")
        leader = nats_cluster.leader(log_name)
        nats_cluster.kill(leader)
        made |= stock(tmp_path / "data", 2, first=10, commits=100)
        shipping.wait_for_markers(made)
        nats_cluster.start(leader)
    assert Counter(log.values()) == Counter(lines_in_order(tmp_path / "data"))


def test_a_leader_that_freezes_is_left_for_another(
    tmp_path: Path, nats_cluster: NatsCluster, log_name: str
) -> None:
    log = nats_log(nats_cluster, log_name)
    made = stock(tmp_path / "data", 2)
    with Shipping(tmp_path, log.url) as shipping:
        shipping.wait_for_markers(made)
        leader = nats_cluster.leader(log_name)
        nats_cluster.freeze(leader)
        made |= stock(tmp_path / "data", 3, first=10)
        shipping.wait_for_markers(made)
        nats_cluster.thaw(leader)
    assert Counter(log.values()) == Counter(lines_in_order(tmp_path / "data"))


def test_all_nodes_are_away_for_a_while(tmp_path: Path, nats_cluster: NatsCluster, log_name: str) -> None:
    log = nats_log(nats_cluster, log_name)
    nats_cluster.stop_all()
    made = stock(tmp_path / "data", 3)
    with Shipping(tmp_path, log.url, ship_timeout_s=0.5) as shipping:
        shipping.wait_for_log("cannot deliver: no server can be reached")
        nats_cluster.restore()
        shipping.wait_for_markers(made)
        assert "delivers again" in shipping.log
    assert log.values() == lines_in_order(tmp_path / "data")


def test_a_network_that_is_cut_again_and_again(
    tmp_path: Path, nats_cluster: NatsCluster, log_name: str
) -> None:
    rng = Random(20261124)
    log = nats_log(nats_cluster, log_name)
    made = stock(tmp_path / "data", 3, commits=1000)
    with Proxy(nats_cluster.ports[0]) as proxy:
        url = f"nats://127.0.0.1:{proxy.port}/{log_name}"
        with Shipping(tmp_path, url, ship_timeout_s=10) as shipping:
            for _ in range(10):
                until = proxy.passed + rng.randrange(1, 200_000)
                wait_until(
                    lambda until=until: proxy.passed >= until or markers(tmp_path / "data") >= made.keys(),  # type: ignore[misc]
                    "it has sent so much",
                )
                proxy.set("cut")
                proxy.set("pass")
            shipping.wait_for_markers(made)
    assert Counter(log.values()) == Counter(lines_in_order(tmp_path / "data"))


def test_a_stream_that_is_full_is_waited_for(tmp_path: Path) -> None:
    made = stock(tmp_path / "data", 6, event_bytes=400)
    with NatsCluster(tmp_path / "nats", 1) as cluster:
        cluster.make_stream("small", ["small"], max_bytes=8000)
        with Shipping(tmp_path, f"nats://{cluster.address}/small", ship_timeout_s=0.5) as shipping:
            shipping.wait_for_log("cannot deliver: the stream is full (maximum bytes exceeded)")
            # Another stream takes the rest.
            assert markers(tmp_path / "data") < made.keys()
            held = [payload for _, _, payload in cluster.messages("small")]
            cluster.delete_stream("small")
            cluster.make_stream("large", ["small"])
            shipping.wait_for_markers(made)
        held += [payload for _, _, payload in cluster.messages("large")]
        assert held == lines_in_order(tmp_path / "data")


def test_credentials_that_are_wrong_and_then_right(tmp_path: Path) -> None:
    made = stock(tmp_path / "data", 2)
    with NatsCluster(tmp_path / "nats", 1, user="shipper", password="of-the-tests") as cluster:
        cluster.make_stream("events", ["events"])
        url = f"nats://{cluster.address}/events"
        wrong = {"NATS_USER": "shipper", "NATS_PASSWORD": "wrong-7b1f"}
        with Shipping(tmp_path, url, environ=wrong, ship_timeout_s=0.5) as shipping:
            shipping.wait_for_log("cannot deliver: the server does not take the credentials: see NATS_CREDS")
        assert "wrong-7b1f" not in shipping.log
        assert markers(tmp_path / "data") == set()
        right = {"NATS_USER": "shipper", "NATS_PASSWORD": "of-the-tests"}
        with Shipping(tmp_path, url, environ=right) as shipping:
            shipping.wait_for_markers(made)
        assert "of-the-tests" not in shipping.log
        assert [payload for _, _, payload in cluster.messages("events")] == lines_in_order(tmp_path / "data")


@pytest.mark.parametrize("error", [NOT_ENOUGH_REPLICAS, REQUEST_TIMED_OUT, DISCONNECT])
def test_brokers_that_fail_again_and_again_double_nothing(
    error: int, tmp_path: Path, kafka_cluster: KafkaCluster, log_name: str
) -> None:
    log = kafka_log(kafka_cluster, log_name)
    made = stock(tmp_path / "data", 2)
    with Shipping(tmp_path, log.url) as shipping:
        shipping.wait_for_markers(made)
        for number in range(1, 3):
            kafka_cluster.fail_produce(error, error)
            made |= stock(tmp_path / "data", 2, first=10 * number)
            shipping.wait_for_markers(made)
    assert Counter(log.values()) == Counter(lines_in_order(tmp_path / "data"))


def test_brokers_that_are_away_for_a_while(
    tmp_path: Path, kafka_cluster: KafkaCluster, log_name: str
) -> None:
    log = kafka_log(kafka_cluster, log_name)
    kafka_cluster.down()
    made = stock(tmp_path / "data", 3)
    with Shipping(tmp_path, log.url, ship_timeout_s=1) as shipping:
        shipping.wait_for_log("cannot deliver: ")
        kafka_cluster.up()
        shipping.wait_for_markers(made)
        assert "delivers again" in shipping.log
    assert log.values() == lines_in_order(tmp_path / "data")


def test_a_topic_that_may_not_be_written_is_told_of_and_then_goes_on(
    tmp_path: Path, kafka_cluster: KafkaCluster, log_name: str
) -> None:
    log = kafka_log(kafka_cluster, log_name)
    kafka_cluster.fail_produce(TOPIC_AUTHORIZATION_FAILED)
    made = stock(tmp_path / "data", 3)
    with Shipping(tmp_path, log.url) as shipping:
        shipping.wait_for_log("cannot deliver: the credentials do not allow writing to the topic")
        shipping.wait_for_markers(made)
    assert Counter(log.values()) == Counter(lines_in_order(tmp_path / "data"))


@pytest.mark.parametrize("log", KINDS, indirect=True)
def test_kill_9_at_any_moment(tmp_path: Path, log: Log) -> None:
    rng = Random(20261124)
    made = stock(tmp_path / "data", 2, commits=200)
    for number in range(12):
        made |= stock(tmp_path / "data", 2, first=10 * (number + 1), commits=200)
        with Shipping(tmp_path, log.url, ship_bytes_per_s=400_000) as shipping:
            shipping.wait_for_log("delivers what is sealed")
            time.sleep(rng.random() * 0.3)
            shipping.kill()
    shipping = Shipping(tmp_path, log.url, "--once")
    assert shipping.once() == 0, shipping.log
    assert markers(tmp_path / "data") == made.keys()
    found, wanted = Counter(log.values()), Counter(lines_in_order(tmp_path / "data"))
    assert set(found) == set(wanted)
    if log.url.startswith("nats:"):
        assert found == wanted
    else:
        # Of each kill, what stood between the cursor and the end of what was sent.
        assert max(found.values()) <= 13


@pytest.mark.parametrize("log", KINDS, indirect=True)
def test_a_clock_that_steps_is_no_matter(tmp_path: Path, log: Log) -> None:
    made = stock(tmp_path / "data", 2)
    clock = tmp_path / "clock"
    environ = faked_clock(clock)
    clock.write_text("+0")
    # libfaketime does not do justice to how librdkafka's threads wait: with hours they stand still.
    steps = ("+10h", "-10h", "-1d", "+0") if log.url.startswith("nats:") else ("+3s", "-3s", "+0")
    with Shipping(tmp_path, log.url, environ=environ) as shipping:
        for first, step in enumerate(steps, 1):
            clock.write_text(step)
            made |= stock(tmp_path / "data", 2, first=10 * first)
            shipping.wait_for_markers(made)
    assert Counter(log.values()) == Counter(lines_in_order(tmp_path / "data"))


@pytest.mark.parametrize("seed", range(2))
def test_every_acknowledged_event_is_in_the_stream_once(
    seed: int, tmp_path: Path, nats_cluster: NatsCluster, log_name: str
) -> None:
    """A server, a shipper, retention and a cluster side by side, all of them killed now and then."""
    rng = Random(seed)
    log = nats_log(nats_cluster, log_name)
    acked, sent = set[str](), set[str]()
    # Retention looks when a worker starts: it deletes all that it may.
    server = Server(tmp_path, segment_age_max_s=0.2, segment_bytes_max=20_000, retain_age_s=0.01)
    shipping = Shipping(tmp_path, log.url)
    server.start()
    shipping.start().wait_for_log("delivers what is sealed")
    for round_number in range(4):
        killed = rng.randrange(3)
        nats_cluster.kill(killed)
        with suppress(OSError, HTTPException), server.client() as client:
            for number in range(rng.randrange(20, 60)):
                ids = [f"{round_number}-{number}-{i}" for i in range(20)]
                sent.update(ids)
                if client.post("/v1/bulk-track", [EVENT | {"messageId": one} for one in ids]).status == 200:
                    acked.update(ids)
        if rng.random() < 0.7:
            shipping.kill()
            shipping.start()
        if rng.random() < 0.5:
            server.kill()
        else:
            server.stop()
        nats_cluster.start(killed)
        server.start()
    server.stop()
    shipping.stop()
    last = Shipping(tmp_path, log.url, "--once")
    assert last.once() == 0, last.log
    assert markers(server.data_dir) >= sealed(server.data_dir).keys()
    found = Counter(map(message_id, log.values()))
    assert acked
    assert set(found) >= acked
    assert max(found.values()) == 1
    assert set(found) <= sent
