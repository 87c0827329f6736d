"""A server with few open files, and what a stop leaves in the lock."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.messages import head, post
from tests.support.server import EVENT, Server, wait_until

FILES: Final = 120
CROWD: Final = 150


class Limited(Server):
    """A server that may have only so many open files."""

    BEFORE = ("sh", "-c", f'ulimit -n {FILES} && exec "$@"', "sh")


@pytest.mark.parametrize("is_open", [True, False], ids=["open segment", "new segment"])
def test_a_crowd_of_idle_connections_does_not_take_the_files_that_storage_needs(
    tmp_path: Path, is_open: bool
) -> None:
    with Limited(tmp_path) as server, server.raw() as older, ExitStack() as crowd:
        older.send(head("GET /healthz HTTP/1.1"))
        assert older.answer().status == 200
        if is_open:
            older.send(post(json.dumps(EVENT | {"messageId": "old"}).encode(), server.key))
            assert older.answer().status == 200
        idle = [crowd.enter_context(server.raw()) for _ in range(CROWD)]
        # Past the limit each is refused, or closed for want of a file: by now all that could be is taken.
        assert idle[-1].rest()[:12] in (b"HTTP/1.1 503", b"")
        older.send(post(json.dumps(EVENT | {"messageId": "new"}).encode(), server.key))
        assert older.answer().status == 200
        assert [event["messageId"] for event in server.events()] == ["old", "new"][not is_open :]
        assert f"the limit on open files is {FILES}" in server.log
        assert "Too many open files" not in server.log


def test_when_the_crowd_has_gone_new_connections_are_served(tmp_path: Path) -> None:
    with Limited(tmp_path) as server:
        with ExitStack() as crowd:
            idle = [crowd.enter_context(server.raw()) for _ in range(CROWD)]
            assert idle[-1].rest()[:12] in (b"HTTP/1.1 503", b"")

        def is_served() -> bool:
            with server.client() as client:
                return client.post("/v1/track", EVENT).status == 200

        wait_until(is_served, "a new connection is served")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_lock_names_the_process_while_it_runs_and_nobody_after_a_stop(
    tmp_path: Path, number: signal.Signals
) -> None:
    with Server(tmp_path) as server:
        lock = server.data_dir / "lock"
        assert int(lock.read_text()) == server.pid
        server.stop(number)
        assert lock.read_bytes() == b""
        server.start()
        assert int(lock.read_text()) == server.pid
