"""Several workers under one supervisor: deaths, replacements and ends, under load and for real."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from tests.e2e.messages import post
from tests.support.server import EVENT, Raw, Server, run, wait_until


class Reachable(Protocol):
    """A server that runs somewhere."""

    @property
    def key(self) -> str:
        """A key that it knows."""

    def raw(self) -> Raw:
        """A new connection to it."""


class Senders:
    """Threads that send one event after the other, each on a new connection, until told to stop."""

    def __init__(self, server: Reachable, count: int = 4) -> None:
        self.acked: list[str] = []
        self.errors: list[str] = []
        self._server = server
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(count)]

    def _send(self, number: int) -> None:
        key, i = self._server.key, 0
        while not self._stopping.is_set():
            message_id = f"{number}-{i}"
            i += 1
            body = json.dumps(EVENT | {"messageId": message_id}).encode()
            try:
                with self._server.raw() as client:
                    client.send(post(body, key))
                    answer = client.answer()
            except (OSError, AssertionError) as e:
                self.errors.append(f"{message_id}: {e!r}")
                continue
            if answer.status == 200:
                self.acked.append(message_id)
            else:
                self.errors.append(f"{message_id}: {answer.status}")

    def __enter__(self) -> Senders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        """Until so many more have been acknowledged."""
        goal = len(self.acked) + more
        wait_until(lambda: len(self.acked) >= goal, f"{more} more events are acknowledged")


@contextmanager
def under_load(folder: Path, workers: int = 2) -> Iterator[tuple[Server, Senders]]:
    """Senders and a server; at the end every acknowledged event must be stored, once."""
    with Server(folder, workers=workers, segment_age_max_s=0.5) as server:
        with Senders(server) as senders:
            senders.wait_for(50)
            yield server, senders
            senders.wait_for(50)
        stored = [event["messageId"] for event in server.events()]
        assert len(stored) == len(set(stored))
        assert set(senders.acked) <= set(stored)
        server.stop()
        done = run("verify", "data", cwd=folder)
        assert done.returncode == 0, done.stdout


def test_both_workers_serve_and_each_has_its_own_segments(tmp_path: Path) -> None:
    with under_load(tmp_path) as (server, senders):
        assert len(server.worker_pids) == 2
        wait_until(
            lambda: all(list(server.data_dir.rglob(f"*-w{n}-*")) for n in range(2)), "both have stored events"
        )
        assert senders.errors == []


def kill_one(server: Server) -> None:
    """kill -9 of one worker, and wait until there is another in its place."""
    before = set(server.worker_pids)
    os.kill(min(before), signal.SIGKILL)
    wait_until(lambda: len(set(server.worker_pids) - before) == 1, "a new worker runs")


def test_a_worker_that_is_killed_is_back_and_what_waits_in_its_queue_is_served(tmp_path: Path) -> None:
    with under_load(tmp_path) as (server, senders):
        for _ in range(3):
            kill_one(server)
            senders.wait_for(50)
        assert "was ended by SIGKILL, the next one starts in" in server.log
        # Only what was in that worker's hands is cut off; nothing is refused.
        assert not [error for error in senders.errors if "Refused" in error]
        assert len(senders.errors) <= 3 * 4


def test_a_rolling_restart_refuses_and_resets_no_connection(tmp_path: Path) -> None:
    with under_load(tmp_path) as (server, senders):
        before = set(server.worker_pids)
        server.send(signal.SIGUSR2)
        wait_until(lambda: server.log.count("is replaced") == 2, "both are replaced")
        assert not before & set(server.worker_pids)
        senders.wait_for(200)
        assert senders.errors == []


def test_a_connection_that_has_asked_nothing_yet_may_still_ask_while_its_worker_ends(
    tmp_path: Path,
) -> None:
    with Server(tmp_path) as server, server.raw() as fresh:
        wait_until(lambda: fresh_is_accepted(server), "the connection is accepted")
        server.send(signal.SIGUSR2)
        server.wait_for_log("draining")
        fresh.send(post(json.dumps(EVENT).encode(), server.key))
        answer = fresh.answer()
        assert (answer.status, answer.headers["Connection"]) == (200, "close")
        server.wait_for_log("is replaced")


def fresh_is_accepted(server: Server) -> bool:
    """True if the worker holds a connection's socket beside the one that listens."""
    links = [os.readlink(fd) for fd in Path(f"/proc/{server.worker_pid}/fd").iterdir()]
    return len([link for link in links if link.startswith("socket:")]) > 1


def test_sigusr1_seals_now(tmp_path: Path) -> None:
    with Server(tmp_path) as server, server.client() as client:
        assert client.post("/v1/track", EVENT).status == 200
        assert server.segments() == []
        server.send(signal.SIGUSR1)
        wait_until(lambda: len(server.segments()) == 1, "the segment is sealed")


def test_when_the_supervisor_is_killed_its_workers_drain_and_let_go_of_the_data(tmp_path: Path) -> None:
    server = Server(tmp_path, workers=2)
    with server:
        with server.client() as client:
            assert client.post("/v1/track", EVENT).status == 200
        workers = server.worker_pids
        server.send(signal.SIGKILL)
        server.wait()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "the workers end")
        assert "the supervisor has ended: draining" in server.log
        assert len(server.segments()) == 1
        server.start()
        assert len(server.events()) == 1


def test_a_worker_that_keeps_dying_is_started_ever_more_slowly(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        for _ in range(4):
            wait_until(lambda: len(server.worker_pids) == 1, "a worker runs")
            os.kill(server.worker_pid, signal.SIGKILL)
            wait_until(lambda: not server.worker_pids, "it is gone")
        for delay in ("0.1", "0.2", "0.4", "0.8"):
            server.wait_for_log(f"the next one starts in {delay} s")
        server.stop()


def test_a_stop_while_a_worker_has_hardly_begun_is_a_stop_like_any_other(tmp_path: Path) -> None:
    server = Server(tmp_path, workers=2)
    server.launch()
    wait_until(lambda: len(server.worker_pids) == 2, "the workers have been started")
    server.stop()
    assert "ended" not in server.log


def test_with_one_that_cannot_start_the_server_ends_and_says_why(tmp_path: Path) -> None:
    server = Server(tmp_path, workers=2)
    with server:
        assert server.key
        server.stop()
        (server.data_dir / "keys.toml").write_text("[[key]\n")
        server.launch()
        assert server.wait() == 2
        assert "keys.toml" in server.log


def test_several_addresses_are_served_and_a_second_server_cannot_share_them(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Server(tmp_path, workers=2, listen=f"127.0.0.1:0, [::1]:0, unix:{path}") as server:
        assert "http://[::1]:" in server.log
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(post(json.dumps(EVENT).encode(), server.key))
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
        done = run("serve", "--data-dir", "other", "--listen", f"127.0.0.1:{server.port}", cwd=tmp_path)
        assert (done.returncode, "Address already in use" in done.stderr) == (2, True)
        server.stop()
        assert not path.exists()


@pytest.mark.parametrize("count", [1, 3])
def test_no_worker_inherits_what_is_not_its_own(tmp_path: Path, count: int) -> None:
    with Server(tmp_path, workers=count) as server:
        for pid in server.worker_pids:
            listening = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.name not in "012"]
            assert len([link for link in listening if link.startswith("socket:")]) <= 3
