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
from datetime import UTC, datetime
from pathlib import Path

from ingestd.config import Settings
from ingestd.errors import StorageError
from ingestd.events import Batch
from ingestd.ring import Ring
from ingestd.storage import recovery
from ingestd.storage.disk import Disk
from ingestd.storage.segment import OPEN_SUFFIX, Segment, new_name, open_directory, sealed_path

log = logging.getLogger("ingestd.flusher")

_PROBE_S = 1.0

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
        """Bytes of lines committed a second while busy, smoothed; 0 before the first commit."""
        self.error: StorageError | None = None
        """Why the last commit or probe failed; None while storage works."""
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
        self._probe_at = 0.0
        self._stranded: list[Path] = []
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
        # Woken, this thread must not push the loop off its core: the loop is about to sleep anyway.
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        while True:
            # Read before the ring: what was pushed before stop() must be seen below.
            stopping = self._stopping
            gathering = self._ring.is_gathering and not stopping
            batches = [] if gathering else self._ring.pop(self._settings.commit_bytes_max)
            if batches:
                self._flush(batches)
            if self._segment is not None and (
                self._segment.size >= self._settings.segment_bytes_max or time.monotonic() >= self._seal_at
            ):
                self._seal()
            if not batches:
                if stopping:
                    break
                if self.error is not None and time.monotonic() >= self._probe_at:
                    self._probe()
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
        except Exception as e:
            # A bug must not end the thread: every waiting request would hang.
            error = _as_storage_error(e)
        events = sum([batch.events for batch in batches])
        if error is None:
            self.commits += 1
            self.events_stored += events
            took = max(1e-6, time.perf_counter() - started)
            size = sum([len(batch.lines) for batch in batches])
            self.bytes_per_s = smoothed(self.bytes_per_s, size / took)
        else:
            self.events_failed += events
            self._abandon()
        self._note(error)
        self._ring.release(batches)
        self._acknowledge(batches, error)

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
            self._note(_as_storage_error(e))
        else:
            self._note(None)

    def _commit(self, batches: list[Batch]) -> None:
        segment = self._segment or self._open()
        lines = b"".join([batch.lines for batch in batches]) if len(batches) > 1 else batches[0].lines
        received_ms = [batch.received_ms for batch in batches]
        segment.commit(
            lines,
            sum([batch.events for batch in batches]),
            # Not the first and the last batch's: the clock may have been set back between them.
            min(received_ms),
            max(received_ms),
            sync=self._settings.ack == "fsync",
        )

    def _open(self) -> Segment:
        while True:
            self._sequence += 1
            name = new_name(datetime.now(UTC), self._node, self._worker, self._sequence)
            # Sequences begin again with each process, and a machine without a clock battery boots
            # into the same time again and again: a name may have been used.
            if not (
                self._disk.exists(sealed_path(self._data_dir, name))
                or self._disk.exists(open_directory(self._data_dir) / (name + OPEN_SUFFIX))
            ):
                break
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
        except Exception as e:
            log.error("segment %s cannot be sealed: %s", segment.name, _as_storage_error(e))
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
            stranded, self._stranded = self._stranded, []
            for path in stranded:
                self._recover(path)

    def _abandon(self) -> None:
        """Never touch a file again that a write or a sync has failed on; save its good commits."""
        segment = self._segment
        if segment is None:
            return
        self._segment = None
        self._recover(segment.abandon())

    def _recover(self, path: Path) -> None:
        """Seal what is good of an abandoned file; if the disk refuses, it waits for the next seal."""
        try:
            if self._disk.exists(path):
                log.warning("abandoned: %s", recovery.recover(self._disk, self._data_dir, path))
        except Exception as e:
            log.error("%s waits for recovery: %s", path, _as_storage_error(e))
            self._stranded.append(path)


def smoothed(rate: float, sample: float) -> float:
    """The new rate; the first sample counts whole, for a rate near 0 would ask clients to wait long."""
    return rate + 0.1 * (sample - rate) if rate else sample


def _as_storage_error(error: Exception) -> StorageError:
    """The disk's own errors as they are; a bug, with a traceback in the log, as one of them."""
    if isinstance(error, StorageError):
        return error
    log.error("unexpected error", exc_info=error)
    return StorageError(f"{type(error).__name__}: {error}")
