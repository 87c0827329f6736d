"""The open segment of one worker in one directory, and the next when it is due: by size, age and commits."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Final

from ingestd.config import Settings
from ingestd.errors import as_storage_error
from ingestd.events import Batch
from ingestd.storage.disk import Disk
from ingestd.storage.open_segment import OpenSegment
from ingestd.storage.receipts import Receipt
from ingestd.storage.sealer import Sealer
from ingestd.storage.segment import OPEN_SUFFIX, new_name, open_directory, sealed_path

log = logging.getLogger("ingestd.flusher")

_COMMITS_MAX: Final = 65_536
"""Of one segment: its index is in memory until it is sealed, and is written in one piece."""


class Rotation:
    """Not thread-safe: the flusher owns it."""

    def __init__(
        self, settings: Settings, disk: Disk, data_dir: Path, sealer: Sealer, node: str, worker: int
    ) -> None:
        self.took_ns = 0
        """How long the disk has taken for the last commit."""
        self.stored_bytes = 0
        """Of commits as they were written, compressed."""
        self._settings = settings
        self._disk = disk
        self._data_dir = data_dir
        self._sealer = sealer
        self._node = node
        self._worker = worker
        self._segment: OpenSegment | None = None
        self._sequence = 0
        self._seal_at = 0.0

    @property
    def segment_name(self) -> str:
        """Of the segment that is being written; empty if there is none."""
        return "" if self._segment is None else self._segment.name

    @property
    def is_due(self) -> bool:
        """True if there is a segment that should be sealed now."""
        segment = self._segment
        return segment is not None and (
            segment.size >= self._settings.segment_bytes_max
            or len(segment.chain.commits) >= _COMMITS_MAX
            or time.monotonic() >= self._seal_at
        )

    @property
    def idle_s(self) -> float:
        """How long nothing will be due, if nothing is written; a second at most."""
        if self._segment is None:
            return 1.0
        return min(1.0, max(0.001, self._seal_at - time.monotonic()))

    def commit(self, batches: list[Batch], *, sync: bool) -> Receipt:
        """Write the batches as one commit, and with `sync` durably. Raises StorageError."""
        segment = self._segment or self._open()
        lines, message_ids = batches[0].lines, batches[0].message_ids
        if len(batches) > 1:
            lines = b"".join([batch.lines for batch in batches])
            message_ids = list(chain.from_iterable([batch.message_ids for batch in batches]))
        received_ms = [batch.received_ms for batch in batches]
        size_before = segment.size
        self.took_ns = segment.commit(
            lines,
            message_ids,
            # Not the first and the last batch's: the clock may have been set back between them.
            min(received_ms),
            max(received_ms),
            sync=sync,
        )
        self.stored_bytes += segment.size - size_before
        return Receipt(segment.name, len(segment.chain.commits) - 1)

    def _open(self) -> OpenSegment:
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
        self._segment = OpenSegment(self._disk, self._data_dir, name, self._settings.zstd_level)
        self._seal_at = time.monotonic() + self._settings.segment_age_max_s
        return self._segment

    def seal(self) -> None:
        """Finish the segment, if there is one, and hand it over."""
        segment = self._segment
        if segment is None:
            return
        try:
            path = segment.finish()
        except Exception as e:
            log.error("segment %s cannot be finished: %s", segment.name, as_storage_error(e))
            self.abandon()
        else:
            self._segment = None
            commits = segment.chain.commits
            self._sealer.take_finished(path, len(commits), sum([c.content_bytes for c in commits]))

    def abandon(self) -> None:
        """Never touch a file again that a write or a sync has failed on; its good commits are saved."""
        segment, self._segment = self._segment, None
        if segment is not None:
            self._sealer.take_abandoned(segment.abandon())
