"""Starting, stopping and what happens around a running server, by real signals and files."""

from __future__ import annotations

import json
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.messages import head, post
from tests.support import hasty
from tests.support.server import EVENT, Server, clean_environ, run, wait_until
from tests.support.tools import tool

_BODY = json.dumps(EVENT | {"messageId": "in-flight"}).encode()


def _begin(server: Server) -> bytes:
    """The first part of a request; the server waits for the rest, which is `_BODY[5:]`."""
    return head("POST /v1/track HTTP/1.1", f"Content-Length: {len(_BODY)}", key=server.key) + _BODY[:5]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_answers_what_is_in_flight_commits_and_seals(tmp_path: Path, number: signal.Signals) -> None:
    with Server(tmp_path) as server, server.raw() as busy, server.raw() as idle:
        idle.send(post(json.dumps(EVENT | {"messageId": "before"}).encode(), server.key))
        assert idle.answer().status == 200
        busy.send(_begin(server))
        server.send(number)
        server.wait_for_log("drain: ")
        assert idle.rest() == b"", "an idle connection is closed"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((server.host, server.port))
        busy.send(_BODY[5:])
        answer = busy.answer()
        assert (answer.status, answer.headers["Connection"]) == (200, "close")
        assert busy.rest() == b""
        busy.close()
        assert server.wait() == 0
        assert len(server.segments()) == 1
        assert list(server.data_dir.glob("open/*")) == []
        assert [event["messageId"] for event in server.events()] == ["before", "in-flight"]


def test_a_second_signal_changes_nothing(tmp_path: Path) -> None:
    with Server(tmp_path) as server, server.raw() as busy:
        busy.send(_begin(server))
        server.send(signal.SIGTERM)
        server.wait_for_log("drain: ")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            server.send(number)
        busy.send(_BODY[5:])
        assert busy.answer().status == 200
        busy.close()
        assert server.wait() == 0
        assert server.log.count("stopping") == 1
        assert [event["messageId"] for event in server.events()] == ["in-flight"]


def test_a_request_that_never_ends_holds_the_stop_up_only_so_long(tmp_path: Path) -> None:
    with Server(tmp_path, drain_timeout_s=0.2) as server, server.raw() as busy:
        busy.send(_begin(server))
        server.send(signal.SIGTERM)
        assert server.wait() == 0
        assert server.events() == []


def test_readyz_says_draining_while_requests_in_flight_finish(tmp_path: Path) -> None:
    """Seen on a connection whose probe is already under way: new ones are not accepted."""
    with Server(tmp_path) as server, server.raw() as probing:
        probing.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\n")
        with server.raw() as other:
            other.send(head("GET /readyz HTTP/1.1"))
            assert other.answer().status == 200, "the probe before it has been read, too"
        server.send(signal.SIGTERM)
        server.wait_for_log("drain: ")
        probing.send(b"\r\n")
        answer = probing.answer()
        assert (answer.status, answer.json["detail"]) == (503, "draining")
        probing.close()
        assert server.wait() == 0


def test_a_signal_during_the_start_ends_it_in_order(tmp_path: Path) -> None:
    """Recovery of a left-over segment is under way or done when the signal comes; it is never torn."""
    server = Server(tmp_path)
    with server:
        with server.client() as client:
            assert client.post("/v1/track", EVENT | {"messageId": "a"}).status == 200
        server.kill()
        server.launch()
        wait_until(lambda: not list(server.data_dir.glob("open/*.open")), "recovery has begun")
        server.send(signal.SIGTERM)
        assert server.wait() == 0
        assert [event["messageId"] for event in server.events()] == ["a"]


def test_a_server_without_events_makes_no_segment(tmp_path: Path) -> None:
    with Server(tmp_path, segment_age_max_s=0.05) as server:
        server.restart()
    assert not (server.data_dir / "segments").exists()
    assert list(server.data_dir.glob("open/*")) == []


def test_a_second_server_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        done = run("serve", "--listen", "127.0.0.1:0", cwd=tmp_path)
        assert done.returncode == 2
        assert f"data is in use by process {server.pid}; stop that one or name another" in done.stderr
        with server.client() as client:
            assert client.post("/v1/track", EVENT).status == 200


def test_a_directory_is_free_again_after_kill_9(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        server.kill()
        server.start()
        assert "ing_" not in server.log, "a second key would be a surprise"


def test_a_revoked_key_stops_and_a_new_one_starts_while_the_server_runs(tmp_path: Path) -> None:
    with Server(tmp_path) as server, server.client() as client:
        assert client.post("/v1/track", EVENT).status == 200
        assert run("key", "revoke", "default", cwd=tmp_path).returncode == 0
        wait_until(lambda: client.post("/v1/track", EVENT).status == 401, "the revoked key is refused")
        key = run("key", "add", "shop", cwd=tmp_path).stdout.strip()
        wait_until(lambda: client.post("/v1/track", EVENT, key=key).status == 200, "the new key is taken")
        assert server.events()[-1]["source"] == "shop"


@pytest.mark.parametrize("broken", ["key = [broken", f"x = {'[' * 5000}", "key = 1"])
def test_a_broken_keys_file_leaves_the_old_keys_in_force(tmp_path: Path, broken: str) -> None:
    with Server(tmp_path) as server, server.client() as client:
        keys = server.data_dir / "keys.toml"
        good = keys.read_text()
        keys.write_text(broken)
        server.wait_for_log("keys not reloaded, the old ones stay")
        assert client.post("/v1/track", EVENT).status == 200
        keys.write_text(good + "\n")
        wait_until(lambda: server.log.count("keys loaded: 1") == 2, "the mended file is taken up")


def test_a_segment_is_sealed_by_age_while_the_server_runs(tmp_path: Path) -> None:
    with Server(tmp_path, segment_age_max_s=0.1) as server, server.client() as client:
        for message_id in ("a", "b"):
            assert client.post("/v1/track", EVENT | {"messageId": message_id}).status == 200
            wait_until(lambda: not list(server.data_dir.glob("open/*.open")), "the segment is sealed")
        paths = server.segments()
        lines = [
            subprocess.run([tool("zstd"), "-dc", p], capture_output=True, check=True).stdout for p in paths
        ]
        assert [json.loads(line)["messageId"] for line in lines] == ["a", "b"]


def test_a_segment_is_sealed_by_size_while_the_server_runs(tmp_path: Path) -> None:
    with Server(tmp_path, segment_bytes_max=1024) as server, server.client() as client:
        for number in range(40):
            assert client.post("/v1/track", EVENT | {"messageId": str(number)}).status == 200
        wait_until(lambda: len(server.segments()) > 1, "two segments are sealed")
        assert [event["messageId"] for event in server.events()] == [str(number) for number in range(40)]


def test_cat_f_shows_each_event_as_it_comes_and_across_segments(tmp_path: Path) -> None:
    with Server(tmp_path, segment_age_max_s=0.1) as server, server.client() as client:
        assert client.post("/v1/track", EVENT | {"messageId": "0"}).status == 200
        with subprocess.Popen(
            [sys.executable, "-m", "ingestd", "cat", "-f", "data"],
            cwd=tmp_path,
            env=clean_environ(),
            stdout=subprocess.PIPE,
        ) as following:
            assert following.stdout is not None
            try:
                for number in range(5):
                    ready, _, _ = select.select([following.stdout], [], [], 20)
                    assert ready, f"event {number} is not shown"
                    assert json.loads(following.stdout.readline())["messageId"] == str(number)
                    assert client.post("/v1/track", EVENT | {"messageId": str(number + 1)}).status == 200
            finally:
                following.kill()
    assert len(server.segments()) > 1


class Hasty(Server):
    """A server that is told to stop while it accepts."""

    BEFORE = ("sh", "-c", f'python=$1; shift 3; exec "$python" {hasty.__file__} "$@"', "sh")


def test_a_connection_that_was_accepted_in_the_moment_of_the_stop_is_heard(tmp_path: Path) -> None:
    with Hasty(tmp_path) as server:
        key = server.key
        (tmp_path / "stop").touch()
        with server.raw() as client:
            client.send(post(json.dumps(EVENT).encode(), key))
            assert client.answer().status == 200
            assert client.rest() == b""
        server.wait_for_log("the test: draining")
        (tmp_path / "stop").unlink()
        assert len(server.events()) == 1


def test_no_secret_is_in_the_log_or_on_the_disk(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        key = server.key
        server.restart()
        with server.client() as client:
            assert client.post("/v1/track", EVENT).status == 200
            assert client.post("/v1/track", b"{}").status == 400
            assert client.post("/v1/track", EVENT, key="ing_guessed").status == 401
    assert key not in server.log
    assert "ing_guessed" not in server.log
    for path in server.data_dir.rglob("*"):
        assert path.is_dir() or key.encode() not in path.read_bytes(), path
