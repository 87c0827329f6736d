"""What each kind of client sends, and what it does with the answer: no Locust in here.

It runs also where ingestd is not installed, so it takes nothing from the rest of bench/.
"""

from __future__ import annotations

import gzip
import json
import random
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

RETRIES_MAX: Final = 5
_RETRY_AFTER_S_MAX: Final = 60.0
_PAGES: Final = ("/", "/pricing", "/docs", "/blog/how-we-store-events", "/signup")
_SCREENS: Final = ("home", "search", "product", "cart", "checkout")
_SERVICES: Final = ("api", "billing", "search", "mailer")
_LEVELS: Final = ("info",) * 8 + ("warning", "error")


class Post(NamedTuple):
    """A request. Sent again, it is the same to the last byte: its events have their ids."""

    path: str
    headers: dict[str, str]
    body: bytes
    events: int


def browser(rng: random.Random) -> Post:
    """One event, plain, as it happens: sendBeacon does not compress."""
    page = rng.choice(_PAGES)
    event = _event(rng, "page_view", {"path": page, "referrer": rng.choice(("", *_PAGES)), "width": 1280})
    return Post("/v1/track", {"Content-Type": "application/json"}, _json(event), 1)


def mobile(rng: random.Random) -> Post:
    """What has gathered while the app was in use or out of reach: a gzipped batch, some of it hours old."""
    count = min(50, 1 + int(rng.expovariate(1 / 12)))
    late_s = rng.choice((0, 0, 0, 0, 600, 7200))
    events = [
        _event(
            rng, "screen_viewed",
            {"screen": rng.choice(_SCREENS), "app": {"version": "4.2.0"}, "battery": rng.random()},
            late_s + count - i,
        )
        for i in range(count)
    ]  # fmt: skip
    return _zipped(events)


def shipper(rng: random.Random, count: int = 1000) -> Post:
    """A log shipper's full buffer: a gzipped array of many small, alike events."""
    events = [
        _event(
            rng,
            "log",
            {
                "service": rng.choice(_SERVICES),
                "level": rng.choice(_LEVELS),
                "message": f"request {rng.getrandbits(32):08x} done in {rng.randrange(5000)} ms",
            },
        )
        for _ in range(count)
    ]
    return _zipped(events)


def _zipped(events: list[dict[str, Any]]) -> Post:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    return Post("/v1/bulk-track", headers, gzip.compress(_json(events), 6), len(events))


def _event(rng: random.Random, name: str, properties: dict[str, Any], age_s: float = 0.0) -> dict[str, Any]:
    when = datetime.now(UTC) - timedelta(seconds=age_s)
    return {
        "messageId": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        "event": name,
        "anonymousId": f"a-{rng.randrange(100_000)}",
        "timestamp": when.isoformat(timespec="milliseconds"),
        "properties": properties,
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def retry_after_s(status: int, headers: Mapping[str, str], attempt: int) -> float | None:
    """How long to wait before the same is sent again; None if it is not to be.

    429 says when; after a 5xx, or no answer at all (0), twice as long each time. Anything else would
    be answered the same again.
    """
    if attempt >= RETRIES_MAX or not (status in (0, 429) or status >= 500):
        return None
    told = headers.get("Retry-After", "")
    return min(_RETRY_AFTER_S_MAX, float(told) if told.isdigit() else 0.5 * 2**attempt)


def problem(status: int, body: Any, events: int) -> str | None:
    """What is wrong with an answer; None if all events of the request are acknowledged."""
    if status != 200:
        return f"{status}: {body}"
    ids = body.get("messageIds", [body.get("messageId")])
    return None if len(ids) == events and all(ids) else f"{len(ids)} ids for {events} events"
