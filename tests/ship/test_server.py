"""A real server, clients, the shipper and retention side by side, all of them killed now and then.

In the end the store has every event that was acknowledged, once; none is there twice.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from random import Random

import pytest

from tests.support.server import EVENT, Server, wait_until
from tests.support.shipping import Shipping, markers, message_ids, sealed
from tests.support.weed import Weed

BATCH = 20


class Sender:
    """Sends batches until it is stopped or the server is gone; knows what was acknowledged."""

    def __init__(self, server: Server, name: str, acked: set[str], sent: Counter[str]) -> None:
        self._server, self._name, self._acked, self._sent = server, name, acked, sent
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        with suppress(OSError, HTTPException), self._server.client() as client:
            while not self._stopping.is_set():
                ids = [f"{self._name}-{number}-{i}" for i in range(BATCH)]
                number += 1
                self._sent.update(ids)
                if client.post("/v1/bulk-track", [EVENT | {"messageId": one} for one in ids]).status == 200:
                    self._acked.update(ids)

    def stop(self) -> None:
        """End it."""
        self._stopping.set()
        self._thread.join()


@pytest.mark.parametrize("seed", range(2))
def test_every_acknowledged_event_is_in_the_store_once(
    seed: int, tmp_path: Path, weed: Weed, place: str
) -> None:
    rng = Random(seed)
    acked, sent = set[str](), Counter[str]()
    # Retention looks when a worker starts: it deletes all that it may.
    server = Server(tmp_path, workers=2, segment_age_max_s=0.2, segment_bytes_max=20_000, retain_age_s=0.01)
    shipping = Shipping(tmp_path, f"s3://{place}", environ=weed.environ())
    # The first start of a shipper is what retention waits for.
    server.start()
    shipping.start().wait_for_log("delivers what is sealed")
    for round_number in range(4):
        senders = [Sender(server, f"{round_number}-{n}", acked, sent) for n in range(2)]
        enough = len(acked) + rng.randrange(20, 60) * BATCH
        wait_until(lambda enough=enough: len(acked) > enough, "events are taken")  # type: ignore[misc]
        if rng.random() < 0.7:
            shipping.kill()
            shipping.start()
        if rng.random() < 0.5:
            server.kill()
        else:
            for sender in senders:
                sender.stop()
            server.stop()
        for sender in senders:
            sender.stop()
        server.start()
    server.stop()
    shipping.stop()
    last = Shipping(tmp_path, f"s3://{place}", "--once", environ=weed.environ())
    assert last.once() == 0, last.log
    assert markers(server.data_dir) >= sealed(server.data_dir).keys()
    # Now retention may delete all that there is.
    with server:
        wait_until(lambda: not sealed(server.data_dir), "all is expired")
    found = Counter(message_ids(weed.objects(place)))
    assert set(found) >= acked
    assert max(found.values()) == 1
    # What was sent without an answer may be there; nothing else is.
    assert set(found) <= set(sent)


def test_retention_waits_for_the_shipper_and_says_so(tmp_path: Path, weed: Weed, place: str) -> None:
    shipping = Shipping(tmp_path, f"s3://{place}", environ=weed.environ() | {"AWS_ACCESS_KEY_ID": "nobody"})
    with Server(tmp_path, retain_age_s=0.01) as server:
        with server.client() as client:
            assert client.post("/v1/track", EVENT | {"messageId": "a"}).status == 200
        with shipping:
            shipping.wait_for_log("delivers what is sealed")
        server.restart()
        server.wait_for_log("segments that are due to go stay until they are delivered: shipped/s3-")
        assert len(server.segments()) == 1
        shipping.environ = weed.environ()
        with shipping:
            shipping.wait_for_markers(sealed(server.data_dir))
        server.restart()
        server.wait_for_log("expired: ")
        assert server.segments() == []
    assert message_ids(weed.objects(place)) == ["a"]
