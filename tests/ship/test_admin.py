"""The shipper's own listener: metrics and probes, over TCP and unix sockets, for as long as it lives."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from pathlib import Path
from random import Random

import msgspec
import pytest
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from ingestd.config import Settings
from ingestd.service import listeners
from ingestd.ship.admin import Admin
from ingestd.ship.delivery import Segment
from ingestd.ship.destination import destination
from ingestd.ship.objects import Objects
from ingestd.ship.pace import Backoff, Pace
from ingestd.ship.shipper import Shipper, Waiting
from ingestd.ship.store import Store
from ingestd.storage.disk import Disk
from ingestd.storage.repeats import Seen
from ingestd.storage.shipped import Markers
from tests.support.shipping import TEMPLATE


async def ask(address: str, path: str) -> tuple[int, str]:
    """Status and body of a GET."""
    if address.startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
    else:
        host, _, port = address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), body


@pytest.mark.parametrize("kind", ["unix", "TCP"])
def test_it_tells_how_it_is(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    # Found as it ran: of servers that nobody holds this loop, and no other, closes the sockets.
    uvloop.run(look(kind, tmp_path))
    assert "metrics and probes on" in caplog.text


async def look(kind: str, tmp_path: Path) -> None:
    """All that is shown."""
    address = f"unix:{tmp_path}/admin" if kind == "unix" else "127.0.0.1:0"
    opened = listeners.open_admin(msgspec.structs.replace(Settings(), admin=address))
    shipper = idle(tmp_path)
    admin = await Admin.serve(Settings(), shipper, opened)
    gc.collect()
    try:
        await compare(shipper, opened[0].address, tmp_path)
        admin.tick()
    finally:
        # The loop does not end before its servers.
        admin.close()
        for listener in opened:
            listener.close()


def idle(tmp_path: Path) -> Shipper:
    """One that has nothing to do."""
    store = Store(destination(f"file://{tmp_path}", {}), Pace(0, lambda: 0.0), 20)
    delivery = Objects(Disk(), store, TEMPLATE, 1000)
    return Shipper(Disk(), tmp_path, delivery, Markers(Disk(), tmp_path, "x"), wall=lambda: 107.5)


async def compare(shipper: Shipper, address: str, path: Path) -> None:
    """What is shown, and what is true."""
    shipper.behind = {
        name: Waiting(Segment(path, name), size, written, Backoff(lambda: 0.0, Random()))
        for name, size, written in (("a", 10, 100.0), ("b", 5, 103.0))
    }
    shipper.seen = Seen(60, 1000)
    shipper.tally.segments_delivered, shipper.tally.bytes_delivered = 7, 70
    status, text = await ask(address, "/metrics")
    assert status == 200
    told = {
        sample.name.removeprefix("ingestd_ship_"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert told == {
        "lag_seconds": 7.5,
        "behind_segments": 2,
        "behind_bytes": 15,
        "ready": 1,
        "segments_total": 7,
        "bytes_total": 70,
        "found_segments_total": 0,
        "events_total": 0,
        "dropped_events_total": 0,
        "dedup_reach_seconds": 60,
        "retries_total": 0,
        "gone_segments_total": 0,
    }
    assert await ask(address, "/readyz") == (200, '{"status":"ok"}')
    shipper.problem = "it is full: make room there"
    status, text = await ask(address, "/readyz")
    assert (status, json.loads(text)["detail"]) == (503, "it is full: make room there")
    assert (await ask(address, "/healthz"))[0] == 200
    assert (await ask(address, "/v1/track"))[0] == 404
