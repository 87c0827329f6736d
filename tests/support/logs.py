"""The two kinds of log, told apart no further than tests must: where it is, and what is in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tests.support.kafka_cluster import KafkaCluster
from tests.support.nats_cluster import NatsCluster
from tests.support.shipping import sealed, values


@dataclass
class Log:
    """A topic or a stream of its own."""

    url: str
    read: Callable[[], list[tuple[bytes, dict[str, str]]]]
    """Values and headers of all messages, in order."""
    environ: Mapping[str, str] = field(default_factory=dict)

    def values(self) -> list[bytes]:
        """Of all messages, in order."""
        return [value for value, _ in self.read()]

    def message_ids(self) -> list[str]:
        """Of all messages, in order."""
        return [message_id(value) for value in self.values()]


def message_id(line: bytes) -> str:
    """Of one event."""
    return str(msgspec.json.decode(line)["messageId"])


def kafka_log(cluster: KafkaCluster, name: str, partitions: int = 1) -> Log:
    """A new topic."""
    cluster.make_topic(name, partitions)

    def read() -> list[tuple[bytes, dict[str, str]]]:
        return [
            (value or b"", {header: text.decode() for header, text in headers.items()})
            for _, _, value, headers in cluster.messages(name)
        ]

    return Log(f"kafka://{cluster.address}/{name}", read)


def nats_log(cluster: NatsCluster, name: str, replicas: int = 3) -> Log:
    """A new stream, with a subject of the same name."""
    cluster.make_stream(name, [name], replicas=replicas)

    def read() -> list[tuple[bytes, dict[str, str]]]:
        return [(payload, headers) for _, headers, payload in cluster.messages(name)]

    return Log(f"nats://{cluster.address}/{name}", read)


def lines_in_order(data_dir: Path) -> list[bytes]:
    """Every line of every sealed segment, in the order of segments and commits."""
    return [line for _, data in sorted(sealed(data_dir).items()) for line in values(data)]
