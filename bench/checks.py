"""What a contender does, found by asking it before it is measured."""

from __future__ import annotations

import gzip
import http.client
import json
import time
import uuid
from pathlib import Path
from typing import Any, Final

import zstandard

from bench.contenders import Contender, Site
from bench.processes import Process
from bench.results import Checked

_KEEPING_S: Final = 5.0


def check(contender: Contender, site: Site, process: Process) -> Checked:
    """Raises RuntimeError if it does not even take an event."""
    one, zipped, bulk = _event(), _event(), [_event(), _event()]
    if _status(site, "/v1/track", json.dumps(one).encode()) != 200:
        raise RuntimeError("it does not take an event")
    if _status(site, "/v1/bulk-track", json.dumps(bulk).encode()) != 200:
        raise RuntimeError("it does not take an array of events")
    body = gzip.compress(json.dumps(zipped).encode())
    takes_gzip = _status(site, "/v1/track", body, {"Content-Encoding": "gzip"}) == 200
    wrong = [_event() | {"timestamp": "yesterday"}, {"event": "e", "timestamp": one["timestamp"]}]
    invalid = [_status(site, "/v1/track", json.dumps(event).encode()) for event in wrong]
    unknown = _status(site, "/v1/track", json.dumps(one).encode(), {"Authorization": "Bearer unknown"})
    kept = _wait_for(contender, site, process, [one, *bulk])
    return Checked(
        refuses_unknown_keys=unknown == 401,
        refuses_invalid_events=all(status in (400, 422) for status in invalid),
        takes_gzip=takes_gzip,
        keeps_gzip_inflated=takes_gzip and zipped["messageId"].encode() in kept,
        keeps_events=all(event["messageId"].encode() in kept for event in [one, *bulk]),
    )


def _event() -> dict[str, Any]:
    return {
        "event": "checked",
        "properties": {"answer": 42},
        "timestamp": "2025-10-29T22:00:00.778Z",
        "messageId": str(uuid.uuid4()),
    }


def _status(site: Site, path: str, body: bytes, headers: dict[str, str] | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
    try:
        told = {"Authorization": f"Bearer {site.key}", "Content-Type": "application/json", **(headers or {})}
        connection.request("POST", path, body, told)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _wait_for(contender: Contender, site: Site, process: Process, events: list[dict[str, Any]]) -> bytes:
    """What is in its files, once these events are; after a while, in any case."""
    if contender.settle is not None:
        contender.settle(site, process)
    end = time.monotonic() + _KEEPING_S
    while True:
        kept = b"".join([content(path) for path in contender.files(site)])
        if all(event["messageId"].encode() in kept for event in events) or time.monotonic() > end:
            return kept
        time.sleep(0.1)


def content(path: Path) -> bytes:
    """Of a file; of a segment, its lines."""
    data = path.read_bytes()
    if path.suffix != ".zst":
        return data
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        return reader.read()
