"""Kafka's protocol without Kafka: the mock cluster of librdkafka, made on confluent-kafka's own library.

Its brokers listen on 127.0.0.1, so any process can be their client. What they are not (librdkafka 2.16):
- Messages are kept in memory, 5 MiB of each partition; beyond, the oldest are dropped.
- A broker that is down leads what it led. One that is up needs no others for `acks=all`.
- Sequence numbers of idempotent producers are looked at in transactions only: a Produce whose answer is lost
  is stored twice, where a real broker would know it again.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

_PRODUCE: Final = 0
"""The ApiKey of a Produce request."""
_PRODUCER: Final = 0
"""rd_kafka_type_t."""
_READ_S: Final = 30.0
_ERROR_BYTES: Final = 512

NOT_ENOUGH_REPLICAS: Final = 19
REQUEST_TIMED_OUT: Final = 7
TOPIC_AUTHORIZATION_FAILED: Final = 29
DISCONNECT: Final = -195
"""RD_KAFKA_RESP_ERR__TRANSPORT: not of the protocol; the broker stores nothing and cuts the connection."""

Message = tuple[int, bytes | None, bytes | None, dict[str, bytes]]
"""Its partition, key, value and headers."""


def _library() -> ctypes.CDLL:
    """The library that confluent_kafka itself uses: two of them in a process would not know each other."""
    import confluent_kafka

    package = Path(confluent_kafka.__file__).parent
    found = sorted(package.parent.glob("confluent_kafka.libs/librdkafka*.so*"))
    # Without a bundled one (a build from source) it is in the process, under the names of the system's.
    library = ctypes.CDLL(str(found[0]) if found else "librdkafka.so.1")
    pointer, number, text = ctypes.c_void_p, ctypes.c_int32, ctypes.c_char_p
    # From rdkafka.h and rdkafka_mock.h.
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_conf_set": (ctypes.c_int, [pointer, text, text, text, ctypes.c_size_t]),
        "rd_kafka_new": (pointer, [ctypes.c_int, pointer, text, ctypes.c_size_t]),
        "rd_kafka_err2str": (text, [ctypes.c_int]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, ctypes.c_int]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_topic_create": (ctypes.c_int, [pointer, text, ctypes.c_int, ctypes.c_int]),
        "rd_kafka_mock_broker_set_down": (ctypes.c_int, [pointer, number]),
        "rd_kafka_mock_broker_set_up": (ctypes.c_int, [pointer, number]),
        "rd_kafka_mock_broker_set_rtt": (ctypes.c_int, [pointer, number, ctypes.c_int]),
        "rd_kafka_mock_partition_set_leader": (ctypes.c_int, [pointer, text, number, number]),
        "rd_kafka_mock_push_request_errors_array": (
            None,
            [pointer, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int)],
        ),
        "rd_kafka_mock_clear_request_errors": (None, [pointer, ctypes.c_int16]),
        "rd_kafka_mock_start_request_tracking": (None, [pointer]),
        "rd_kafka_mock_get_requests": (
            ctypes.POINTER(pointer),
            [pointer, ctypes.POINTER(ctypes.c_size_t)],
        ),
        "rd_kafka_mock_request_api_key": (ctypes.c_int16, [pointer]),
        "rd_kafka_mock_request_destroy_array": (None, [ctypes.POINTER(pointer), ctypes.c_size_t]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class _Brokers:
    """The mock cluster itself, in a process of its own: it takes calls that KafkaCluster passes on."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._library = _library()
        reason = ctypes.create_string_buffer(_ERROR_BYTES)
        config = self._library.rd_kafka_conf_new()
        # It would warn that it has no brokers to connect to.
        assert self._library.rd_kafka_conf_set(config, b"log_level", b"0", reason, len(reason)) == 0, (
            reason.value
        )
        handle = self._library.rd_kafka_new(_PRODUCER, config, reason, len(reason))
        assert handle, reason.value.decode()
        self._cluster = self._library.rd_kafka_mock_cluster_new(handle, count)
        assert self._cluster
        self._library.rd_kafka_mock_start_request_tracking(self._cluster)

    def address(self) -> str:
        """HOST:PORT of every broker, with commas between."""
        found = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster)
        assert isinstance(found, bytes)
        return found.decode()

    def make_topic(self, name: str, partitions: int) -> None:
        create = self._library.rd_kafka_mock_topic_create
        self._check(create(self._cluster, name.encode(), partitions, self._count))

    def lead(self, topic: str, partition: int, broker: int) -> None:
        set_leader = self._library.rd_kafka_mock_partition_set_leader
        self._check(set_leader(self._cluster, topic.encode(), partition, broker))

    def down(self, broker: int) -> None:
        self._check(self._library.rd_kafka_mock_broker_set_down(self._cluster, broker))

    def up(self, broker: int) -> None:
        self._check(self._library.rd_kafka_mock_broker_set_up(self._cluster, broker))

    def slow(self, broker: int, rtt_ms: int) -> None:
        self._check(self._library.rd_kafka_mock_broker_set_rtt(self._cluster, broker, rtt_ms))

    def fail_produce(self, *codes: int) -> None:
        push = self._library.rd_kafka_mock_push_request_errors_array
        push(self._cluster, _PRODUCE, len(codes), (ctypes.c_int * len(codes))(*codes))

    def produces(self) -> int:
        count = ctypes.c_size_t()
        requests = self._library.rd_kafka_mock_get_requests(self._cluster, ctypes.byref(count))
        api_key = self._library.rd_kafka_mock_request_api_key
        found = [int(api_key(requests[number])) for number in range(count.value)].count(_PRODUCE)
        self._library.rd_kafka_mock_request_destroy_array(requests, count)
        return found

    def restore(self) -> None:
        self._library.rd_kafka_mock_clear_request_errors(self._cluster, _PRODUCE)
        for broker in range(1, self._count + 1):
            self.slow(broker, 0)
        self.up(-1)

    def _check(self, code: int) -> None:
        assert code == 0, self._library.rd_kafka_err2str(code).decode()


class KafkaCluster:
    """So many brokers, numbered from 1; with `with`, their process never outlives the block.

    In a process of their own, for it can be ended: to destroy a cluster that was hurt may take for ever.
    """

    def __init__(self, brokers: int = 3) -> None:
        self.brokers = brokers
        self._process: subprocess.Popen[bytes] | None = None

    @cached_property
    def address(self) -> str:
        """HOST:PORT of every broker, with commas between."""
        return str(self._call("address"))

    def make_topic(self, name: str, partitions: int = 1) -> None:
        """Make a topic, on all brokers."""
        self._call("make_topic", name, partitions)

    def lead(self, topic: str, partition: int, broker: int) -> None:
        """Let a broker lead a partition; -1: nobody."""
        self._call("lead", topic, partition, broker)

    def down(self, broker: int = -1) -> None:
        """Cut a broker's connections and refuse new ones; -1: of all. It leads what it led."""
        self._call("down", broker)

    def up(self, broker: int = -1) -> None:
        """Let it be connected to again."""
        self._call("up", broker)

    def slow(self, broker: int, rtt_ms: int) -> None:
        """Let a broker answer so much later; it does at once what it is asked. 0: no longer."""
        self._call("slow", broker, rtt_ms)

    def fail_produce(self, *codes: int) -> None:
        """Refuse the next Produce requests, one for each code, and store nothing of them."""
        self._call("fail_produce", *codes)

    def produces(self) -> int:
        """How many Produce requests have come since the start."""
        return int(self._call("produces"))

    def restore(self) -> None:
        """All brokers are up and quick, and refuse nothing."""
        self._call("restore")

    def messages(self, topic: str) -> list[Message]:
        """All that a topic holds, partition by partition, each in its order; all brokers must be up."""
        from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

        consumer = Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": "tests",
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        found: list[Message] = []
        try:
            partitions = consumer.list_topics(topic, timeout=_READ_S).topics[topic].partitions
            for number in sorted(partitions):
                place = TopicPartition(topic, number, OFFSET_BEGINNING)
                low, high = consumer.get_watermark_offsets(place, timeout=_READ_S)
                assert low == 0, (
                    f"{topic}[{number}] has lost its first {low} messages: more than 5 MiB were sent"
                )
                consumer.assign([place])
                for offset in range(high):
                    message = consumer.poll(_READ_S)
                    assert message is not None, f"{topic}[{number}] has {offset} of {high} messages"
                    assert message.error() is None, message.error()
                    assert message.offset() == offset
                    headers: dict[str, Any] = dict(message.headers() or [])
                    found.append((number, message.key(), message.value(), headers))
        finally:
            consumer.close()
        return found

    def _call(self, name: str, *arguments: object) -> Any:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, *arguments]).encode() + b"\n")
        self._process.stdin.flush()
        found, error = json.loads(self._process.stdout.readline() or b'[null, "its process has ended"]')
        assert not error, error
        return found

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self.brokers)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.communicate()


def main(count: int) -> None:
    """Have the brokers, and do what standard input says until it ends: a JSON array a call."""
    brokers = _Brokers(count)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        answer: list[object] = [None, None]
        try:
            answer[0] = getattr(brokers, name)(*arguments)
        except AssertionError as e:
            answer[1] = str(e)
        print(json.dumps(answer), flush=True)
    # Without destroying it.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
