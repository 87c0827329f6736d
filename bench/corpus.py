"""The events that are sent: about 400 bytes each, the same in every run because the seed is fixed."""

from __future__ import annotations

import gzip
import json
import random
from typing import Any

_NAMES = ("page_view", "signup", "order_completed", "button_clicked", "video_played")
_SEED = 20260101


def event(rng: random.Random) -> dict[str, Any]:
    """One analytics event as a well-behaved SDK makes it, with one nested object."""
    return {
        "messageId": f"{rng.getrandbits(32):08x}-1e8e-4f15-8c2a-{rng.getrandbits(48):012x}",
        "event": rng.choice(_NAMES),
        "timestamp": f"2025-10-29T{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}"
        f".{rng.randrange(1000):03}Z",
        "userId": f"u_{rng.randrange(1_000_000)}",
        "properties": {
            "plan": rng.choice(("free", "basic", "team")),
            "url": f"https://example.com/products/{rng.randrange(100_000)}?ref={rng.getrandbits(40):x}",
            "title": f"Product number {rng.randrange(1000)}",
            "price": round(rng.random() * 100, 2),
            "quantity": rng.randrange(1, 9),
            "isTrial": rng.random() < 0.5,
            "campaign": {"source": "newsletter", "medium": "email", "name": f"week_{rng.randrange(52)}"},
        },
    }


def bodies(events_per_request: int, count: int, *, gzipped: bool) -> list[bytes]:
    """`count` different request bodies: one object for 1 event, else an array; compact JSON."""
    rng = random.Random(_SEED)
    made = []
    for _ in range(count):
        events = [event(rng) for _ in range(events_per_request)]
        value = events[0] if events_per_request == 1 else events
        body = json.dumps(value, separators=(",", ":")).encode()
        made.append(gzip.compress(body, 6) if gzipped else body)
    return made
