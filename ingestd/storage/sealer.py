"""The thread that brings files to their sealed place when nobody writes to them any more.

The flusher hands over what it has finished or abandoned and goes on committing. A finished segment
is packed if that pays, and published; of an abandoned file the good commits are saved. What the
disk refuses is tried again. Between two files this thread looks after room: it deletes what
retention says, and knows how much is free.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from ingestd.config import Settings
from ingestd.errors import as_storage_error
from ingestd.storage import packing, recovery, retention
from ingestd.storage.disk import Disk
from ingestd.storage.recovery import Recoveries
from ingestd.storage.room import Room
from ingestd.storage.segment import OPEN_SUFFIX, publish

log = logging.getLogger("ingestd.sealer")

_LOOK_S: Final = 1.0
_RETENTION_S: Final = 60.0
_RETRY_S: Final = 1.0
_RETRY_S_MAX: Final = 60.0


@dataclass(slots=True)
class _File:
    """One file in an open directory that nobody writes to any more."""

    path: Path
    is_finished: bool
    commits: int = 0
    content_bytes: int = 0
    """Of lines; both of a finished one."""
    retry_at: float = 0.0
    retry_s: float = _RETRY_S
    problem: str = ""

    @property
    def data_dir(self) -> Path:
        """The server's, or that of the events that were set aside in it."""
        return self.path.parent.parent


class Sealer:
    """Owns every file in the open directories but those that the flusher writes to."""

    def __init__(self, settings: Settings, disk: Disk) -> None:
        self.segments_sealed = 0
        self.segments_packed = 0
        self.segments_expired = 0
        self.refusals = 0
        """How often the disk has refused to let a file be sealed."""
        self.files_refused = 0
        """Those that it has refused last time, and that are tried again."""
        self.recoveries = Recoveries()
        self._files_taken = 0
        self._files_done = 0
        self.room = Room(disk, Path(settings.data_dir), settings.disk_reserve_bytes)
        self._settings = settings
        self._disk = disk
        self._files: SimpleQueue[_File | None] = SimpleQueue()
        self._waiting: list[_File] = []
        """What the disk has refused."""
        self._expires_at = 0.0
        self._waits_for: set[str] = set()
        """Destinations that segments are kept for, though they are due to go."""
        self._thread = threading.Thread(target=self._run, name="sealer", daemon=True)

    @property
    def files_waiting(self) -> int:
        """Files that nobody writes to any more and that are not at their sealed place yet."""
        return self._files_taken - self._files_done

    def start(self) -> None:
        """Begin to seal what is handed over."""
        self._thread.start()

    def stop(self) -> None:
        """Seal what has been handed over, try once more what the disk has refused, and end the thread."""
        self._files.put(None)
        self._thread.join()

    def take_finished(self, path: Path, commits: int, content_bytes: int) -> None:
        """A segment with a durable footer, of so many commits and bytes of lines."""
        self._take(_File(path, True, commits, content_bytes))

    def take_abandoned(self, path: Path) -> None:
        """A file of which only the good commits count."""
        self._take(_File(path, is_finished=False))

    def _take(self, file: _File) -> None:
        self._files_taken += 1
        self._files.put(file)

    def _run(self) -> None:
        while self.step(_LOOK_S):
            pass
        for file in self._waiting:
            log.warning("%s stays behind, the next start will see to it: %s", file.path, file.problem)

    def step(self, timeout_s: float) -> bool:
        """One turn of the thread, which waits so long for a file: seal what is due; False is the last."""
        stopping = False
        with suppress(Empty):
            file = self._files.get(timeout=timeout_s)
            if file is None:
                stopping = True
            else:
                self._waiting.append(file)
        now = time.monotonic()
        due = [file for file in self._waiting if stopping or file.retry_at <= now]
        self._waiting = [file for file in self._waiting if file not in due]
        for file in due:
            self._seal(file)
        self.files_refused = len(self._waiting)
        self._look_after_room(now)
        return not stopping

    def _seal(self, file: _File) -> None:
        """Bring one file to its place, or say why not and try again later."""
        try:
            if file.is_finished:
                self._publish(file)
            elif self._disk.exists(file.path):
                recovered = recovery.recover(self._disk, file.data_dir, file.path)
                self.recoveries.add(recovered)
                log.warning("abandoned: %s", recovered)
            self._files_done += 1
            return
        except Exception as e:
            # A bug must not end the thread either.
            problem = str(as_storage_error(e))
        if problem != file.problem:
            log.error("%s cannot be sealed yet: %s", file.path, problem)
        self.refusals += 1
        # Whether it is whole, and what of it is durable where, is now for recovery to find out.
        file.is_finished = False
        file.problem = problem
        file.retry_at = time.monotonic() + file.retry_s
        file.retry_s = min(2 * file.retry_s, _RETRY_S_MAX)
        self._waiting.append(file)

    def _publish(self, file: _File) -> None:
        path, disk = file.path, self._disk
        name = path.name.removesuffix(OPEN_SUFFIX)
        packed = None
        if packing.pays(disk, path, file.commits, file.content_bytes):
            packed = packing.pack(disk, path)
        target = publish(disk, file.data_dir, packed or path, name)
        if packed is not None:
            # Last, so that a crash leaves one of them whole.
            disk.unlink(path)
            disk.sync_directory(path.parent)
            self.segments_packed += 1
        self.segments_sealed += 1
        log.info("sealed %s%s", target.name, "" if packed is None else ", packed")

    def _look_after_room(self, now: float) -> None:
        try:
            self.room.look(now)
            if now >= self._expires_at:
                self._expires_at = now + _RETENTION_S
                self._expire()
        except Exception as e:
            log.error("cannot look after room: %s", as_storage_error(e))

    def _expire(self) -> None:
        settings, kept = self._settings, set[str]()
        for path in retention.expired(
            *(self._disk, Path(settings.data_dir), settings.retain_age_s, settings.retain_bytes, time.time()),
            lambda _, destination: kept.add(destination),
        ):
            retention.delete(self._disk, path)
            self.segments_expired += 1
            log.info("expired: %s", path.name)
        for destination in kept - self._waits_for:
            log.warning("segments that are due to go stay until they are delivered: shipped/%s", destination)
        self._waits_for = kept
