"""/metrics of the real server: it adds up to what was sent and to what is stored, whoever is asked."""

from __future__ import annotations

import gzip
import json
import os
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.messages import head, post
from tests.e2e.test_supervisor import Senders
from tests.support.requests import chunks
from tests.support.scrape import Scrape, ask, scrape
from tests.support.server import EVENT, Answer, Raw, Server, run, wait_until

SETTINGS: dict[str, Any] = {
    "workers": 2,
    "admin": "127.0.0.1:0",
    "segment_age_max_s": 3600,
    "body_bytes_max": 100_000,
}
LIMITED_EVENTS = 3


class Sent:
    """What several clients have sent and were answered, counted by the test itself."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lock = threading.Lock()
        self.received_bytes = 0
        self.connections = 0
        self.answers: Counter[tuple[str, str]] = Counter()
        self.codes: Counter[tuple[str]] = Counter()
        self.key_events: Counter[tuple[str]] = Counter()

    def send(self, route: str, key_name: str, *requests: tuple[bytes, int]) -> None:
        """These requests, of so many events each, on one connection; an error may only be the last."""
        with self._server.raw() as client:
            for data, events in requests:
                client.send(data)
                self._count(route, key_name, len(data), events, client.answer())
        with self._lock:
            self.connections += 1

    def _count(self, route: str, key_name: str, size: int, events: int, answer: Answer) -> None:
        with self._lock:
            self.received_bytes += size
            self.answers[route, str(answer.status)] += 1
            if answer.status == 200:
                self.key_events[key_name,] += events
            else:
                self.codes[answer.json["code"],] += 1

    @property
    def events(self) -> int:
        return sum(self.key_events.values())


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


def send_everything(sent: Sent, key: str, other: str, limited: str) -> None:
    """One client's mixture of what is right and of what is wrong."""
    one, many = encoded(EVENT), encoded([EVENT] * 20)
    track, bulk = "/v1/track", "/v1/bulk-track"
    packed = gzip.compress(many)
    gzipped = head(
        f"POST {bulk} HTTP/1.1", "Content-Encoding: gzip", f"Content-Length: {len(packed)}", key=other
    )
    chunked = head(f"POST {track} HTTP/1.1", "Transfer-Encoding: chunked", key=key)
    for _ in range(3):
        sent.send(track, "default", *[(post(one, key), 1)] * 30, (chunked + chunks(one), 1))
        sent.send(bulk, "other", (gzipped + packed, 20), (post(many, other, bulk), 20))
        sent.send(track, "default", (post(one, key), 1), (post(b'{"event":1}', key), 0))
        sent.send(bulk, "default", (post(b"[]", key, bulk), 0))
        sent.send(bulk, "default", (post(b"not json", key, bulk), 0))
        sent.send(track, "default", (head(f"POST {track} HTTP/1.1", "Content-Length: 5"), 0))
        sent.send(track, "default", (head(f"POST {track} HTTP/1.1", "Content-Length: 200000", key=key), 0))
        sent.send("other", "default", (head("GET /nothing HTTP/1.1"), 0))
        sent.send(track, "default", (head(f"GET {track} HTTP/1.1"), 0))
        sent.send("/healthz", "default", *[(head("GET /healthz HTTP/1.1"), 0)] * 2)
        sent.send(bulk, "limited", (post(encoded([EVENT] * LIMITED_EVENTS), limited, bulk), LIMITED_EVENTS))


def settled(server: Server, sent: Sent) -> Scrape:
    """What is shown when every worker has told all that it has counted."""
    found: list[Scrape] = []

    def is_all() -> bool:
        found.append(scrape(server))
        shown = found[-1].by("requests_total", "route", "status")
        return sum(shown.values()) >= sum(sent.answers.values())

    wait_until(is_all, "all workers have told")
    return found[-1]


def test_it_adds_up_to_what_was_sent_and_to_what_verify_finds(tmp_path: Path) -> None:
    with Server(tmp_path, **SETTINGS) as server:
        sent, keys = Sent(server), [server.key]
        limits = ("--events-per-s", "0.001", "--burst-s", str(LIMITED_EVENTS * 1000))
        for name, flags in (("other", ()), ("limited", limits)):
            keys.append(run("key", "add", name, *flags, "--data-dir", "data", cwd=tmp_path).stdout.strip())
        wait_until(lambda: server.log.count("keys loaded: 3") == 2, "both workers know the keys")
        clients = [threading.Thread(target=send_everything, args=(sent, *keys)) for _ in range(4)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert sent.answers["/v1/bulk-track", "429"] > 0
        seen = settled(server, sent)
        assert seen.by("requests_total", "route", "status") == sent.answers
        assert seen.by("refusals_total", "code") == sent.codes
        assert seen.by("key_events_total", "key") == sent.key_events
        assert seen["received_bytes_total"] == sent.received_bytes
        assert seen["connections_accepted_total"] == sent.connections
        assert seen["events_stored_total"] == seen["commit_events_sum"] == sent.events
        assert seen["events_received_total"] == seen["events_stored_total"] + seen["events_refused_total"]
        assert seen["events_failed_total"] == seen["commits_failed_total"] == 0
        assert seen["commit_seconds_count"] == seen["fsync_seconds_count"] == seen["commit_events_count"]
        assert 0 < seen["fsync_seconds_sum"] < seen["commit_seconds_sum"]
        verdict = json.loads(run("verify", "--json", "data", cwd=tmp_path).stdout)
        assert verdict["ok"]
        assert verdict["events"] == seen["events_stored_total"]
        assert verdict["commits"] == seen["commit_events_count"]
        assert verdict["content_bytes"] == seen["commit_bytes_sum"]
        assert verdict["stored_bytes"] == seen["stored_bytes_total"]
        server.send(signal.SIGUSR1)
        sealed = verdict["segments"]
        wait_until(lambda: scrape(server)["segments_sealed_total"] == sealed, "the segments are sealed")
        wait_until(lambda: scrape(server)["connections"] == 0, "no connection is open")
        assert not [key for key in keys if key in seen.text]


def test_counters_never_fall_when_a_worker_is_killed_and_it_is_seen_to_be_back(tmp_path: Path) -> None:
    with Server(tmp_path, workers=2, admin="127.0.0.1:0") as server, Senders(server) as senders:
        senders.wait_for(200)
        before = scrape(server).counts()
        for number in (1, 2):
            os.kill(min(server.worker_pids), signal.SIGKILL)
            last = [before]

            def restarted(number: int = number, last: list[dict[Any, float]] = last) -> bool:
                seen = scrape(server)
                now = seen.counts()
                assert [which for which, value in last[-1].items() if now[which] < value] == []
                last.append(now)
                return (
                    sum(seen.by("worker_restarts_total", "worker").values()) == number and seen["ready"] == 1
                )

            wait_until(restarted, "the worker has been restarted and serves")
            senders.wait_for(100)
            before = last[-1]
        final = scrape(server)
        recovered = final.by("recovery_files_total", "action")
        assert recovered["recovered",] + recovered["removed",] >= 1
        assert recovered["quarantined",] == 0


def test_a_rolling_restart_is_no_restart_and_loses_no_count(tmp_path: Path) -> None:
    with Server(tmp_path, **SETTINGS) as server:
        sent = Sent(server)
        for _ in range(20):
            sent.send("/v1/track", "default", (post(encoded(EVENT), server.key), 1))
        server.send(signal.SIGUSR2)
        wait_until(lambda: server.log.count("is replaced") == 2, "both workers are replaced")
        for _ in range(20):
            sent.send("/v1/track", "default", (post(encoded(EVENT), server.key), 1))
        seen = settled(server, sent)
        assert seen.by("requests_total", "route", "status") == sent.answers
        assert seen["events_stored_total"] == 40
        assert sum(seen.by("worker_restarts_total", "worker").values()) == 0


def test_whoever_answers_says_the_same_and_head_has_the_head_of_get(tmp_path: Path) -> None:
    with Server(tmp_path, **SETTINGS) as server:
        seen = {scrape(server).by("worker_up", "worker")["1",] for _ in range(20)}
        assert seen == {1}
        for path in ("/metrics", "/healthz", "/readyz"):
            got, headed = ask(server, path), ask(server, path, "HEAD")
            assert (got.status, headed.status, headed.body) == (200, 200, b"")
            for name in ("Content-Type", "Cache-Control"):
                assert got.headers[name] == headed.headers[name]
        assert ask(server, "/metrics").headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert ask(server, "/healthz").json == {"status": "ok"}


def test_the_admin_listener_takes_no_events_and_the_public_one_shows_no_metrics(tmp_path: Path) -> None:
    with Server(tmp_path, **SETTINGS) as server, server.client() as client:
        host, port = server.admin
        event = post(encoded(EVENT), server.key)
        for request, status in (
            (event, 404),
            (post(encoded([EVENT]), server.key, "/v1/bulk-track"), 404),
            (head("POST /metrics HTTP/1.1", "Content-Length: 0"), 405),
            (head("GET / HTTP/1.1"), 404),
            (b"nonsense\r\n\r\n", 400),
            (head("GET /metrics HTTP/1.1", *["X-Many: 1"] * 200), 431),
        ):
            with Raw(host, port) as raw:
                raw.send(request)
                answer = raw.answer()
                assert (answer.status, answer.headers["Connection"]) == (status, "close")
        assert client.request("GET", "/metrics").status == 404
        wait_until(lambda: scrape(server)["connections_accepted_total"] == 1, "only the client's is counted")
        assert scrape(server)["events_received_total"] == 0
        assert server.events() == []


def test_readyz_tells_for_all_workers_who_is_not_ready(tmp_path: Path) -> None:
    with Server(tmp_path, **SETTINGS) as server:
        assert ask(server, "/readyz").json == {"status": "ok"}
        stopped = min(server.worker_pids)
        os.kill(stopped, signal.SIGSTOP)
        try:
            wait_until(lambda: ask(server, "/readyz").status == 503, "/readyz misses a worker")
            answer = ask(server, "/readyz")
            assert answer.json["code"] == "not_ready"
            assert answer.json["detail"].startswith("not answering (worker ")
            seen = scrape(server)
            assert (seen["ready"], sum(seen.by("worker_ready", "worker").values())) == (0, 1)
            assert max(seen.by("worker_silence_seconds", "worker", "thread").values()) > 5
        finally:
            os.kill(stopped, signal.SIGCONT)
        wait_until(lambda: ask(server, "/readyz").status == 200, "/readyz finds it again")


def test_the_admin_listener_answers_while_the_server_drains(tmp_path: Path) -> None:
    with Server(tmp_path, **SETTINGS | {"workers": 1}) as server, server.raw() as slow:
        # A request that is not whole yet keeps the worker from ending.
        data = post(encoded(EVENT), server.key)
        slow.send(data[:-1])
        wait_until(lambda: scrape(server)["connections"] == 1, "its connection is open")
        server.send(signal.SIGTERM)
        wait_until(lambda: ask(server, "/readyz").status == 503, "it drains")
        assert "draining (worker 0)" in ask(server, "/readyz").json["detail"]
        assert scrape(server)["ready"] == 0
        slow.send(data[-1:])
        assert slow.answer().status == 200
        slow.close()
        assert server.wait() == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "tls:127.0.0.1:1", "127.0.0.1:1,127.0.0.1:2", "unix:"])
def test_a_bad_admin_address_is_named(tmp_path: Path, address: str) -> None:
    done = run("serve", "--listen", "127.0.0.1:0", "--admin", address, cwd=tmp_path)
    assert (done.returncode, f"--admin {address}: " in done.stderr) == (2, True), done.stderr


def test_it_may_listen_on_a_unix_socket_and_a_taken_port_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "admin.socket"
    with Server(tmp_path, admin=f"unix:{path}") as server:
        server.wait_for_log(f"metrics and probes on unix:{path}")
        done = run(
            "serve", "--data-dir", "b", "--listen", "127.0.0.1:0", "--admin", f"unix:{path}", cwd=tmp_path
        )
        assert (done.returncode, "--admin" in done.stderr) == (2, True)
        server.stop()
        assert not path.exists()
