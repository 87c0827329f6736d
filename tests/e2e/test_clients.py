"""Real clients, configured as docs/clients.md says and no more: every event is stored, exactly once."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.server import Server, clean_environ, run, wait_until
from tests.support.tools import ROOT, tool

pytestmark = pytest.mark.timeout(120)

PAGE: Final = (ROOT / "docs" / "clients.md").read_text()
NOT_RUN: Final = {"Fluent Bit", "Vector", "Logstash"}
BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def sections() -> dict[str, list[tuple[str, str]]]:
    """The fenced blocks below each heading: language and text."""
    parts = re.split(r"^## (.+)$", PAGE, flags=re.M)
    return {name: BLOCK.findall(text) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


SECTIONS: Final = sections()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), workers=2, request_log="true") as made:
        yield made


def blocks(server: Server, name: str, key: str | None = None) -> list[tuple[str, str]]:
    """The blocks of a section for this server."""
    address = f"127.0.0.1:{server.port}"
    return [
        (language, text.replace("127.0.0.1:8080", address).replace("ing_...", key or server.key))
        for language, text in SECTIONS[name]
    ]


def new_key(server: Server, name: str, *flags: str) -> str:
    """A key that all workers know."""
    made = run("key", "add", name, *flags, cwd=server.folder)
    assert made.returncode == 0, made.stderr
    known = len(run("key", "list", cwd=server.folder).stdout.splitlines())
    wait_until(lambda: server.log.count(f"keys loaded: {known}") == 2, "both workers know the new key")
    return made.stdout.strip()


def shell(script: str, server: Server, folder: Path, key: str | None = None) -> str:
    """Run lines of a shell; a command that fails ends it."""
    return command(["bash", "-euo", "pipefail", "-c", f"KEY={key or server.key}\n{script}"], folder)


def command(arguments: list[str | Path], folder: Path) -> str:
    # The tests' own scripts, such as locust's, are beside the interpreter.
    path = f"{Path(sys.executable).parent}:{clean_environ()['PATH']}"
    done = subprocess.run(
        arguments,
        cwd=folder,
        env=clean_environ({"PATH": path}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def stored(server: Server, event: str) -> list[dict[str, Any]]:
    """The events of this name, each with an id that no other has."""
    found = [one for one in server.events() if one["event"] == event]
    assert len({one["messageId"] for one in found}) == len(found)
    return found


def assert_stored(server: Server, event: str, ids: list[str]) -> None:
    assert sorted(one["messageId"] for one in stored(server, event)) == sorted(ids)


def test_every_section_is_run_or_says_that_it_is_not() -> None:
    tests = {name.removeprefix("test_").split("_")[0] for name in globals() if name.startswith("test_")}
    for name, found in SECTIONS.items():
        assert found, f"{name} has nothing to configure"
        assert (name in NOT_RUN) is not (name.lower().replace("-", "") in tests), name


def test_curl_sends_plain_gzipped_and_after_being_told_to_continue(server: Server, tmp_path: Path) -> None:
    tool("curl")
    (_, key), *rest = blocks(server, "curl")
    assert key == f"KEY={server.key}\n"
    outputs = [shell(text, server, tmp_path) for _, text in rest]
    assert outputs == [
        '{"status":"ok","messageId":"curl-1"}',
        '{"status":"ok","messageIds":["curl-2","curl-3","curl-4"]}',
    ]
    assert_stored(server, "curl", [f"curl-{n}" for n in range(1, 5)])


def python(server: Server, tmp_path: Path, name: str, key: str | None = None) -> None:
    """Run the only block of this section."""
    [(language, text)] = blocks(server, name, key)
    assert language == "python"
    command([sys.executable, "-W", "error", "-c", text], tmp_path)


def test_requests_sends_again_what_was_refused_for_the_moment(server: Server, tmp_path: Path) -> None:
    """Its key may take one batch a second, so the second and third are refused at first."""
    python(server, tmp_path, "requests", new_key(server, "slow", "--requests-per-s", "1"))
    assert_stored(server, "requests", [f"requests-{n}" for n in range(30)])
    assert re.search(r"status=429 .*key=slow", server.log)


def test_httpx_keeps_its_connection(server: Server, tmp_path: Path) -> None:
    python(server, tmp_path, "httpx")
    assert_stored(server, "httpx", [f"httpx-{n}" for n in range(10)])


def test_aiohttp_sends_deflated_chunks_over_many_connections(server: Server, tmp_path: Path) -> None:
    python(server, tmp_path, "aiohttp")
    assert_stored(server, "aiohttp", [f"aiohttp-{n}" for n in range(100)])


def test_node_fetches(server: Server, tmp_path: Path) -> None:
    [(_, text)] = blocks(server, "Node")
    (tmp_path / "send.mjs").write_text(text)
    command([tool("node"), "send.mjs"], tmp_path)
    assert_stored(server, "node", [f"node-{n}" for n in range(10)])


def assert_both_kinds(server: Server, prefix: str) -> None:
    """What one of Segment's SDKs has sent."""
    calls = {one["messageId"]: one for one in server.events() if one["messageId"].startswith(prefix)}
    assert sorted(calls) == [f"{prefix}{n}" for n in range(10)]
    assert [calls[f"{prefix}{n}"]["event"] for n in range(10)] == ["identify", *["segment"] * 9]
    assert calls[f"{prefix}0"]["traits"] == {"plan": "basic"}
    assert all(one["type"] in ("identify", "track") and one["originalTimestamp"] for one in calls.values())
    assert sum(one["messageId"] in calls for one in server.events()) == 10


@pytest.mark.parametrize("gzip", [True, False])
def test_segment_for_python_sends_batches(server: Server, tmp_path: Path, gzip: bool) -> None:
    (_, text), _, _ = blocks(server, "Segment")
    prefix = f"segment-{gzip}-"
    text = text.replace("gzip=True", f"gzip={gzip}").replace("segment-", prefix)
    command([sys.executable, "-c", text], tmp_path)
    assert_both_kinds(server, prefix)


def test_segment_for_node_sends_batches(server: Server, tmp_path: Path) -> None:
    _, (_, install), (_, text) = blocks(server, "Segment")
    tool("npm")
    shell(install, server, tmp_path)
    (tmp_path / "send.mjs").write_text(text)
    command([tool("node"), "send.mjs"], tmp_path)
    assert_both_kinds(server, "segment-node-")


def test_ab_keeps_connections_of_http_1_0(server: Server, tmp_path: Path) -> None:
    tool("ab")
    [(_, text)] = blocks(server, "ab")
    output = shell(text, server, tmp_path)
    counts = dict(re.findall(r"^(Complete|Failed|Keep-Alive) requests: +(\d+)$", output, re.M))
    assert counts == {"Complete": "1000", "Failed": "0", "Keep-Alive": "1000"}
    assert "Non-2xx" not in output
    assert len(stored(server, "ab")) == 1000


def test_wrk_sends_as_fast_as_it_can(server: Server, tmp_path: Path) -> None:
    tool("wrk")
    (_, script), (_, text) = blocks(server, "wrk")
    (tmp_path / "post.lua").write_text(script)
    output = shell(text, server, tmp_path)
    answered = re.search(r"(\d+) requests in", output)
    assert answered is not None
    assert "Non-2xx" not in output
    # Those that are on their way when it stops are stored, and not counted by it.
    assert int(answered[1]) <= len(stored(server, "wrk")) <= int(answered[1]) + 16
    assert int(answered[1]) > 100


def test_locust_swarms(server: Server, tmp_path: Path) -> None:
    (_, script), (_, text) = blocks(server, "Locust")
    (tmp_path / "locustfile.py").write_text(script)
    [seen] = json.loads(shell(f"{text.strip()} --json", server, tmp_path))
    assert seen["num_failures"] == 0
    # Those that are on their way when it stops are stored, and not counted by it.
    assert seen["num_requests"] <= len(stored(server, "locust")) <= seen["num_requests"] + 8
    assert seen["num_requests"] > 10


@contextmanager
def syslog_ng(config: str, folder: Path) -> Iterator[None]:
    """It runs in the foreground, with all its files in the folder, and is ended."""
    (folder / "syslog-ng.conf").write_text(config)
    process = subprocess.Popen(
        [
            tool("syslog-ng"), "--foreground", "--no-caps", "--stderr",
            *("--cfgfile", folder / "syslog-ng.conf", "--persist-file", folder / "persist"),
            *("--control", folder / "control", "--pidfile", folder / "pid"),
        ],
        cwd=folder,
    )  # fmt: skip
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_syslogng_sends_batches_and_sends_them_again_after_429(server: Server, tmp_path: Path) -> None:
    """Its key may take two hundred events a second, and messages come faster."""
    limited = new_key(server, "logs", "--events-per-s", "200")
    [(_, config)] = blocks(server, "syslog-ng", limited)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = config.replace("port(5514)", f"port({port})")
    config = config.replace("disk-buffer(", f'disk-buffer(dir("{tmp_path}") ')
    lines = [f"line {n}" for n in range(1000)]

    def arrived() -> list[str]:
        return sorted(event["properties"]["message"] for event in stored(server, "syslog"))

    with syslog_ng(config, tmp_path):
        wait_until(lambda: _connects(port), "syslog-ng listens")
        with socket.create_connection(("127.0.0.1", port)) as sender:
            sender.sendall("".join(f"<13>Oct 29 22:00:00 web app[1]: {line}\n" for line in lines).encode())
        wait_until(lambda: len(arrived()) >= len(lines), "all lines are stored", 60)
    assert arrived() == sorted(lines)
    assert re.search(r"status=429 .*key=logs", server.log)
    [first] = [event for event in stored(server, "syslog") if event["properties"]["message"] == "line 0"]
    assert first["properties"]["program"] == "app"


def _connects(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
