"""What a worker tells the others of itself: its numbers, copied to its row of the scoreboard.

Counting is done where things happen, in plain numbers of this process. A few times a second they
are copied, so what a worker has counted since is lost if it is killed; what it had told stays, and
the one that takes its place goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ingestd import metrics
from ingestd.http.hub import Hub
from ingestd.metrics import Histogram
from ingestd.ring import Ring
from ingestd.service import readiness, tallies
from ingestd.service.brief import Brief
from ingestd.service.families import COUNTED, DISTRIBUTIONS, MOMENTARY, PARTS
from ingestd.service.replica import Replica
from ingestd.service.scoreboard import (
    FLUSHER_BEAT_MS,
    LOOP_BEAT_MS,
    NOT_READY,
    WORKERS,
    SharedMemory,
    monotonic_ms,
)
from ingestd.service.tallies import Name, Tallies
from ingestd.storage.flusher import Flusher
from ingestd.storage.sealer import Sealer

ANSWERS: Final = "answers"
KEY_EVENTS: Final = "key"
KEYS_MAX: Final = 256
"""Names of keys that one worker tells; what others have sent is told under OTHER_KEYS."""
OTHER_KEYS: Final = "(other keys)"
"""No key can have such a name."""


class Reporter:
    """Of one worker, on its loop."""

    def __init__(
        self,
        brief: Brief,
        memory: SharedMemory,
        hub: Hub,
        ring: Ring,
        flusher: Flusher,
        sealer: Sealer,
        replica: Replica | None = None,
    ) -> None:
        self._settings = brief.settings
        self._hub = hub
        self._ring = ring
        self._flusher = flusher
        self._sealer = sealer
        self._replica = replica
        self._replication_ns = Histogram(metrics.LATENCIES_NS) if replica is None else replica.took_ns
        self._row = memory.table(WORKERS).row(brief.worker)
        region = memory.region(tallies.REGION, tallies.BLOCK_BYTES * brief.workers)
        self._tallies = Tallies(region, brief.worker)
        self._row_before = {column: self._row[column] for column in COUNTED}
        self._tallies_before = self._tallies.read()
        names = [name for name in self._tallies_before if name[0] == KEY_EVENTS]
        self._keys = {str(name[1]) for name in names}
        """Those that have a place of their own."""

    def report(self) -> None:
        """Copy everything."""
        try:
            self._copy()
        finally:
            # Last: whoever sees it move sees the rest as well. And in any case: the loop lives.
            self._row[FLUSHER_BEAT_MS] = int(self._flusher.beat_s * 1000)
            self._row[LOOP_BEAT_MS] = monotonic_ms()

    def _copy(self) -> None:
        row, before, now = self._row, self._row_before, self._numbers()
        for column in COUNTED:
            row[column] = before[column] + now[column]
        for column in MOMENTARY:
            row[column] = now[column]
        for name, number in self._labelled().items():
            self._tallies.put(name, self._tallies_before.get(name, 0) + number)
        row[NOT_READY] = readiness.look(self._hub, self._flusher, self._replica)[0]

    def _numbers(self) -> dict[str, int]:
        """Every column of `families`."""
        hub, ring, flusher, sealer = self._hub, self._ring, self._flusher, self._sealer
        recoveries, settings, replica = sealer.recoveries, self._settings, self._replica
        fill = max(ring.batches / settings.ring_batches_max, ring.bytes / settings.ring_bytes_max)
        return {
            "connections_accepted": hub.traffic.connections,
            "received_bytes": hub.traffic.received_bytes,
            "events_received": hub.rounds.events_received,
            "events_refused": hub.rounds.events_refused + flusher.events_unreplicated,
            "events_fallen_back": 0 if replica is None else replica.events_fallen_back,
            "replications_failed": 0 if replica is None else replica.failures,
            "log_away": int(replica is not None and bool(replica.problem)),
            "events_stored": flusher.events_stored,
            "events_failed": flusher.events_failed,
            "events_quarantined": flusher.events_quarantined,
            "stored_bytes": flusher.stored_bytes,
            "commits_failed": flusher.commits_failed,
            "segments_sealed": sealer.segments_sealed,
            "segments_packed": sealer.segments_packed,
            "segments_expired": sealer.segments_expired,
            "seal_refusals": sealer.refusals,
            **{f"recovery_files_{a.replace(' ', '_')}": count for a, count in recoveries.files.items()},
            "recovery_events": recoveries.events,
            "recovery_in_doubt_bytes": recoveries.in_doubt_bytes,
            "connections": len(hub.connections),
            "inflight_bytes": hub.budget.bytes,
            "ring_batches": ring.batches,
            "ring_bytes": ring.bytes,
            "ring_fill_parts": int(PARTS * fill),
            "sealing_waiting_files": sealer.files_waiting,
            "sealing_refused_files": sealer.files_refused,
            "disk_free_bytes": sealer.room.free_bytes,
            **dict(self._distributions()),
        }

    def _distributions(self) -> Iterator[tuple[str, int]]:
        flusher = self._flusher
        found = (
            *(flusher.commit_events, flusher.commit_bytes, flusher.commit_ns, flusher.sync_ns),
            self._replication_ns,
        )
        for distribution, histogram in zip(DISTRIBUTIONS, found, strict=True):
            yield from zip(distribution.columns, (*histogram.counts, histogram.sum), strict=True)

    def _labelled(self) -> dict[Name, int]:
        """What has labels, by its name in the tallies."""
        traffic = self._hub.traffic
        found: dict[Name, int] = {(ANSWERS, *which): count for which, count in traffic.answers.items()}
        for key_name, events in traffic.key_events.items():
            if key_name not in self._keys and len(self._keys) < KEYS_MAX:
                self._keys.add(key_name)
            name = (KEY_EVENTS, key_name if key_name in self._keys else OTHER_KEYS)
            found[name] = found.get(name, 0) + events
        return found
