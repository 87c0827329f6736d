"""Whether events are welcome, and if not, why: as a sentence for clients, as a number for the scoreboard."""

from __future__ import annotations

import time
from typing import Final

from ingestd.http.hub import Hub
from ingestd.service.replica import Replica
from ingestd.storage.flusher import Flusher

STUCK_S = 5.0
"""No disk that works takes so long for one commit."""

READY: Final = 0
_DRAINING: Final = 1
_FLUSHER_ENDED: Final = 2
_STORAGE_FAILS: Final = 3
_DISK_STUCK: Final = 4
_DISK_FULL: Final = 5
_LOG_AWAY: Final = 6

REASONS: Final = (
    "",
    "draining",
    "the flusher has ended",
    "storage fails",
    "the disk does not take a commit",
    "the disk is nearly full",
    "the log does not acknowledge",
)
"""What the numbers mean to other processes; the sentence, with its details, is of this one."""


def look(hub: Hub, flusher: Flusher, replica: Replica | None) -> tuple[int, str]:
    """One of the numbers above, and a sentence; READY and nothing if events are welcome."""
    since = flusher.committing_since
    stuck_s = 0.0 if since is None else time.monotonic() - since
    if hub.is_draining:
        return _DRAINING, REASONS[_DRAINING]
    if not flusher.alive:
        return _FLUSHER_ENDED, REASONS[_FLUSHER_ENDED]
    if flusher.error is not None:
        return _STORAGE_FAILS, f"{REASONS[_STORAGE_FAILS]}: {flusher.error}"
    if stuck_s > STUCK_S:
        return _DISK_STUCK, f"the disk has not taken a commit for {stuck_s:.0f} s"
    if hub.no_room is not None:
        return _DISK_FULL, str(hub.no_room.detail)
    if replica is not None and replica.refuses:
        return _LOG_AWAY, f"{REASONS[_LOG_AWAY]}: {replica.problem}"
    return READY, ""
