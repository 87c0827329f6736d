"""The thread between the ring and the disk: it commits what waits, then says so, once per commit.

Group commit needs no timer: while one commit is on its way to the disk, the next one gathers in
the ring, and a lone request is committed at once.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from ingestd import metrics
from ingestd.config import AckLevel, Settings
from ingestd.errors import StorageError, Unreplicated, as_storage_error
from ingestd.events import Batch
from ingestd.metrics import Histogram
from ingestd.ring import Ring
from ingestd.storage.disk import Disk
from ingestd.storage.receipts import Receipt
from ingestd.storage.rotation import Rotation
from ingestd.storage.sealer import Sealer
from ingestd.storage.segment import invalid_directory, open_directory

log = logging.getLogger("ingestd.flusher")

_PROBE_S = 1.0
Acknowledge = Callable[[list[Batch], StorageError | None, str, AckLevel], None]
"""Then the receipt of their commit, "" where there is an error; and how it is kept."""


class Replica(Protocol):
    """Has each commit before it is written here (`ack` = replicated)."""

    def send(self, batches: list[Batch]) -> AckLevel:
        """Return how these are to be kept when it has them, or does without. Raises Unreplicated."""
        ...

    def look(self) -> None:
        """When nothing is pushed: see if it is there again, for traffic may stay away because it was not."""
        ...


class Flusher:
    """Owns the open segments of one worker. `acknowledge` is called on the flusher's thread."""

    def __init__(
        self,
        settings: Settings,
        disk: Disk,
        ring: Ring,
        acknowledge: Acknowledge,
        sealer: Sealer,
        node: str,
        worker: int = 0,
        replica: Replica | None = None,
    ) -> None:
        self.commits = 0
        self.events_stored = 0
        self.events_failed = 0
        self.events_unreplicated = 0
        """That are not kept, for the log has not acknowledged them."""
        self.commits_failed = 0
        self.stored_bytes = 0
        """Of commits as they were written, compressed."""
        self.events_quarantined = 0
        """Invalid events that were kept apart, durably, beside the valid ones of their requests."""
        self.commit_events = Histogram(metrics.COMMIT_EVENTS)
        self.commit_bytes = Histogram(metrics.COMMIT_BYTES)
        """Of lines, uncompressed."""
        self.commit_ns = Histogram(metrics.LATENCIES_NS)
        self.sync_ns = Histogram(metrics.LATENCIES_NS)
        """Of these: what the disk took until the commit was on stable storage. None without fsync."""
        self.bytes_per_s = 0.0
        """Bytes of lines committed a second while busy, smoothed; 0 before the first commit."""
        self.error: StorageError | None = None
        """Why the last commit or probe failed; None while storage works."""
        self.committing_since: float | None = None
        """By the monotonic clock: when the commit began that is on its way to the disk now."""
        self.beat_s = time.monotonic()
        """By the same clock: when the thread last began a turn."""
        self._settings = settings
        self._data_dir = Path(settings.data_dir)
        self._disk = disk
        self._ring = ring
        self._acknowledge = acknowledge
        self._worker = worker
        self._replica = replica
        self._events = Rotation(settings, disk, self._data_dir, sealer, node, worker)
        # Another name, so that a receipt or a file that was moved tells which it is of.
        self._invalid = Rotation(
            settings, disk, invalid_directory(self._data_dir), sealer, f"{node}-invalid", worker
        )
        self._probe_at = 0.0
        self._stopping = False
        self._sealing = False
        self._thread = threading.Thread(target=self._run, name="flusher", daemon=True)

    def start(self) -> None:
        """Begin to commit what is pushed into the ring."""
        self._thread.start()

    def seal_now(self) -> None:
        """Ask the thread to seal what it has written so far; returns at once."""
        self._sealing = True
        self._ring.wake()

    def stop(self) -> None:
        """Ask the thread to commit what waits, seal and end; returns at once."""
        self._stopping = True
        self._ring.wake()

    def join(self) -> None:
        """Wait for the end of the thread."""
        self._thread.join()

    @property
    def segment_name(self) -> str:
        """Of the segment that events are written to; empty if there is none."""
        return self._events.segment_name

    @property
    def alive(self) -> bool:
        """True while the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        # Woken, this thread must not push the loop off its core: the loop is about to sleep anyway.
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        while not self._stopping:
            if not self.step():
                self._ring.wait(min(self._events.idle_s, self._invalid.idle_s))
        self.finish()

    def step(self) -> bool:
        """One turn of the thread: commit what waits, seal what is due; False if nothing waited."""
        self.beat_s = time.monotonic()
        sealing, self._sealing = self._sealing, False
        gathering = self._ring.is_gathering and not self._stopping
        batches = [] if gathering else self._ring.pop(self._settings.commit_bytes_max)
        if batches:
            self._flush(batches)
        elif self.error is not None and time.monotonic() >= self._probe_at:
            self._probe()
        elif self._replica is not None:
            self._look()
        for rotation in (self._events, self._invalid):
            if sealing or rotation.is_due:
                rotation.seal()
        return bool(batches)

    def finish(self) -> None:
        """The last turns, after `stop`: commit all that still waits, and seal."""
        while self.step():
            pass
        self._events.seal()
        self._invalid.seal()

    def _flush(self, batches: list[Batch]) -> None:
        """Commit the batches, or say why not; either way they leave the ring."""
        began = started = time.monotonic()
        error: StorageError | None = None
        events, receipt, ack = sum([batch.events for batch in batches]), "", self._settings.ack
        try:
            if self._replica is not None:
                # First: what it refuses is then nowhere.
                ack = self._replica.send(batches)
                started = time.monotonic()
            self.committing_since = started
            receipt = str(self._commit(batches, ack))
        except Unreplicated as e:
            error = e
        except Exception as e:
            # A bug must not end the thread: every waiting request would hang.
            error = as_storage_error(e)
        self.committing_since = None
        if error is None:
            self.commits += 1
            self.events_stored += events
            now = time.monotonic()
            size = sum([len(batch.lines) for batch in batches])
            self.bytes_per_s = smoothed(self.bytes_per_s, size / max(1e-6, now - began))
            self.commit_events.observe(events)
            self.commit_bytes.observe(size)
            self.commit_ns.observe(int((now - started) * 1e9))
            self._note(None)
        elif isinstance(error, Unreplicated):
            self.events_unreplicated += events
        else:
            self.commits_failed += 1
            self.events_failed += events
            self._events.abandon()
            self._invalid.abandon()
            self._note(error)
        self._ring.release(batches)
        self._acknowledge(batches, error, receipt, ack)

    def _look(self) -> None:
        assert self._replica is not None
        try:
            self._replica.look()
        except Exception:
            # As above: the thread must go on.
            log.exception("bug while looking after the log")

    def _note(self, error: StorageError | None) -> None:
        """Remember if storage works, and say so when that changes."""
        if error is not None:
            self._probe_at = time.monotonic() + _PROBE_S
            if self.error is None:
                log.error("storage fails, waiting requests get 500: %s", error)
        elif self.error is not None:
            log.warning("storage works again")
        self.error = error

    def _probe(self) -> None:
        """Try the disk when nothing is pushed: traffic may stay away because of this very error."""
        path = open_directory(self._data_dir) / f".probe-w{self._worker}.new"
        try:
            self._disk.replace_file(path, bytes(4096))
            self._disk.unlink(path)
        except Exception as e:
            self._note(as_storage_error(e))
        else:
            self._note(None)

    def _commit(self, batches: list[Batch], ack: AckLevel) -> Receipt:
        # First, for what is sent again after a failure had better be twice among these than those.
        quarantined = [batch.quarantine for batch in batches if batch.quarantine is not None]
        if quarantined:
            # Of these the log has none.
            self._invalid.commit(quarantined, sync=ack in ("fsync", "replicated"))
        receipt = self._events.commit(batches, sync=ack == "fsync")
        if ack == "fsync":
            self.sync_ns.observe(self._events.took_ns)
        self.stored_bytes = self._events.stored_bytes + self._invalid.stored_bytes
        self.events_quarantined += sum([batch.events for batch in quarantined])
        return receipt


def smoothed(rate: float, sample: float) -> float:
    """The new rate; the first sample counts whole, for a rate near 0 would ask clients to wait long."""
    return rate + 0.1 * (sample - rate) if rate else sample
