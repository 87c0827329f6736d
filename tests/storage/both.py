"""Promises about events, and about the invalid ones that are set aside with them, in one run of the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from ingestd.config import AckLevel
from ingestd.errors import StorageError
from ingestd.events import Batch
from ingestd.sifting import Sifted
from ingestd.storage.recovery import Recovered, recover_all
from ingestd.storage.segment import invalid_directory
from tests.storage.promises import Promises, Shown, check_recovered, look
from tests.storage.samples import DATA
from tests.support.disk import FaultyDisk

INVALID: Final = invalid_directory(DATA)
DIRECTORIES: Final = (DATA, INVALID)


def anybody(_: str) -> bool:
    return True


def recover_both(disk: FaultyDisk, is_ours: Callable[[str], bool] = anybody) -> list[Recovered]:
    """As a worker does at its start."""
    return [done for directory in DIRECTORIES for done in recover_all(disk, directory, is_ours)]


def check_both_recovered(disk: FaultyDisk, is_ours: Callable[[str], bool] = anybody) -> None:
    for directory in DIRECTORIES:
        check_recovered(disk, is_ours, directory)


class Both:
    """What is set aside is promised as its events are, when they are acknowledged."""

    def __init__(self, ack: AckLevel) -> None:
        self._events = Promises(ack)
        self._aside = Promises(ack, INVALID)
        self._all = (self._events, self._aside)

    @property
    def rotten(self) -> set[str]:
        return self._events.rotten

    @property
    def waiting(self) -> int:
        return sum(promises.waiting for promises in self._all)

    def new_batch(
        self, connection: int, count: int, size: int, *, is_random: bool, at_ms: int, invalid: int = 0
    ) -> Batch:
        """A batch, not yet sent; with `invalid` so many are set aside."""
        batch = self._events.new_batch(connection, count, size, is_random=is_random, at_ms=at_ms)
        if not invalid:
            return batch
        aside = self._aside.new_batch(connection, invalid, size, is_random=is_random, at_ms=at_ms)
        return Sifted(batch, aside, [])

    def sent(self, batch: Batch, worker: int) -> None:
        self._events.sent(batch, worker)
        if batch.quarantine is not None:
            self._aside.sent(batch.quarantine, worker)

    def answered(self, batches: list[Batch], error: StorageError | None, segment: str, receipt: str) -> None:
        self._events.answered(batches, error, segment, receipt)
        aside = [batch.quarantine for batch in batches if batch.quarantine is not None]
        # Its receipt is nobody's to know.
        self._aside.answered(aside, error, "", "")

    def ended(self, worker: int) -> None:
        for promises in self._all:
            promises.ended(worker)

    def lost_power(self) -> None:
        for promises in self._all:
            promises.lost_power()

    def rotted(self, shown: Shown, *, is_silent: bool) -> None:
        self._events.rotted(shown, is_silent=is_silent)

    def expired(self, path: Path, disk: FaultyDisk) -> None:
        """Retention deletes a segment."""
        promises = self._aside if INVALID in path.parents else self._events
        directory = INVALID if INVALID in path.parents else DATA
        shown = [one for one in look(disk, directory) if one.path == path]
        promises.expired(shown[0].name, shown[0].lines)

    def settle(self, disk: FaultyDisk) -> None:
        for promises in self._all:
            promises.settle(disk)

    def recovered(self, disk: FaultyDisk, survived: int) -> None:
        for promises in self._all:
            promises.recovered(disk, survived)

    def check(self, disk: FaultyDisk, survived: int, *, lost_power: bool = False) -> None:
        for promises in self._all:
            promises.check(disk, survived, lost_power=lost_power)
