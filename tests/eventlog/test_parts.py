"""The clusters that the tests of logs use do what those tests rely on."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nats
import pytest
from confluent_kafka import KafkaError, Message, Producer
from nats.errors import Error, NoServersError
from nats.js.errors import APIError

from tests.support import certificates
from tests.support.kafka_cluster import DISCONNECT, NOT_ENOUGH_REPLICAS, REQUEST_TIMED_OUT, KafkaCluster
from tests.support.nats_cluster import UNAVAILABLE, NatsCluster
from tests.support.server import wait_until

_TRIES_S = 30.0


async def publish(
    cluster: NatsCluster, subject: str, payloads: Iterable[bytes], tls: ssl.SSLContext | None = None
) -> list[bool]:
    """Publish each, with its text as messageId, until it is acknowledged; tells which were duplicates."""

    async def silent(_: Exception) -> None:
        """Nodes are killed on purpose."""

    client = await nats.connect(
        [f"nats://127.0.0.1:{port}" for port in cluster.ports],
        user=cluster.user or None,
        password=cluster.password or None,
        tls=tls,
        connect_timeout=1,
        max_reconnect_attempts=1,
        error_cb=silent,
    )
    found = []
    end = time.monotonic() + _TRIES_S
    for payload in payloads:
        while True:
            try:
                headers = {"Nats-Msg-Id": payload.decode()}
                answer = await client.jetstream(timeout=1).publish(subject, payload, headers=headers)
            except (Error, TimeoutError) as error:
                refused = isinstance(error, APIError) and error.err_code != UNAVAILABLE
                if refused or time.monotonic() > end:
                    await client.close()
                    raise
                await asyncio.sleep(0.05)
            else:
                found.append(bool(answer.duplicate))
                break
    await client.close()
    return found


def payloads(cluster: NatsCluster, stream: str) -> list[bytes]:
    return [payload for _, _, payload in cluster.messages(stream)]


def test_a_stream_holds_what_was_published_in_its_order(nats_cluster: NatsCluster, log_name: str) -> None:
    nats_cluster.make_stream(log_name, [f"{log_name}.>"])
    assert nats_cluster.messages(log_name) == []
    # More than are fetched at once.
    sent = [b"%d" % number for number in range(1100)]
    assert asyncio.run(publish(nats_cluster, f"{log_name}.shop", sent)) == [False] * len(sent)
    found = nats_cluster.messages(log_name)
    assert found == [(f"{log_name}.shop", {"Nats-Msg-Id": payload.decode()}, payload) for payload in sent]


def test_a_message_id_that_comes_twice_is_stored_once(nats_cluster: NatsCluster, log_name: str) -> None:
    nats_cluster.make_stream(log_name, [log_name])
    assert asyncio.run(publish(nats_cluster, log_name, [b"a", b"b", b"a"])) == [False, False, True]
    assert payloads(nats_cluster, log_name) == [b"a", b"b"]


def test_a_stream_outlives_the_kill_of_the_node_that_leads_it(
    nats_cluster: NatsCluster, log_name: str
) -> None:
    nats_cluster.make_stream(log_name, [log_name])
    asyncio.run(publish(nats_cluster, log_name, [b"before"]))
    leader = nats_cluster.leader(log_name)
    nats_cluster.kill(leader)
    assert payloads(nats_cluster, log_name) == [b"before"]
    # What was there before is known to the new leader too.
    assert asyncio.run(publish(nats_cluster, log_name, [b"before", b"after"])) == [True, False]
    assert nats_cluster.leader(log_name) != leader
    nats_cluster.start(leader)
    assert payloads(nats_cluster, log_name) == [b"before", b"after"]


def test_a_frozen_leader_is_replaced(nats_cluster: NatsCluster, log_name: str) -> None:
    nats_cluster.make_stream(log_name, [log_name])
    leader = nats_cluster.leader(log_name)
    nats_cluster.freeze(leader)
    asyncio.run(publish(nats_cluster, log_name, [b"a"]))
    assert nats_cluster.leader(log_name) != leader
    nats_cluster.thaw(leader)
    assert payloads(nats_cluster, log_name) == [b"a"]


def test_all_nodes_come_back_with_what_they_had(nats_cluster: NatsCluster, log_name: str) -> None:
    nats_cluster.make_stream(log_name, [log_name])
    asyncio.run(publish(nats_cluster, log_name, [b"a"]))
    nats_cluster.stop_all()
    nats_cluster.restore()
    assert payloads(nats_cluster, log_name) == [b"a"]


def test_a_full_stream_refuses_what_is_new(tmp_path: Path) -> None:
    with NatsCluster(tmp_path / "nats", 1) as cluster:
        cluster.make_stream("small", ["small"], max_bytes=300)
        with pytest.raises(APIError, match="maximum bytes exceeded"):
            asyncio.run(publish(cluster, "small", [bytes([letter]) * 100 for letter in b"abcd"]))
        assert payloads(cluster, "small") == [b"a" * 100]
        cluster.delete_stream("small")
        with pytest.raises(APIError, match="stream not found"):
            cluster.messages("small")


def test_a_cluster_may_ask_for_a_password_and_speak_tls(tmp_path: Path) -> None:
    pair = certificates.make(tmp_path)
    context = ssl.create_default_context(cafile=pair.cert)
    with NatsCluster(tmp_path / "nats", 1, user="shipper", password="of the tests", tls=pair) as cluster:
        cluster.make_stream("one", ["one"])
        asyncio.run(publish(cluster, "one", [b"a"], context))
        assert payloads(cluster, "one") == [b"a"]
        cluster.password = "wrong"
        with pytest.raises(NoServersError):
            asyncio.run(publish(cluster, "one", [b"b"], context))


class Sender:
    """An idempotent producer as ingestd's own, with what became of each message."""

    def __init__(self, cluster: KafkaCluster, **settings: object) -> None:
        self.reports: list[KafkaError | None] = []
        self.producer = Producer(
            {
                "bootstrap.servers": cluster.address,
                "enable.idempotence": True,
                "acks": "all",
                "log_level": 0,
                **settings,
            }
        )

    def send(self, topic: str, value: bytes, key: bytes | None = None) -> None:
        """Hand over one message."""

        def report(error: KafkaError | None, _: Message) -> None:
            self.reports.append(error)

        headers: list[tuple[str, str | bytes | None]] = [("messageId", value)]
        self.producer.produce(topic, value, key, headers=headers, on_delivery=report)

    def flush(self) -> list[KafkaError | None]:
        """Wait until each message has its report; None is success."""
        assert self.producer.flush(20) == 0
        return self.reports


@contextmanager
def broker_down(cluster: KafkaCluster, broker: int) -> Iterator[None]:
    cluster.down(broker)
    yield
    cluster.up(broker)


def test_a_topic_holds_keys_values_and_headers(kafka_cluster: KafkaCluster, log_name: str) -> None:
    kafka_cluster.make_topic(log_name, 3)
    sender = Sender(kafka_cluster)
    sent = [(b"key-%d" % (number % 7), b"%d" % number) for number in range(300)]
    for key, value in sent:
        sender.send(log_name, value, key)
    assert sender.flush() == [None] * len(sent)
    found = kafka_cluster.messages(log_name)
    assert {partition for partition, *_ in found} == {0, 1, 2}
    assert all(headers == {"messageId": value} for _, _, value, headers in found)
    # Each key stands in one partition, in the order in which it was sent.
    assert len({(partition, key) for partition, key, *_ in found}) == 7
    for name in {key for key, _ in sent}:
        assert [value for _, key, value, _ in found if key == name] == [v for k, v in sent if k == name]


@pytest.mark.parametrize("error", [NOT_ENOUGH_REPLICAS, REQUEST_TIMED_OUT, DISCONNECT])
def test_a_produce_that_fails_is_sent_again_and_stored_once(
    error: int, kafka_cluster: KafkaCluster, log_name: str
) -> None:
    kafka_cluster.make_topic(log_name)
    sender = Sender(kafka_cluster)
    kafka_cluster.fail_produce(error, error)
    sender.send(log_name, b"a")
    sender.send(log_name, b"b")
    assert sender.flush() == [None, None]
    assert [value for _, _, value, _ in kafka_cluster.messages(log_name)] == [b"a", b"b"]


def test_a_broker_that_is_down_takes_messages_when_it_is_up(
    kafka_cluster: KafkaCluster, log_name: str
) -> None:
    kafka_cluster.make_topic(log_name)
    kafka_cluster.lead(log_name, 0, 1)
    sender = Sender(kafka_cluster)
    with broker_down(kafka_cluster, 1):
        sender.send(log_name, b"a")
        assert sender.producer.flush(0.5) == 1
    assert sender.flush() == [None]
    assert len(kafka_cluster.messages(log_name)) == 1


def test_a_message_that_may_wait_no_longer_fails(kafka_cluster: KafkaCluster, log_name: str) -> None:
    kafka_cluster.make_topic(log_name)
    sender = Sender(kafka_cluster, **{"message.timeout.ms": 300})
    kafka_cluster.down()
    sender.send(log_name, b"a")
    [error] = sender.flush()
    assert error is not None
    assert error.code() == KafkaError._MSG_TIMED_OUT
    kafka_cluster.up()
    assert kafka_cluster.messages(log_name) == []


def test_these_brokers_store_a_message_twice_whose_answer_is_lost(
    kafka_cluster: KafkaCluster, log_name: str
) -> None:
    """Real ones know an idempotent producer's sequence; a test must not blame ingestd for these."""
    kafka_cluster.make_topic(log_name)
    kafka_cluster.lead(log_name, 0, 1)
    sender = Sender(kafka_cluster)
    sender.send(log_name, b"first")
    assert sender.flush() == [None]
    kafka_cluster.slow(1, 600_000)
    before = kafka_cluster.produces()
    sender.send(log_name, b"second")
    wait_until(lambda: kafka_cluster.produces() > before, "the second has come")
    # They share what is stored; so it can be read while the answer is on its way.
    kafka_cluster.lead(log_name, 0, 2)
    assert len(kafka_cluster.messages(log_name)) == 2
    kafka_cluster.down(1)
    assert sender.flush() == [None, None]
    values = [value for _, _, value, _ in kafka_cluster.messages(log_name)]
    assert values == [b"first", b"second", b"second"]
