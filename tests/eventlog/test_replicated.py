"""`ack = replicated` end to end: a real server, a real stream or librdkafka's brokers, all of which fail."""

from __future__ import annotations

import shutil
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.eventlog.conftest import KINDS
from tests.support.kafka_cluster import KafkaCluster
from tests.support.logs import Log, kafka_log, lines_in_order, nats_log
from tests.support.nats_cluster import NatsCluster
from tests.support.scrape import scrape
from tests.support.server import EVENT, Client, Server, run, wait_until


def replicated(folder: Path, log: Log, **settings: str | int | float) -> Server:
    """A server whose 200 means that the log has it."""
    return Server(
        folder, ack="replicated", replicate_to=log.url, admin="127.0.0.1:0", replicate_timeout_s=2, **settings
    )


def events(*ids: str) -> list[object]:
    """One for each messageId."""
    return [EVENT | {"messageId": one} for one in ids]


def ready(server: Server) -> None:
    """Wait until it takes events."""
    with Client(*server.admin, "") as client:
        wait_until(lambda: client.request("GET", "/readyz").status == 200, "it is ready", 40)


@pytest.mark.parametrize("log", KINDS, indirect=True)
def test_a_200_says_that_the_log_has_it_and_so_it_is(tmp_path: Path, log: Log) -> None:
    with replicated(tmp_path, log) as server:
        ready(server)
        with server.client() as client:
            for number in range(20):
                answer = client.post("/v1/track", EVENT | {"messageId": f"one-{number}"})
                assert (answer.status, answer.headers["Ingest-Ack"]) == (200, "replicated")
                # Before anything else happens.
                if number == 0:
                    assert log.message_ids() == ["one-0"]
            answer = client.post("/v1/bulk-track", events(*(f"many-{n}" for n in range(500))))
            assert (answer.status, answer.headers["Ingest-Ack"]) == (200, "replicated")
        told = scrape(server)
        assert told["replication_seconds_count"] == 21
        assert told["fsync_seconds_count"] == 0
        assert told["log_away"] == 0
    assert log.values() == lines_in_order(server.data_dir)
    assert len(log.values()) == 520


def away(log: Log, request: pytest.FixtureRequest) -> NatsCluster | KafkaCluster:
    """Take the log away; `restore` of what is returned brings it back."""
    if log.url.startswith("kafka:"):
        kafka: KafkaCluster = request.getfixturevalue("kafka_cluster")
        kafka.down()
        return kafka
    nats: NatsCluster = request.getfixturevalue("nats_cluster")
    nats.stop_all()
    return nats


@pytest.mark.parametrize("log", KINDS, indirect=True)
def test_while_the_log_is_away_events_get_429_and_are_kept_nowhere(
    tmp_path: Path, log: Log, request: pytest.FixtureRequest
) -> None:
    with replicated(tmp_path, log) as server, server.client() as client, Client(*server.admin, "") as admin:
        ready(server)
        assert client.post("/v1/track", EVENT | {"messageId": "before"}).status == 200
        cluster = away(log, request)
        for number in range(3):
            answer = client.post("/v1/bulk-track", events(f"during-{number}"))
            assert (answer.status, answer.json["code"]) == (429, "log_unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
            assert answer.json["error"] == "Rate limit exceeded. Please retry later."
            client.close()
        answer = admin.request("GET", "/readyz")
        assert answer.status == 503
        assert answer.json["detail"].startswith("the log does not acknowledge")
        told = scrape(server)
        assert told["log_away"] == 1
        assert (told["events_refused_total"], told["events_failed_total"]) == (3, 0)
        cluster.restore()
        ready(server)

        def is_taken() -> bool:
            status = client.post("/v1/track", EVENT | {"messageId": "after"}).status
            client.close()
            return status == 200

        wait_until(is_taken, "events are taken again", 60)
        assert "the log does not acknowledge, events get 429: " in server.log
        assert "the log acknowledges" in server.log
    lines = lines_in_order(server.data_dir)
    assert [b'"before"' in lines[0], b'"after"' in lines[1], len(lines)] == [True, True, 2]
    # What was refused may have come there all the same: nobody was promised that it had not.
    assert {"before", "after"} <= set(log.message_ids()) <= {"before", "after", "during-0"}


@pytest.mark.parametrize("log", KINDS, indirect=True)
def test_by_setting_it_falls_back_to_fsync_and_says_so_everywhere(
    tmp_path: Path, log: Log, request: pytest.FixtureRequest
) -> None:
    with (
        replicated(tmp_path, log, replicate_fallback="fsync") as server,
        server.client() as client,
        Client(*server.admin, "") as admin,
    ):
        cluster = away(log, request)
        for _ in range(3):
            answer = client.post("/v1/track", EVENT)
            assert (answer.status, answer.headers["Ingest-Ack"]) == (200, "fsync")
        assert admin.request("GET", "/readyz").status == 200
        told = scrape(server)
        assert told["log_away"] == 1
        assert told["events_fallen_back_total"] == 3
        assert told["fsync_seconds_count"] == 3
        assert "the log does not acknowledge, events are kept with ack = fsync: " in server.log
        cluster.restore()

        def is_back() -> bool:
            return client.post("/v1/track", EVENT).headers["Ingest-Ack"] == "replicated"

        wait_until(is_back, "the log is there again", 60)
    assert lines_in_order(server.data_dir)[-1] == log.values()[-1]


def test_events_outlive_the_machine_and_a_node_of_the_log(
    tmp_path: Path, nats_cluster: NatsCluster, log_name: str
) -> None:
    log = nats_log(nats_cluster, log_name)
    acked = set[str]()
    server = replicated(tmp_path, log)
    with server, suppress(OSError, HTTPException):
        ready(server)
        leader = nats_cluster.leader(log_name)
        with server.client() as client:
            for number in range(200):
                if number == 100:
                    nats_cluster.kill(leader)
                ids = [f"{number}-{i}" for i in range(10)]
                while (answer := client.post("/v1/bulk-track", events(*ids))).status == 429:
                    client.close()
                assert answer.status == 200
                acked.update(ids)
        server.kill()
        shutil.rmtree(server.data_dir)
    nats_cluster.start(leader)
    assert len(acked) == 2000
    # Sent again after a 429, with the same ids: the stream has each once.
    assert sorted(log.message_ids()) == sorted(acked)


def test_a_log_that_is_slow_is_not_waited_for_without_end(
    tmp_path: Path, kafka_cluster: KafkaCluster, log_name: str
) -> None:
    log = kafka_log(kafka_cluster, log_name)
    with replicated(tmp_path, log) as server, server.client() as client:
        ready(server)
        assert client.post("/v1/track", EVENT).status == 200
        for broker in (1, 2, 3):
            kafka_cluster.slow(broker, 20_000)
        answer = client.post("/v1/track", EVENT)
        assert (answer.status, answer.json["code"]) == (429, "log_unavailable")
        client.close()
        kafka_cluster.restore()
        ready(server)

        def goes_on() -> bool:
            status = client.post("/v1/track", EVENT).status
            client.close()
            return status == 200

        wait_until(goes_on, "it goes on", 60)


@pytest.mark.parametrize("log", KINDS, indirect=True)
def test_an_event_that_the_log_would_not_take_is_refused_with_its_request_only(
    tmp_path: Path, log: Log
) -> None:
    with replicated(tmp_path, log, message_bytes_max=70_000) as server, server.client() as client:
        ready(server)
        large = EVENT | {"messageId": "large", "properties": {"text": "x" * 60_000}}
        answer = client.post("/v1/track", large)
        assert (answer.status, answer.json["code"]) == (413, "event_too_large")
        client.close()
        answer = client.post("/v1/bulk-track", [*events("a"), large])
        assert (answer.status, answer.json["code"]) == (413, "event_too_large")
        assert "'large'" in answer.json["detail"]
        client.close()
        # Many small ones may be more together.
        assert client.post("/v1/bulk-track", events(*map(str, range(500)))).status == 200
    assert sorted(log.message_ids()) == sorted(map(str, range(500)))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "ack = replicated needs replicate_to, such as kafka://HOST:PORT/TOPIC"),
        ("redis://x/y", "replicate_to: say kafka://"),
        ("nats://secret-7b1f@host/events", "replicate_to: nothing but the place belongs in a URL"),
        ("kafka://host:9092", "replicate_to: name a topic after the servers"),
    ],
)
def test_a_log_that_is_none_is_refused_at_the_start(tmp_path: Path, url: str, told: str) -> None:
    config = tmp_path / "ingestd.toml"
    config.write_text(f'ack = "replicated"\nreplicate_to = "{url}"\n')
    found = run("serve", "--config", config, cwd=tmp_path)
    assert found.returncode == 2
    assert told in found.stderr
    assert "7b1f" not in found.stderr
