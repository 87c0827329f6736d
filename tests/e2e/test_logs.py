"""The log of the real process: as JSON, under journald, and while nobody reads it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.messages import head, post
from tests.support.server import DEADLINE_S, EVENT, Client, Server, clean_environ, run, wait_until

BODY: Final = json.dumps(EVENT).encode()


class Journaled(Server):
    """A server whose stderr is what JOURNAL_STREAM says, as under systemd."""

    BEFORE = ("sh", "-c", 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"', "sh")


def add_key(folder: Path) -> str:
    return run("key", "add", "web", cwd=folder).stdout.strip()


def test_with_json_every_line_is_an_object_from_the_start_to_the_stop(tmp_path: Path) -> None:
    key = add_key(tmp_path)
    with Server(tmp_path, workers=2, log_format="json", request_log="true") as server:
        with server.raw() as client:
            client.send(post(BODY, key) + post(b"{}", key))
            assert [client.answer().status for _ in range(2)] == [200, 400]
        server.stop()
    lines = [json.loads(line) for line in server.log.splitlines()]
    assert {line["logger"] for line in lines} >= {"ingestd.supervisor", "ingestd.worker", "ingestd.request"}
    assert {line.get("worker") for line in lines} == {None, 0, 1}
    [answered] = [line for line in lines if line["message"] == "answered"]
    assert {"status": 200, "events": 1, "bytes": len(BODY), "key": "web"}.items() <= answered.items()
    [refused] = [line for line in lines if line["message"] == "refused"]
    assert {"level": "info", "status": 400, "code": "invalid_event"}.items() <= refused.items()
    assert re.fullmatch(r"127\.0\.0\.1:\d+", refused["peer"])


def test_text_has_a_time_and_journald_a_level_in_its_place(tmp_path: Path) -> None:
    add_key(tmp_path)
    with Server(tmp_path, workers=1) as server:
        pass
    assert re.search(r"^\d{4}-\S+Z INFO ingestd\.worker\[w0\]: keys loaded: 1$", server.log, re.MULTILINE)
    with Journaled(tmp_path, workers=1) as server:
        pass
    for line in server.log.splitlines():
        assert re.match(r"<[2-6]>[A-Z]+ ingestd\.\w+(\[w0\])?: ", line), line
    assert "<6>INFO ingestd.supervisor: SIGTERM: stopping" in server.log


@pytest.mark.parametrize("kind", ["journald", "json"])
def test_a_log_that_is_kept_gets_no_key(tmp_path: Path, kind: str) -> None:
    made = Journaled(tmp_path) if kind == "journald" else Server(tmp_path, log_format="json")
    with made as server:
        server.wait_for_log("'ingestd key add NAME' makes one")
        assert "ing_" not in server.log
        key = add_key(tmp_path)

        def is_served() -> bool:
            with Client(server.host, server.port, key) as client:
                return client.post("/v1/track", EVENT).status == 200

        wait_until(is_served, "the key that was added is taken")


def test_an_error_of_the_start_is_a_line_like_any_other(tmp_path: Path) -> None:
    for made, line in (
        (Journaled(tmp_path, listen="nowhere"), r"<3>ERROR ingestd: --listen nowhere: .*\n"),
        (Server(tmp_path, listen="nowhere"), r"ingestd: --listen nowhere: .*\n"),
    ):
        made.launch()
        assert made.wait() == 2
        assert re.fullmatch(line, made.log)
    made = Server(tmp_path, listen="nowhere", log_format="json")
    made.launch()
    assert made.wait() == 2
    assert json.loads(made.log)["message"].startswith("--listen nowhere: ")


def test_only_the_level_that_is_asked_for_is_logged(tmp_path: Path) -> None:
    key = add_key(tmp_path)
    server = Server(tmp_path, log_level="error", listen=f"unix:{tmp_path}/socket")
    server.launch()
    wait_until(lambda: ask(tmp_path / "socket", post(b"{}", key)).startswith(b"HTTP/1.1 400"), "it serves")
    server.stop()
    assert [line for line in server.log.splitlines() if "connections_max" not in line] == []


def ask(path: Path, request: bytes) -> bytes:
    """What is answered on a unix socket; nothing if nobody listens there yet."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE_S)
        try:
            client.connect(str(path))
        except OSError:
            return b""
        client.sendall(request)
        return client.recv(10_000)


def test_neither_keys_nor_events_are_in_the_log_of_the_real_process(tmp_path: Path) -> None:
    key = add_key(tmp_path)
    event = json.dumps(EVENT | {"event": "canary-event", "canary-name": "canary-value"}).encode()
    requests = [
        post(event, key, "/v1/track?canary-query"),
        post(event[:-1], key),
        post(event, "canary-key"),
        head("GET /canary-path HTTP/1.1", "X-Canary: canary-header", key=key),
        b"CANARY /canary-target HTTP/1.1\r\n\r\n",
        post(event.replace(b"2025", b"canary-year"), key),
    ]
    with Server(tmp_path, request_log="true") as server:
        for request in requests:
            with server.raw() as client:
                client.send(request)
                client.answer()
        wait_until(lambda: server.log.count("status=") == len(requests), "all are logged")
        assert "canary" not in server.log.lower()
        assert key not in server.log


def test_a_log_that_nobody_reads_keeps_no_request_waiting(tmp_path: Path) -> None:
    key, path = add_key(tmp_path), tmp_path / "socket"
    settings = {
        "INGESTD_LISTEN": f"unix:{path}", "INGESTD_REQUEST_LOG": "true", "INGESTD_WORKERS": "1",
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "ingestd", "serve"],
        cwd=tmp_path,
        env=clean_environ(settings),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stderr is not None
            wait_until(lambda: ask(path, head("GET /healthz HTTP/1.1")), "it serves")
            # A pipe holds 64 KiB, and each line has more than 100 bytes.
            for _ in range(20):
                answers = b""
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(DEADLINE_S)
                    client.connect(str(path))
                    client.sendall(post(BODY, key) * 100)
                    while answers.count(b"HTTP/1.1 200") < 100:
                        answers += client.recv(1 << 20)
            log = process.stderr.read(100)
            assert log
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
            assert process.wait(DEADLINE_S) == 0
            assert (log + rest).count(b" answered ") == 2001
        finally:
            process.kill()
