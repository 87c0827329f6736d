"""The workers of a run of the model: real rings, flushers, sealers and recovery, without their threads.

The threads take turns, and one may take its turn in the middle of another's. A worker ends well, is
killed, or ends with the power; it is started again on what is there then, and that is checked.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from ingestd.config import AckLevel, Settings
from ingestd.errors import StorageError
from ingestd.events import Batch
from ingestd.ring import Ring
from ingestd.storage import find, packing, reader, retention, rotation, verify
from ingestd.storage import flusher as flusher_module
from ingestd.storage import sealer as sealer_module
from ingestd.storage.flusher import Flusher
from ingestd.storage.sealer import Sealer
from ingestd.storage.segment import OPEN_SUFFIX, open_directory, worker_of
from tests.storage.both import DIRECTORIES, Both, check_both_recovered, recover_both
from tests.storage.promises import KILL, POWER, Failure
from tests.storage.samples import DATA, tree
from tests.support.disk import FaultyDisk, PowerCut


@dataclass(frozen=True)
class Shape:
    """The settings of a run, and the kind of its disk."""

    ack: AckLevel = "fsync"
    workers: int = 1
    segment_bytes: int = 1500
    commit_bytes: int = 100_000
    commits_max: int = 65_536
    packed_bytes: int = 1 << 20
    retain_bytes: int = 0
    retain_age_s: int = 0
    has_links: bool = True
    has_dsync: bool = False
    has_clock: bool = True
    """Without, the time stands still, as on a machine that boots into the same moment again and again."""


class Clock:
    """In the place of the modules time and datetime."""

    def __init__(self) -> None:
        self.now_s = 1_767_323_045.678

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return self.now_s

    def now(self, tz: tzinfo | None = None) -> datetime:
        return datetime.fromtimestamp(self.now_s, tz or UTC)


@dataclass(eq=False)
class Worker:
    """One process. Its connections end with it."""

    connections: int
    ring: Ring
    flusher: Flusher
    sealer: Sealer


class Processes:
    """One data directory, and the workers that come and go on it."""

    def __init__(self, shape: Shape) -> None:
        self.counts: Counter[str] = Counter()
        self._shape = shape
        self._settings = Settings(
            data_dir=str(DATA),
            ack=shape.ack,
            segment_bytes_max=shape.segment_bytes,
            segment_age_max_s=5.0,
            commit_bytes_max=shape.commit_bytes,
            retain_bytes=shape.retain_bytes,
            retain_age_s=shape.retain_age_s,
        )
        self._clock = Clock()
        self._promises = Both(shape.ack)
        self._workers: dict[int, Worker] = {}
        self._running: list[tuple[int, str]] = []
        """Whose turn it is, worker and thread; before it, in the middle of whose."""
        self._survived = POWER
        self._cut = (True, 0)
        self._start_cuts: list[tuple[int, bool, int]] = []
        self._starts = 0
        self._use(FaultyDisk(DATA, has_links=shape.has_links, has_dsync=shape.has_dsync))
        self.failed = self._disk.failed

    @contextmanager
    def patched(self) -> Iterator[None]:
        """The clock, small packing, no threads, and no bug that is taken for an error of the disk."""
        patches: list[tuple[Any, str, Any]] = [
            (flusher_module, "time", self._clock),
            (flusher_module, "as_storage_error", _storage_error_only),
            (rotation, "time", self._clock),
            (rotation, "datetime", self._clock),
            (rotation, "_COMMITS_MAX", self._shape.commits_max),
            (rotation, "as_storage_error", _storage_error_only),
            (sealer_module, "time", self._clock),
            (sealer_module, "as_storage_error", _storage_error_only),
            (packing, "_PACKED_BYTES", self._shape.packed_bytes),
            (retention, "delete", self._expiring(retention.delete)),
            (reader, "in_order", _one_by_one),
            (find, "in_order", _one_by_one),
            (verify, "in_order", _one_by_one),
        ]
        logging.disable()
        try:
            with ExitStack() as stack:
                for module, name, value in patches:
                    stack.enter_context(patch.object(module, name, value))
                yield
        finally:
            logging.disable(logging.NOTSET)

    def _on_call(self, call: str, name: str) -> None:
        """Before each call of the disk."""

    def _use(self, disk: FaultyDisk) -> None:
        self._disk = disk
        disk.on_call = self._on_call
        disk.clock = self._clock.time

    # Turns

    @property
    def _level(self) -> int:
        """What must be there now: while all start, what survived their end."""
        return self._survived if any(thread == "start" for _, thread in self._running) else KILL

    def _turn(self, number: int, thread: str) -> None:
        """Let a thread of a worker take one turn."""
        worker = self._workers[number]
        self._running.append((number, thread))
        if thread == "flusher":
            worker.flusher.step()
        else:
            worker.sealer.step(0.0)
        self._running.pop()

    def _others(self) -> list[tuple[int, str]]:
        """The threads that are not in the middle of a turn."""
        all_of_them = [(number, thread) for number in self._workers for thread in ("flusher", "sealer")]
        return [one for one in all_of_them if one not in self._running]

    def _acknowledge(
        self, number: int, batches: list[Batch], error: StorageError | None, receipt: str, _ack: str
    ) -> None:
        self._promises.answered(batches, error, self._workers[number].flusher.segment_name, receipt)

    # Ends

    def _cut_after(self, calls: int, is_power: bool, seed: int) -> None:
        """After so many calls the power goes, or the worker is killed."""
        self._disk.cut_after, self._disk.cut_rng = calls, Random(seed)
        self._cut = is_power, seed

    def _end_well(self) -> None:
        """As service/worker stops. Raises Failure if something is left over."""
        failed = self.failed.total()
        for number, worker in self._workers.items():
            self._running = [(number, "flusher")]
            worker.flusher.stop()
            worker.flusher.finish()
            self._running = [(number, "sealer")]
            worker.sealer._files.put(None)
            while worker.sealer.step(0.0):
                pass
            self._running = []
            if worker.ring.batches or worker.ring.bytes:
                raise Failure("something is left in the ring")
        if self._promises.waiting:
            raise Failure(f"{self._promises.waiting} batches were never acknowledged")
        if self._disk.open_files:
            raise Failure(f"descriptors are left open: {self._disk.open_files}")
        directories = [open_directory(directory) for directory in DIRECTORIES]
        left = [path.name for one in directories for path in self._disk.copy().list(one, f"*{OPEN_SUFFIX}")]
        if left and self.failed.total() == failed and not self._promises.rotten:
            raise Failure(f"not sealed at the end, and nothing has failed: {left}")

    def _fall(self, is_power: bool, seed: int, numbers: Iterable[int] = ()) -> None:
        """Workers end here: all with the power, else these and those in the middle of a turn."""
        self.counts["power cuts" if is_power else "kills"] += 1
        self.counts[f"ends during {self._running[-1][1] if self._running else 'nothing'}"] += 1
        dead = range(self._shape.workers) if is_power else {*numbers, *(n for n, _ in self._running)}
        for number in sorted(dead):
            worker = self._workers.pop(number, None)
            if worker is not None:
                self.counts["sealed"] += worker.sealer.segments_sealed
                self.counts["packed"] += worker.sealer.segments_packed
            self._promises.ended(number)
            self._disk.kill(f"*-w{number}[-.]*")
        self._running = []
        if is_power:
            self._survived = POWER
            self._promises.lost_power()
            before = self._disk
            self._use(before.crash(Random(seed) if seed % 4 else None))
            self._disk.inherit(before)

    # Starts

    def _is_ours(self, number: int, name: str) -> bool:
        """As in service/worker."""
        found = worker_of(name)
        return found == number or (number == 0 and (found is None or found >= self._shape.workers))

    def _boot(self) -> None:
        """Start the workers that do not run, until they do, and look at what is there then."""
        clean: set[int] = set()
        while len(self._workers) < self._shape.workers:
            number = min(set(range(self._shape.workers)) - set(self._workers))
            failed = self.failed.total()
            self._running = [(number, "start")]
            if self._start_cuts:
                self._cut_after(*self._start_cuts.pop(0))
            try:
                is_clean = self._start(number) and self.failed.total() == failed
            except PowerCut:
                self._fall(*self._cut)
                clean.intersection_update(self._workers)
            except StorageError as e:
                if self.failed.total() == failed:
                    raise Failure(f"the start fails: {e}") from e
                self._disk.mend()
                self._fall(False, 0)
            else:
                self._running = []
                clean |= {number} if is_clean else set()
        found = self._disk.copy()
        self._promises.check(found, self._survived)
        for number in clean:
            is_ours = partial(self._is_ours, number)
            check_both_recovered(found, is_ours)
            before = tree(found)
            if recover_both(found, is_ours) or tree(found) != before:
                raise Failure("a second recovery changes something")
        self._promises.recovered(found, self._survived)
        if self._shape.has_links:
            self._promises.settle(found)
        self._survived = KILL

    def _start(self, number: int) -> bool:
        """As service/worker does it; True if nothing is left for later."""
        self._starts += 1
        for directory in DIRECTORIES:
            self._disk.make_directory(open_directory(directory))
        sealer = Sealer(self._settings, self._disk)
        is_clean = True
        for recovered in recover_both(self._disk, partial(self._is_ours, number)):
            self.counts[recovered.action] += 1
            if recovered.is_left:
                is_clean = False
                sealer.take_abandoned(recovered.path)
        ring = Ring(64, 200_000)
        acknowledge = partial(self._acknowledge, number)
        flusher = Flusher(self._settings, self._disk, ring, acknowledge, sealer, "node", number)
        self._workers[number] = Worker(self._starts * 10, ring, flusher, sealer)
        return is_clean

    # Retention

    def _expiring(self, delete: Callable[[FaultyDisk, Path], None]) -> Callable[[FaultyDisk, Path], None]:
        """Retention, with an eye on what it deletes."""

        def deleting(disk: FaultyDisk, path: Path) -> None:
            found = disk.copy()
            stat = found.size_and_time(path)
            if stat is not None:
                sealed = [
                    one
                    for directory in DIRECTORIES
                    for one in found.list(directory / "segments", "*", deep=True)
                ]
                sealed.sort(key=lambda one: one.name)
                total = sum(len(found.read(one)) for one in sealed)
                age_s, most = self._shape.retain_age_s, self._shape.retain_bytes
                is_old = age_s and stat[1] < self._clock.now_s - age_s
                # Another worker may have sealed an older one meanwhile.
                is_oldest = path == sealed[0] or self._shape.workers > 1
                if not is_old and not (most and total > most and is_oldest):
                    raise Failure(f"retention deletes {path} and must not")
                self.counts["expired"] += 1
                self._promises.expired(path, found)
            delete(disk, path)

        return deleting


def _storage_error_only(error: Exception) -> StorageError:
    """A bug must show, not pass for a failing disk."""
    if not isinstance(error, StorageError):
        raise error
    return error


def _one_by_one(tasks: Iterable[Any], work: Callable[[Any], Any]) -> Iterator[tuple[Any, Any]]:
    """In the place of the readers' threads."""
    for task in tasks:
        yield task, work(task)
