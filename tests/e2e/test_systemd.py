"""What systemd hears of the server, when it feeds the watchdog, and the sockets that it takes over."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Final

import pytest

from tests.e2e.messages import post
from tests.e2e.test_room import Sticky
from tests.e2e.test_supervisor import Senders
from tests.support.manager import Manager
from tests.support.server import EVENT, Server, wait_until
from tests.support.tools import tool

WATCHDOG_USEC = 4_500_000
"""Short, and three looks of the least length."""
FED = "WATCHDOG=1"


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """A service manager that waits for its watchdog to be fed by what a test starts."""
    with Manager(str(tmp_path / "notify")) as listening:
        monkeypatch.setenv("NOTIFY_SOCKET", listening.address)
        monkeypatch.setenv("WATCHDOG_USEC", str(WATCHDOG_USEC))
        yield listening


def test_systemd_hears_of_the_start_a_reload_and_the_stop_in_their_order(
    tmp_path: Path, manager: Manager
) -> None:
    with Server(tmp_path, workers=2) as server:
        manager.wait_for_line("READY=1")
        assert manager.told[0] == "STATUS=Starting: 0 of 2 workers are ready"
        manager.wait_for_line("STATUS=Serving: 2 of 2 workers are ready")
        started_usec = time.monotonic_ns() // 1000
        server.send(signal.SIGHUP)
        manager.wait_for_line("RELOADING=1")
        name, _, usec = manager.told[-1].splitlines()[1].partition("=")
        assert (name, int(usec) >= started_usec) == ("MONOTONIC_USEC", True)
        manager.wait_for_line("READY=1")
        server.stop()
        manager.wait_for_line("STOPPING=1")
        manager.wait_for_status("Draining: ")
    manager.rest()
    states = [message for message in manager.told if not message.startswith(("STATUS=", FED))]
    assert [state.splitlines()[0] for state in states] == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


def test_an_abstract_address_is_understood_and_one_that_nobody_listens_at_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Manager(f"@ingestd-test-{os.getpid()}") as abstract:
        monkeypatch.setenv("NOTIFY_SOCKET", abstract.address)
        with Server(tmp_path) as server:
            abstract.wait_for_line("READY=1")
            server.stop()
            abstract.wait_for_line("STOPPING=1")
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
            server.start()
            server.wait_for_log("systemd has not been told READY=1")


def test_a_reload_is_over_when_every_worker_has_reloaded(tmp_path: Path, manager: Manager) -> None:
    with Server(tmp_path, workers=2) as server:
        manager.wait_for_status("Serving")
        slow = min(server.worker_pids)
        os.kill(slow, signal.SIGSTOP)
        server.send(signal.SIGHUP)
        manager.wait_for_line("RELOADING=1")
        wait_until(lambda: server.log.count("SIGHUP: reloading") == 1, "the other one has reloaded")
        manager.rest()
        assert manager.told[-1].startswith("RELOADING=1")
        os.kill(slow, signal.SIGCONT)
        manager.wait_for_line("READY=1")


def test_a_reload_does_not_wait_for_a_worker_that_is_gone(tmp_path: Path, manager: Manager) -> None:
    with Server(tmp_path) as server:
        manager.wait_for_status("Serving")
        os.kill(server.worker_pid, signal.SIGSTOP)
        server.send(signal.SIGHUP)
        manager.wait_for_line("RELOADING=1")
        os.kill(server.worker_pid, signal.SIGKILL)
        manager.wait_for_line("READY=1")


def test_the_watchdog_is_fed_while_all_is_well_even_with_nothing_to_do(
    tmp_path: Path, manager: Manager
) -> None:
    with Server(tmp_path, workers=2):
        for _ in range(3):
            manager.wait_for_line(FED)


def test_without_a_watchdog_or_with_that_of_another_process_nothing_is_fed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manager: Manager
) -> None:
    monkeypatch.setenv("WATCHDOG_PID", "1")
    with Server(tmp_path) as server:
        manager.wait_for_status("Serving")
        os.kill(server.worker_pid, signal.SIGKILL)
        manager.wait_for_status("0 of 1")
        manager.wait_for_status("1 of 1")
    manager.rest()
    assert FED not in manager.told


def test_a_worker_that_stands_still_starves_the_watchdog_until_it_goes_on(
    tmp_path: Path, manager: Manager
) -> None:
    with Server(tmp_path) as server:
        manager.wait_for_line(FED)
        os.kill(server.worker_pid, signal.SIGSTOP)
        first = manager.wait_for_status("worker 0 stands still for")
        at = len(manager.told)
        manager.wait_for(lambda message: message.startswith("STATUS=") and message != first, "another look")
        assert FED not in manager.told[at:]
        os.kill(server.worker_pid, signal.SIGCONT)
        manager.wait_for_line(FED)
        assert "the watchdog is not fed: worker 0 stands still" in server.log
        assert "is killed" not in server.log
        server.wait_for_log("the watchdog is fed again")


def test_a_stuck_flusher_starves_the_watchdog_though_the_loop_goes_on(
    tmp_path: Path, manager: Manager
) -> None:
    with Sticky(tmp_path) as server, server.raw() as client:
        key = server.key
        manager.wait_for_line(FED)
        (tmp_path / "stuck").touch()
        client.send(post(json.dumps(EVENT).encode(), key))
        first = manager.wait_for_status("worker 0 has a flusher that stands still for")
        at = len(manager.told)
        manager.wait_for(lambda message: message.startswith("STATUS=") and message != first, "another look")
        assert FED not in manager.told[at:]
        with server.client() as other:
            assert other.request("GET", "/healthz").status == 200
        (tmp_path / "stuck").unlink()
        manager.wait_for_line(FED)
        assert client.answer().status == 200


def test_one_of_several_that_stands_still_is_replaced_before_systemd_loses_its_patience(
    tmp_path: Path, manager: Manager
) -> None:
    with Server(tmp_path, workers=2) as server:
        manager.wait_for_line(FED)
        before = set(server.worker_pids)
        stuck = min(before)
        os.kill(stuck, signal.SIGSTOP)
        manager.wait_for_status("stands still")
        wait_until(lambda: len(set(server.worker_pids) - before) == 1, "another has taken its place")
        assert set(server.worker_pids) & before == before - {stuck}
        manager.wait_for_line(FED)
        server.wait_for_log("is killed, so that another takes its place")


class Activated(Server):
    """A server that systemd-socket-activate starts on sockets that the test, like systemd, keeps open."""

    def __init__(self, folder: Path, count: int = 1, **settings: str | int | float) -> None:
        super().__init__(folder, **settings)
        self._sockets = [socket.socket() for _ in range(count)]
        for one in self._sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.bind(("127.0.0.1", self.port))
            one.listen(1000)
            self.host, self.port = one.getsockname()
        self.inherited = tuple(one.fileno() for one in self._sockets)
        kept = [name for name in os.environ if name.startswith("PYTHON")]
        passed = [word for name in [*kept, *self._settings] for word in ("-E", name)]
        fds = map(str, self.inherited)
        self.BEFORE = (
            sys.executable,
            "-c",
            _HAND_OVER,
            ",".join(fds),
            tool("systemd-socket-activate"),
            *passed,
        )

    def launch(self) -> None:
        """Start it, and connect: it is the first connection that systemd-socket-activate waits for."""
        super().launch()
        with self.raw() as first:
            first.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert first.answer().status == 200

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self._sockets:
            one.close()
        super().__exit__(kind, error, trace)


_HAND_OVER: Final = """
import fcntl, os, sys
fds = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 1000) for fd in sys.argv[1].split(",")]
os.closerange(3, 1000)
for number, fd in enumerate(fds, 3):
    os.dup2(fd, number)
    os.close(fd)
os.environ.update(LISTEN_FDS=str(len(fds)), LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Puts the descriptors where sd_listen_fds(3) looks for them, and becomes the program that follows."""


@pytest.mark.parametrize("sockets", [1, 3])
def test_a_restart_on_handed_over_sockets_refuses_nobody(tmp_path: Path, sockets: int) -> None:
    with Activated(tmp_path, sockets, workers=2) as server:
        with Senders(server) as senders:
            senders.wait_for(50)
            for _ in range(2):
                server.restart()
                senders.wait_for(50)
        assert senders.errors == []
        assert {event["messageId"] for event in server.events()} == set(senders.acked)


@pytest.mark.parametrize(("sockets", "workers"), [(1, 2), (2, 2), (2, 3), (5, 2)])
def test_every_handed_over_socket_has_a_worker_and_every_worker_a_socket(
    tmp_path: Path, sockets: int, workers: int
) -> None:
    with Activated(tmp_path, sockets, workers=workers) as server:
        assert f"listens on http://127.0.0.1:{server.port}, data" in server.log
        inodes = [os.readlink(f"/proc/self/fd/{fd}") for fd in server.inherited]
        owned = []
        for pid in server.worker_pids:
            links = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()]
            owned.append([link for link in links if link in inodes])
        assert all(owned)
        assert set(chain(*owned)) == set(inodes)
        # None is shared but where there are too few.
        assert len(list(chain(*owned))) == max(sockets, workers)
