"""docs/fleet.md is true: its configurations of HAProxy and nginx are run before two real nodes."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final, Self

import pytest

from ingestd.config import Settings
from tests.support.balancer import PAGE, Balancer, Kind
from tests.support.senders import Senders, Session
from tests.support.server import EVENT, Server, clean_environ, run, wait_until
from tests.support.shipping import files, message_ids
from tests.support.tools import ROOT, tool

KINDS: Final[tuple[Kind, ...]] = ("haproxy", "nginx")
_SOME: Final = 300
"""Events after which a load is under way."""


class Fleet:
    """A balancer and two nodes that know the same key."""

    def __init__(self, kind: Kind, nodes: tuple[Server, Server], folder: Path) -> None:
        self.nodes = nodes
        self.key = nodes[0].key
        self.balancer = Balancer(kind, folder, [node.port for node in nodes])
        self.tls = self.balancer.pair.client()

    def session(self) -> Session:
        """A client of the balancer."""
        return Session(self.balancer.port, self.key, self.tls)

    def senders(self) -> Senders:
        """Clients of the balancer."""
        return Senders(self.balancer.port, self.key, self.tls)

    def drain(self) -> None:
        """Take node `a` out as the page says, and wait until it has nothing to answer."""
        if self.balancer.kind == "nginx":
            before = self.balancer.children
            self.balancer.write(down="a")
            self.balancer.reload()
            wait_until(lambda: not before & self.balancer.children, "the workers of before have ended")
            return
        take_out, look = re.findall(r"^(echo .*socat.*)$", PAGE, re.M)
        assert self._shell(take_out) == ""
        wait_until(lambda: self._shell(look) == "nodes,a,0", "node a has no session")

    def _shell(self, command: str) -> str:
        tool("socat")
        command = command.replace("/run/haproxy/admin.sock", str(self.balancer.admin))
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def stored(self) -> list[str]:
        """The ids of all events, on all nodes."""
        return [event["messageId"] for node in self.nodes for event in node.events()]


def node(folder: Path, keys: Path | None = None, **settings: Any) -> Server:
    """A node with a fixed port, so that it comes back on it; `keys` is the file of another one."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Server(folder, listen=f"127.0.0.1:{port}", **settings)
    if keys is not None:
        server.data_dir.mkdir()
        shutil.copy(keys, server.data_dir / "keys.toml")
    return server


class Mute:
    """A node that is ready, takes requests and closes each connection without a word."""

    def __init__(self) -> None:
        self.events = 0
        """Requests with an event that were read whole."""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as file:
                first = file.readline()
                length = int(http.client.parse_headers(file).get("Content-Length", "0"))
                body = file.read(length)
                if first.startswith(b"GET /readyz "):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                elif body:
                    self.events += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # close() alone would not wake the thread.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Which of the two."""
    tool(request.param)
    found: Kind = request.param
    return found


@pytest.fixture
def fleet(kind: Kind, tmp_path: Path) -> Iterator[Fleet]:
    """Two nodes, started, and the balancer before them."""
    with ExitStack() as stack:
        first = stack.enter_context(node(tmp_path / "a"))
        assert first.key
        second = stack.enter_context(node(tmp_path / "b", first.data_dir / "keys.toml"))
        made = Fleet(kind, (first, second), tmp_path)
        stack.enter_context(made.balancer)
        yield made


def test_the_program_takes_the_configuration_without_a_warning(kind: Kind, tmp_path: Path) -> None:
    done = Balancer(kind, tmp_path, [1, 2]).check()
    assert done.returncode == 0, done.stderr
    assert not re.search("warn", done.stdout + done.stderr, re.I), done.stderr


def test_both_nodes_get_their_share_and_every_event_is_stored_once(fleet: Fleet) -> None:
    with closing(fleet.session()) as session:
        for number in range(10):
            assert session.post("/v1/track", EVENT | {"messageId": f"{number}"}).status == 200
    assert [len(node.events()) for node in fleet.nodes] == [5, 5]
    assert sorted(fleet.stored()) == [str(number) for number in range(10)]


def test_what_ingestd_says_comes_through(fleet: Fleet) -> None:
    with closing(fleet.session()) as session:
        bulk = gzip.compress(json.dumps([EVENT] * 20_000).encode(), 1)
        answer = session.post("/v1/bulk-track", bulk, **{"Content-Encoding": "gzip"})
        assert answer.status == 200
        assert len(answer.json["messageIds"]) == 20_000
        assert answer.headers["Ingest-Ack"] == "fsync"
        assert answer.headers["Ingest-Receipt"]
        large = json.dumps([EVENT | {"properties": {"x": "y" * 9_000_000}}]).encode()
        assert session.post("/v1/bulk-track", large).status == 200
        refused = session.post("/v1/track", {"event": 1})
        assert refused.status == 400
        assert refused.json["code"] == "invalid_event"


def test_a_body_that_is_too_large_gets_413(fleet: Fleet) -> None:
    with closing(fleet.session()) as session:
        answer = session.post("/v1/bulk-track", b" " * (Settings().body_bytes_max + 1))
        assert answer.status == 413
        assert answer.json["error"] == "Payload exceeds maximum allowed size (10MB)."
        assert answer.json["code"] == "payload_too_large"
    assert fleet.stored() == []


def test_a_429_comes_through_with_its_retry_after(fleet: Fleet, tmp_path: Path) -> None:
    for server in fleet.nodes:
        limit = ("key", "limit", "default", "--requests-per-s", "1", "--data-dir", server.data_dir)
        assert run(*limit, cwd=tmp_path).returncode == 0
        server.restart()
    with closing(fleet.session()) as session:
        answers = [session.post("/v1/track", EVENT) for _ in range(6)]
    refused = [answer for answer in answers if answer.status != 200]
    assert refused
    assert all(answer.json["code"] == "rate_limited" for answer in refused)
    assert all(answer.status == 429 and int(answer.headers["Retry-After"]) >= 1 for answer in refused)


def test_a_node_that_is_drained_stops_without_an_error(fleet: Fleet) -> None:
    with fleet.senders() as senders:
        wait_until(lambda: len(senders.acknowledged) > _SOME, "the load is under way")
        fleet.drain()
        fleet.nodes[0].stop()
        before = len(senders.acknowledged)
        wait_until(lambda: len(senders.acknowledged) > before + _SOME, "the other node serves all")
    # A reload of nginx closes idle connections, which a client may be about to use: then it is not answered.
    answers = [failure for failure in senders.failures if not isinstance(failure, OSError)]
    assert (senders.failures if fleet.balancer.kind == "haproxy" else answers) == []
    assert sorted(fleet.stored()) == sorted(senders.acknowledged)


def test_a_node_that_is_killed_costs_no_event_that_was_acknowledged(fleet: Fleet) -> None:
    with fleet.senders() as senders:
        wait_until(lambda: len(senders.acknowledged) > _SOME, "the load is under way")
        fleet.nodes[0].kill()
        before = len(senders.acknowledged)
        wait_until(lambda: len(senders.acknowledged) > before + _SOME, "the other node serves all")
        fleet.nodes[0].start()
        opened = fleet.nodes[0].data_dir / "open"
        wait_until(lambda: list(opened.glob("*.open")), "the first node is given its share again")
    # What was in flight may be there, and twice, for it was sent again: it has the same messageId.
    assert senders.acknowledged <= set(fleet.stored()) <= senders.sent


def test_an_event_that_was_sent_and_not_answered_is_not_sent_to_another_node(
    kind: Kind, tmp_path: Path
) -> None:
    """It has no messageId, so nobody could tell that it is there twice."""
    with (
        node(tmp_path / "b") as other,
        Mute() as mute,
        Balancer(kind, tmp_path, [mute.port, other.port]) as balancer,
    ):
        answers = []
        for _ in range(6):
            # On a connection that was used before, HAProxy says as little as the node.
            with closing(Session(balancer.port, other.key, balancer.pair.client())) as session:
                answers.append(session.post("/v1/track", EVENT))
        lost = [answer for answer in answers if answer.status != 200]
        assert len(lost) == mute.events > 0
        assert len(other.events()) == len(answers) - len(lost) > 0
        assert all((answer.status, answer.json["code"]) == (500, "no_answer") for answer in lost)


def test_haproxy_leaves_out_a_node_that_is_not_ready_and_nginx_does_not(kind: Kind, tmp_path: Path) -> None:
    with (
        node(tmp_path / "b") as other,
        # It can never have as much room as it wants to keep.
        node(tmp_path / "a", other.data_dir / "keys.toml", disk_reserve_bytes=1 << 60) as full,
        Balancer(kind, tmp_path, [full.port, other.port]) as balancer,
        closing(Session(balancer.port, other.key, balancer.pair.client())) as session,
    ):
        if kind == "haproxy":
            wait_until(lambda: "Server nodes/a is DOWN" in balancer.log, "HAProxy has asked")
        statuses = [session.post("/v1/track", EVENT).status for _ in range(6)]
        assert set(statuses) == ({200} if kind == "haproxy" else {200, 429})
        assert len(other.events()) == statuses.count(200)


def test_what_a_lost_node_had_acknowledged_is_delivered_from_its_disk(tmp_path: Path) -> None:
    [block] = re.findall(r"^```sh\n(timeout .*?)```$", PAGE, re.M | re.S)
    target = tmp_path / "target"
    target.mkdir()
    with node(tmp_path / "a", workers=2) as lost:
        for number in range(12):
            # A connection each, so that both workers have some.
            with lost.client() as client:
                assert client.post("/v1/track", EVENT | {"messageId": f"{number}"}).status == 200
        lost.kill()
    opened = list(lost.data_dir.glob("open/*.open"))
    assert opened
    places = {
        "/mnt/a/ingestd": str(lost.data_dir),
        "/run/ingestd-recover.sock": str(tmp_path / "recover.sock"),
        "s3://my-bucket/events": f"file://{target}",
    }
    for place, own in places.items():
        assert place in block
        block = block.replace(f" {place}", f" {own}").replace(f":{place}", f":{own}")
    start, *rest = block.splitlines()
    # The page's `ingestd` is the one beside this Python.
    environ = clean_environ({"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"})
    with (tmp_path / "recovery").open("wb") as log:
        recovery = subprocess.Popen(["bash", "-c", f"exec {start}"], stderr=log, env=environ)
    wait_until(lambda: not any(path.exists() for path in opened), "what was open is sealed")
    # As if the 60 s were over: timeout hands it on.
    recovery.terminate()
    assert recovery.wait(60) == 0
    assert "recovered" in (tmp_path / "recovery").read_text()
    for command in rest:
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, check=False, env=environ
        )
        assert done.returncode == 0, done.stderr
    assert sorted(message_ids(files(target))) == sorted(str(number) for number in range(12))


def test_the_page_names_metrics_that_there_are() -> None:
    known = {
        name
        for page in ("metrics.md", "shipping.md")
        for name in re.findall(r"^\| `(ingestd_\w+)` \|", (ROOT / "docs" / page).read_text(), re.M)
    }
    named = set(re.findall(r"\bingestd_\w+", PAGE))
    assert named
    assert named <= known


def test_without_a_node_haproxy_says_429_and_nginx_500(fleet: Fleet) -> None:
    for server in fleet.nodes:
        server.kill()
    with closing(fleet.session()) as session:
        if fleet.balancer.kind == "haproxy":
            wait_until(lambda: "no server available" in fleet.balancer.log, "HAProxy has asked")
            answer = session.post("/v1/track", EVENT)
            assert (answer.status, answer.json["code"]) == (429, "no_node")
            assert answer.headers["Retry-After"] == "5"
        else:
            answer = session.post("/v1/track", EVENT)
            assert (answer.status, answer.json["code"]) == (500, "no_answer")


def test_haproxy_speaks_http_2_to_clients(tmp_path: Path) -> None:
    tool("haproxy")
    with (
        node(tmp_path / "a") as server,
        Balancer("haproxy", tmp_path, [server.port, server.port]) as balancer,
    ):
        (tmp_path / "event.json").write_text(json.dumps(EVENT))
        done = subprocess.run(
            [
                *(tool("curl"), "--silent", "--http2", "--cacert", str(balancer.pair.cert)),
                *("-H", f"Authorization: Bearer {server.key}", "--data-binary", "@event.json"),
                *("-w", " %{http_version}", f"https://localhost:{balancer.port}/v1/track"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert re.fullmatch(r'{"status":"ok","messageId":"[^"]+"} 2', done.stdout), done
