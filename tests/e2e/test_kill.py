"""kill -9: what was acknowledged is there once, in order, and nothing that was not sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestd.storage.segment import walk
from tests.e2e import kill
from tests.support.server import EVENT, Server

_SEED = 1
"""The same each time: a failure is a change's, not chance's. `make nightly` looks further."""


@pytest.mark.parametrize("ack", ["fsync", "write"])
@pytest.mark.timeout(300)
def test_what_was_acknowledged_survives_kill_9_of_a_loaded_server(tmp_path: Path, ack: str) -> None:
    counts, findings = kill.run(10, _SEED, tmp_path, acks=(ack,))
    assert findings == []
    assert counts.kills >= counts.rounds == 10
    assert counts.events_acknowledged > 0
    assert counts.segments > 0


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[tuple[Server, Path]]:
    """A server that was killed, and the segment that it left open, with three commits."""
    with Server(tmp_path) as server:
        with server.client() as client:
            for message_id in ("a", "b", "c"):
                assert client.post("/v1/track", EVENT | {"messageId": message_id}).status == 200
        server.kill()
        [path] = server.data_dir.glob("open/*.open")
        yield server, path


def test_a_torn_tail_is_moved_aside_and_the_rest_is_served(killed: tuple[Server, Path]) -> None:
    """What a power cut leaves: the last commit only half on disk."""
    server, path = killed
    data = path.read_bytes()
    whole = data[: walk(data).chain.end]
    path.write_bytes(whole[:-30])
    server.start()
    assert [event["messageId"] for event in server.events()] == ["a", "b"]
    assert "recovery: " in server.log
    [torn] = server.data_dir.glob("open/*.torn")
    assert whole[:-30].rstrip(b"\0").endswith(torn.read_bytes())
    assert b"\x28\xb5\x2f\xfd" in torn.read_bytes()


def test_a_file_damaged_in_the_middle_is_kept_as_it_is_and_does_not_stop_the_start(
    killed: tuple[Server, Path],
) -> None:
    server, path = killed
    damaged = bytearray(path.read_bytes())
    damaged[walk(bytes(damaged)).chain.end // 2] ^= 0xFF
    path.write_bytes(damaged)
    server.start()
    assert (server.data_dir / "quarantine" / path.name).read_bytes() == bytes(damaged)
    with server.client() as client:
        assert client.post("/v1/track", EVENT | {"messageId": "d"}).status == 200
    assert [event["messageId"] for event in server.events()] == ["d"]
