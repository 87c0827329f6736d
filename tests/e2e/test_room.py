"""A disk that is nearly full, or stuck: events are refused in time, and taken again when it is better."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.e2e.messages import head, post
from tests.support import sticky
from tests.support.server import EVENT, Server, run, wait_until

MIB: Final = 1024 * 1024
MARGIN_BYTES: Final = 300 * MIB
"""Others use the same disk meanwhile."""


def status_of(server: Server, path: str) -> int:
    with server.client() as client:
        return client.request("GET", path).status


def test_a_nearly_full_disk_refuses_events_and_takes_them_again_without_a_restart(tmp_path: Path) -> None:
    reserve_bytes = shutil.disk_usage(tmp_path).free - MARGIN_BYTES
    with Server(tmp_path, disk_reserve_bytes=reserve_bytes) as server:
        with server.client() as client:
            assert client.post("/v1/track", EVENT | {"messageId": "before"}).status == 200
        ballast = tmp_path / "ballast"
        with ballast.open("wb") as f:
            f.write(bytes(2 * MARGIN_BYTES))
        wait_until(lambda: status_of(server, "/readyz") == 503, "/readyz is 503")
        with server.client() as client:
            answer = client.post("/v1/track", EVENT)
            assert (answer.status, answer.json["code"]) == (429, "disk_full")
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
            assert "disk_reserve_bytes" in answer.json["detail"]
        assert status_of(server, "/healthz") == 200
        ballast.unlink()
        wait_until(lambda: status_of(server, "/readyz") == 200, "/readyz is 200")
        with server.client() as client:
            assert client.post("/v1/track", EVENT | {"messageId": "after"}).status == 200
        assert [event["messageId"] for event in server.events()] == ["before", "after"]
        assert server.log.count("events get 429") == 1


def test_a_server_that_starts_without_room_says_so_and_takes_nothing(tmp_path: Path) -> None:
    with Server(tmp_path, disk_reserve_bytes=1 << 60) as server, server.client() as client:
        assert client.post("/v1/track", EVENT).status == 429
        assert "disk_reserve_bytes" in server.log


class Sticky(Server):
    """A server whose disk can be stuck."""

    BEFORE = ("sh", "-c", f'python=$1; shift 3; exec "$python" {sticky.__file__} "$@"', "sh")


def resident_bytes(pid: int) -> int:
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def test_a_stuck_disk_fills_the_ring_then_429_and_loses_nothing_when_it_moves_again(tmp_path: Path) -> None:
    big = EVENT | {"properties": {"text": "x" * 20_000}}
    ring_bytes_max = 1 * MIB
    with Sticky(tmp_path, ring_bytes_max=ring_bytes_max) as server, ExitStack() as crowd:
        key = server.key
        (tmp_path / "stuck").touch()
        clients = [crowd.enter_context(server.raw()) for _ in range(100)]
        for i, client in enumerate(clients):
            client.send(post(json.dumps(big | {"messageId": str(i)}).encode(), key))
        wait_until(lambda: status_of(server, "/readyz") == 503, "/readyz is 503")
        # The loop is free: it answers what needs no disk, and refuses what would wait without end.
        with server.raw() as other:
            other.send(head("GET /healthz HTTP/1.1"))
            assert other.answer().status == 200
        with server.raw() as other:
            other.send(head("GET /readyz HTTP/1.1"))
            assert "has not taken a commit" in other.answer().json["detail"]
        with server.client() as late:
            answer = late.post("/v1/track", big)
            assert (answer.status, answer.json["code"]) == (429, "overloaded")
            assert int(answer.headers["Retry-After"]) >= 1
        before = resident_bytes(server.worker_pid)
        for _ in range(300):
            with server.client() as late:
                assert late.post("/v1/track", big).status == 429
        assert resident_bytes(server.worker_pid) - before < 8 * MIB
        (tmp_path / "stuck").unlink()
        answers = [client.answer() for client in clients]
        kept = [str(i) for i, answer in enumerate(answers) if answer.status == 200]
        assert {answer.status for answer in answers} == {200, 429}
        assert len(kept) <= ring_bytes_max // 20_000
        assert sorted(event["messageId"] for event in server.events()) == sorted(kept)
        wait_until(lambda: status_of(server, "/readyz") == 200, "/readyz is 200")


# -- accounting -------------------------------------------------------------------------------

_SETTLED = re.compile(r"stopped: (\d+) events received = (\d+) stored \+ (\d+) refused \+ (\d+) failed")


def test_the_log_accounts_for_every_event_and_verify_finds_as_many(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        with server.client() as client:
            for count in (1, 10, 300):
                assert client.post("/v1/bulk-track", [EVENT] * count).status == 200
            assert client.post("/v1/bulk-track", [EVENT, {}]).status == 400
            assert client.post("/v1/track", EVENT).status == 200
        server.stop()
        match = _SETTLED.search(server.log)
        assert match is not None
        assert [int(count) for count in match.groups()] == [312, 312, 0, 0]
        assert "not accounted for" not in server.log
    done = run("verify", "data", cwd=tmp_path)
    assert (done.returncode, "312 events" in done.stdout) == (0, True)
