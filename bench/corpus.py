"""The events that are sent: the same in every run, because the seed is fixed.

Three shapes: *nested*, about 400 bytes with one object within the properties; *flat*, as many bytes
with none; *real*, the lines of a file of events, each as it stands there.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

Shape = Literal["nested", "flat", "real"]

_NAMES = ("page_view", "signup", "order_completed", "button_clicked", "video_played")
_SEED = 20260101
_GZIP_LEVEL = 6
_EVENTS = 20_000
"""Of all bodies of a load. Together they are larger than what zstd looks back on at level 3 (2 MiB): a
corpus that comes again within that would be stored as next to nothing."""
_EVENTS_MANY = 40_000
_REAL_BYTES = 16 * 1024 * 1024
"""Of a load of real events, which are as many as the file has, again and again."""


class Load(NamedTuple):
    """One kind of request."""

    events: int
    """Of each request."""
    shape: Shape = "nested"
    is_gzip: bool = False

    @property
    def name(self) -> str:
        """As it is called in results."""
        return f"{self.events}-{self.shape}{'-gzip' if self.is_gzip else ''}"

    @property
    def path(self) -> str:
        """The call for it."""
        return "/v1/track" if self.events == 1 else "/v1/bulk-track"


def bodies(load: Load, real_file: Path | None = None, count: int | None = None) -> list[bytes]:
    """`count` different bodies, or as many as are worth having: an object for 1 event, else an array.

    `real_file` holds the events of the real shape, one a line.
    """
    if load.shape == "real":
        assert real_file is not None, "real events are in a file"
        lines = real_file.read_bytes().splitlines()
        wanted = _REAL_BYTES * len(lines) // sum(map(len, lines))
        events = list(islice(cycle(lines), wanted))
    else:
        wanted = load.events * count if count else _EVENTS if load.events <= 1000 else _EVENTS_MANY
        events = list(islice(_events(load.shape), wanted))
    parts = [events[i : i + load.events] for i in range(0, len(events) - load.events + 1, load.events)]
    texts = [part[0] if load.events == 1 else b"[%b]" % b",".join(part) for part in parts]
    return [gzip.compress(text, _GZIP_LEVEL, mtime=0) for text in texts] if load.is_gzip else texts


def _events(shape: Shape) -> Iterator[bytes]:
    """Events without end, as compact JSON."""
    rng = random.Random(_SEED)
    properties = _nested if shape == "nested" else _flat
    while True:
        yield json.dumps(_event(rng) | {"properties": properties(rng)}, separators=(",", ":")).encode()


def _event(rng: random.Random) -> dict[str, Any]:
    """What every event has, as a well-behaved SDK makes it."""
    return {
        "messageId": f"{rng.getrandbits(32):08x}-1e8e-4f15-8c2a-{rng.getrandbits(48):012x}",
        "event": rng.choice(_NAMES),
        "timestamp": f"2025-10-29T{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}"
        f".{rng.randrange(1000):03}Z",
        "userId": f"u_{rng.randrange(1_000_000)}",
    }


def _common(rng: random.Random) -> dict[str, Any]:
    return {
        "plan": rng.choice(("free", "basic", "team")),
        "url": f"https://example.com/products/{rng.randrange(100_000)}?ref={rng.getrandbits(40):x}",
        "title": f"Product number {rng.randrange(1000)}",
        "price": round(rng.random() * 100, 2),
        "quantity": rng.randrange(1, 9),
        "isTrial": rng.random() < 0.5,
    }


def _nested(rng: random.Random) -> dict[str, Any]:
    campaign = {"source": "newsletter", "medium": "email", "name": f"week_{rng.randrange(52)}"}
    return {**_common(rng), "campaign": campaign}


def _flat(rng: random.Random) -> dict[str, Any]:
    week = f"week_{rng.randrange(52)}"
    return {**_common(rng), "utmSource": "newsletter", "utmMedium": "email", "utmCampaign": week}
