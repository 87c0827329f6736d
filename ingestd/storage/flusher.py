"""The thread between the ring and the disk: it commits what waits, then says so, once per commit.

Group commit needs no timer: while one commit is on its way to the disk, the next one gathers in
the ring, and a lone request is committed at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from ingestd.config import Settings
from ingestd.errors import StorageError
from ingestd.events import Batch
from ingestd.ring import Ring
from ingestd.storage import recovery
from ingestd.storage.disk import Disk
from ingestd.storage.segment import Segment, new_name

log = logging.getLogger("ingestd.flusher")

Acknowledge = Callable[[list[Batch], StorageError | None], None]


class Flusher:
    """Owns the open segment of one worker. `acknowledge` is called on the flusher's thread."""

    def __init__(
        self, settings: Settings, disk: Disk, ring: Ring, acknowledge: Acknowledge, node: str, worker: int = 0
    ) -> None:
        self.commits = 0
        self.events_stored = 0
        self.events_failed = 0
        self.segments_sealed = 0
        self.bytes_per_s = 0.0
        """Lines committed a second while busy, smoothed; 0 before the first commit."""
        self.error: StorageError | None = None
        """Why the last commit failed; None while storage works."""
        self._settings = settings
        self._data_dir = Path(settings.data_dir)
        self._disk = disk
        self._ring = ring
        self._acknowledge = acknowledge
        self._node = node
        self._worker = worker
        self._segment: Segment | None = None
        self._sequence = 0
        self._seal_at = 0.0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="flusher", daemon=True)

    def start(self) -> None:
        """Begin to commit what is pushed into the ring."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to commit what waits, seal and end; returns at once."""
        self._stopping = True
        self._ring.wake()

    def join(self) -> None:
        """Wait for the end of the thread."""
        self._thread.join()

    @property
    def alive(self) -> bool:
        """True while the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while True:
            batches = self._ring.pop(self._settings.commit_bytes_max)
            if batches:
                self._flush(batches)
            if self._segment is not None and (
                self._segment.size >= self._settings.segment_bytes_max or time.monotonic() >= self._seal_at
            ):
                self._seal()
            if not batches:
                if self._stopping:
                    break
                self._ring.wait(self._idle_s())
        self._seal()

    def _idle_s(self) -> float:
        """How long there is nothing to do if nothing is pushed."""
        if self._segment is None:
            return 1.0
        return min(1.0, max(0.001, self._seal_at - time.monotonic()))

    def _flush(self, batches: list[Batch]) -> None:
        """Commit the batches, or say why not; either way they leave the ring."""
        started = time.perf_counter()
        error: StorageError | None = None
        try:
            self._commit(batches)
        except StorageError as e:
            error = e
        except Exception as e:
            # A bug must not end the thread: every waiting request would hang.
            log.exception("commit failed")
            error = StorageError(f"{type(e).__name__}: {e}")
        events = sum([batch.events for batch in batches])
        if error is None:
            self.commits += 1
            self.events_stored += events
            took = max(1e-6, time.perf_counter() - started)
            size = sum([len(batch.lines) for batch in batches])
            self.bytes_per_s += 0.1 * (size / took - self.bytes_per_s)
        else:
            self.events_failed += events
            if self.error is None:
                log.error("storage fails, waiting requests get 500: %s", error)
            self._abandon()
        if self.error is not None and error is None:
            log.warning("storage works again")
        self.error = error
        self._ring.release(batches)
        self._acknowledge(batches, error)

    def _commit(self, batches: list[Batch]) -> None:
        segment = self._segment or self._open()
        lines = b"".join([batch.lines for batch in batches]) if len(batches) > 1 else batches[0].lines
        segment.commit(
            lines,
            sum([batch.events for batch in batches]),
            batches[0].received_ms,
            batches[-1].received_ms,
            sync=self._settings.ack == "fsync",
        )

    def _open(self) -> Segment:
        self._sequence += 1
        name = new_name(datetime.now(UTC), self._node, self._worker, self._sequence)
        self._segment = Segment(self._disk, self._data_dir, name, self._settings.zstd_level)
        self._seal_at = time.monotonic() + self._settings.segment_age_max_s
        return self._segment

    def _seal(self) -> None:
        segment = self._segment
        if segment is None:
            return
        self._segment = None
        try:
            path = segment.seal()
        except StorageError as e:
            log.error("segment %s cannot be sealed: %s", segment.name, e)
            self._segment = segment
            self._abandon()
        else:
            self.segments_sealed += 1
            log.info(
                "sealed %s: %d commits, %d events",
                path.name,
                len(segment.chain.commits),
                segment.chain.events,
            )

    def _abandon(self) -> None:
        """Never touch a file again that a write or a sync has failed on; save its good commits."""
        segment = self._segment
        if segment is None:
            return
        self._segment = None
        path = segment.abandon()
        try:
            log.warning("%s", recovery.recover(self._disk, self._data_dir, path))
        except StorageError as e:
            log.error("segment %s stays in %s for the next start: %s", segment.name, path.parent, e)
