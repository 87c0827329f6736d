"""kill -9 under load: what was acknowledged is there exactly once, and nothing that was not sent."""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.support.server import EVENT, Server, run, wait_until

_CLIENTS = 4


class _Load:
    """Client threads that send events, each with an id of its own, until the server is gone."""

    def __init__(self, server: Server, round_number: int) -> None:
        self._server = server
        self._round = round_number
        self.acknowledged: list[list[str]] = [[] for _ in range(_CLIENTS)]
        self.sent: list[list[str]] = [[] for _ in range(_CLIENTS)]
        self.surprises: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(_CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        """Every second request is a bulk one, of 7 events."""
        with self._server.client() as client:
            for sequence in range(1_000_000):
                count = 7 if sequence % 2 else 1
                ids = [f"{self._round}-{number}-{sequence}-{i}" for i in range(count)]
                self.sent[number] += ids
                events = [EVENT | {"messageId": message_id} for message_id in ids]
                try:
                    if count == 1:
                        answer = client.post("/v1/track", events[0])
                    else:
                        answer = client.post("/v1/bulk-track", events)
                except (OSError, http.client.HTTPException):
                    return
                if answer.status != 200:
                    self.surprises.append(f"{answer.status} {answer.body!r}")
                    return
                self.acknowledged[number] += ids

    def count(self) -> int:
        """Events acknowledged so far, by all clients."""
        return sum(map(len, self.acknowledged))

    def join(self) -> None:
        """Wait for the clients, which end when the server does."""
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize(("ack", "rounds"), [("fsync", 20), ("write", 10)])
@pytest.mark.timeout(300)
def test_every_acknowledged_event_outlives_kill_9(tmp_path: Path, ack: str, rounds: int) -> None:
    """Tiny segments, so that the kill also falls into sealing; each start recovers what the last left."""
    server = Server(tmp_path, ack=ack, segment_bytes_max=6000, segment_age_max_s=0.1)
    dice = random.Random(f"kill-{ack}")
    sent: set[str] = set()
    acknowledged: set[str] = set()
    with server:
        for number in range(rounds):
            load = _Load(server, number)
            enough = dice.randrange(1, 400)
            wait_until(lambda: load.count() >= enough or load.surprises, f"{enough} are acknowledged")  # noqa: B023
            server.kill()
            load.join()
            assert load.surprises == []
            sent.update(*load.sent)
            acknowledged.update(*load.acknowledged)
            server.start()
            stored = Counter(event["messageId"] for event in server.events())
            assert sorted(acknowledged - stored.keys()) == [], "acknowledged, and lost"
            assert sorted(stored.keys() - sent) == [], "stored, and never sent"
            assert [message_id for message_id, count in stored.items() if count > 1] == []
            assert len(acknowledged) >= enough
    done = run("verify", server.data_dir, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert not list(server.data_dir.glob("quarantine/*"))
    assert not list(server.data_dir.glob("open/*.open"))


def test_a_torn_tail_is_moved_aside_and_the_rest_is_served(tmp_path: Path) -> None:
    """What a power cut leaves: the last commit only half on disk."""
    server = Server(tmp_path)
    with server:
        with server.client() as client:
            for message_id in ("a", "b", "c"):
                assert client.post("/v1/track", EVENT | {"messageId": message_id}).status == 200
        server.kill()
        [path] = server.data_dir.glob("open/*.open")
        whole = path.read_bytes()
        path.write_bytes(whole[:-30])
        server.start()
        assert [event["messageId"] for event in server.events()] == ["a", "b"]
        assert "recovery: " in server.log
        [torn] = server.data_dir.glob("open/*.torn")
        assert whole[:-30].endswith(torn.read_bytes())
        assert b"\x28\xb5\x2f\xfd" in torn.read_bytes()


def test_a_file_damaged_in_the_middle_is_kept_as_it_is_and_does_not_stop_the_start(tmp_path: Path) -> None:
    server = Server(tmp_path)
    with server:
        with server.client() as client:
            for message_id in ("a", "b", "c"):
                assert client.post("/v1/track", EVENT | {"messageId": message_id}).status == 200
        server.kill()
        [path] = server.data_dir.glob("open/*.open")
        damaged = bytearray(path.read_bytes())
        damaged[len(damaged) // 2] ^= 0xFF
        path.write_bytes(damaged)
        server.start()
        assert (server.data_dir / "quarantine" / path.name).read_bytes() == bytes(damaged)
        with server.client() as client:
            assert client.post("/v1/track", EVENT | {"messageId": "d"}).status == 200
        assert [json.loads(line)["messageId"] for line in _cat(server)] == ["d"]


def _cat(server: Server) -> list[str]:
    return run("cat", server.data_dir, cwd=server.folder).stdout.splitlines()
