"""A flusher and a sealer on their own threads, between a real ring and a disk that fails where told to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from queue import Queue
from random import Random
from typing import Any

from ingestd.config import AckLevel, Settings
from ingestd.errors import StorageError
from ingestd.events import Batch
from ingestd.ring import Ring
from ingestd.storage import reader
from ingestd.storage.disk import Disk
from ingestd.storage.flusher import Flusher, Replica
from ingestd.storage.recovery import recover_all
from ingestd.storage.sealer import Sealer
from tests.storage.samples import DATA, tree
from tests.support.disk import FaultyDisk

PATIENCE_S = 60.0
"""Only a hang takes this long."""


def put(ring: Ring, one: Batch) -> bool:
    """A round of one batch."""
    fits = ring.push(one)
    ring.publish()
    return fits


class Running:
    """A flusher and what it has acknowledged; push before `start` to have batches commit together."""

    def __init__(
        self,
        disk: Disk,
        data_dir: Path = DATA,
        ring: Ring | None = None,
        worker: int = 0,
        replica: Replica | None = None,
        **settings: Any,
    ) -> None:
        self.disk = disk
        self.ring = ring or Ring(1000, 1 << 20)
        self.acks: Queue[tuple[list[Batch], StorageError | None]] = Queue()
        self.receipts: list[str] = []
        self.on_ack: Callable[[], None] = lambda: None
        self.settings = Settings(data_dir=str(data_dir), **settings)
        self.sealer = Sealer(self.settings, disk)
        self.flusher = Flusher(
            self.settings, disk, self.ring, self._acknowledge, self.sealer, "node", worker, replica
        )

    def _acknowledge(
        self, batches: list[Batch], error: StorageError | None, receipt: str, _ack: AckLevel
    ) -> None:
        self.on_ack()
        self.receipts.append(receipt)
        self.acks.put((batches, error))

    def start(self) -> Running:
        self.sealer.start()
        self.flusher.start()
        return self

    def commit(self, *batches: Batch) -> StorageError | None:
        """Push one batch after the other, each acknowledged before the next; the last one's error."""
        error = None
        for one in batches:
            assert put(self.ring, one)
            done, error = self.acks.get(timeout=PATIENCE_S)
            assert done == [one]
        return error

    def stop(self) -> None:
        self.flusher.stop()
        self.flusher.join()
        self.sealer.stop()
        assert not self.flusher.alive
        assert (self.ring.batches, self.ring.bytes) == (0, 0)


def started(disk: FaultyDisk, **settings: Any) -> Running:
    """A running flusher on this disk."""
    return Running(disk, **settings).start()


def stored(disk: Disk, data_dir: Path = DATA) -> bytes:
    """All lines that can be read; nothing may be wrong."""

    def wrong(text: str) -> None:
        raise AssertionError(text)

    return b"".join(reader.cat(disk, [data_dir], follow=False, problem=wrong))


def after_power_cut(disk: FaultyDisk, rng: Random | None = None) -> bytes:
    """All lines that are there after a power cut and recovery."""
    after = disk.crash(rng)
    recover_all(after, DATA)
    return stored(after)


def sealed(disk: FaultyDisk) -> list[bytes]:
    """The bytes of the sealed segments."""
    return [data for name, data in tree(disk).items() if name.startswith("segments/")]
