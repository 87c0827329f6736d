"""One cluster of NATS and one of Kafka's for all tests of logs; each has a stream or topic of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.support.kafka_cluster import KafkaCluster
from tests.support.logs import Log, kafka_log, nats_log
from tests.support.nats_cluster import NatsCluster

_numbers = itertools.count()


@pytest.fixture(scope="session")
def nats_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    """Three real nodes."""
    with NatsCluster(tmp_path_factory.mktemp("nats")) as running:
        yield running


@pytest.fixture(scope="session")
def kafka_cluster() -> Iterator[KafkaCluster]:
    """Three brokers of librdkafka's."""
    with KafkaCluster() as running:
        yield running


@pytest.fixture
def log_name() -> str:
    """A name for a stream or a topic that no other test has."""
    return f"test-{next(_numbers)}"


@pytest.fixture(autouse=True)
def whole(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test has broken is well again for the next one."""
    yield
    for name in {"nats_cluster", "kafka_cluster"} & set(request.fixturenames):
        request.getfixturevalue(name).restore()


KINDS = ("kafka", "nats")


@pytest.fixture
def log(request: pytest.FixtureRequest, log_name: str) -> Log:
    """An empty log of the kind that the test is told: one of KINDS."""
    if request.param == "kafka":
        return kafka_log(request.getfixturevalue("kafka_cluster"), log_name)
    return nats_log(request.getfixturevalue("nats_cluster"), log_name)
