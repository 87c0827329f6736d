"""The process that operators see: it owns the sockets and the data directory, and keeps workers alive.

It does no work itself. A worker is a process of its own, started afresh from what is installed, that
inherits the lock and its sockets; its standard input is its brief and its lifeline (it drains and
ends when the supervisor is gone), its standard output says when it is ready. A worker that dies is
started again at once, and ever more slowly if it keeps dying.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from ingestd import __version__
from ingestd.config import Settings
from ingestd.errors import StorageError
from ingestd.http.cors import Cors
from ingestd.http.peers import Peers
from ingestd.service import keyfile, listeners, logs, replica, scoreboard
from ingestd.service.brief import READY, RELOADED, Brief
from ingestd.service.companion import Companion
from ingestd.service.listeners import Listener
from ingestd.service.place import Place
from ingestd.service.systemd import Notifier, watchdog_s
from ingestd.service.watchdog import Watchdog
from ingestd.storage.disk import Disk

log = logging.getLogger("ingestd.supervisor")

_STOPS: Final = (signal.SIGTERM, signal.SIGINT)
_FORWARDED: Final = (signal.SIGHUP, signal.SIGUSR1)
_HEARD: Final = (*_STOPS, *_FORWARDED, signal.SIGUSR2, signal.SIGCHLD)
_STEADY_S: Final = 10.0
"""A worker that has lived this long does not keep dying."""
_DELAY_S: Final = 0.1
_DELAY_S_MAX: Final = 10.0
_KILL_S: Final = 30.0
"""Beyond the drain timeout: what a commit, a seal and the packing of segments may still take."""
_START_S: Final = 300.0
"""What recovery may take on a slow disk."""


def serve(settings: Settings, *, ships: bool = False) -> int:
    """Run until SIGTERM or SIGINT, and a shipper beside if it `ships`; returns the exit status.

    Raises UsageError, StorageError.
    """
    logs.begin(settings)
    listeners.split(settings.listen)
    Peers(settings.trusted_proxies)
    Cors(settings.cors_origins)
    replica.check(settings, os.environ)
    disk, data_dir = Disk(), Path(settings.data_dir)
    disk.make_directory(data_dir)
    lock = disk.lock(data_dir / "lock")
    try:
        return Supervisor(settings, disk, lock, Companion(settings) if ships else None).run()
    finally:
        # The process's number may be another's soon.
        with suppress(StorageError):
            disk.truncate(lock, 0)
        disk.close(lock)


class Supervisor:
    """Starts, watches, restarts and ends the workers of one data directory."""

    def __init__(self, settings: Settings, disk: Disk, lock: int, companion: Companion | None = None) -> None:
        self._settings = settings
        self._disk = disk
        self._lock = lock
        self._companion = companion
        count = settings.workers or len(os.sched_getaffinity(0))
        self._memory = scoreboard.make(count)
        self._workers = [Place(number, self._memory) for number in range(count)]
        self._listeners: list[Listener] = []
        self._admin: list[Listener] = []
        self._selector = selectors.DefaultSelector()
        self._first_secret: str | None = None
        self._has_started = False
        self._is_stopping = False
        self._kill_at = 0.0
        self._rolling: list[Place] = []
        """Those still to be replaced in a rolling restart; the first one is being replaced."""
        self._status = 0
        self._notifier = Notifier(os.environ)
        beats = self._memory.table(scoreboard.WORKERS)
        self._watchdog = Watchdog(watchdog_s(os.environ), beats, self._notifier)
        self._reloading: set[Place] = set()
        """Those that have not said yet that they have reloaded."""

    def run(self) -> int:
        """Until all workers have ended after a stop; returns the exit status."""
        ear, mouth = socket.socketpair()
        with ear, mouth:
            for end in (ear, mouth):
                end.setblocking(False)
            signal.set_wakeup_fd(mouth.fileno())
            for number in _HEARD:
                signal.signal(number, lambda *_: None)
            self._selector.register(ear, selectors.EVENT_READ)
            self._listeners = listeners.open_all(self._settings, len(self._workers), dict(os.environ))
            try:
                self._admin = listeners.open_admin(self._settings)
                # Only a server that can be reached makes the key that is shown once, and only to people:
                # a log is kept, and travels.
                if not logs.is_for_machines():
                    self._first_secret = keyfile.ensure_one(self._disk, Path(self._settings.data_dir))
                while not self._is_stopping or self._is_busy():
                    self._start_due()
                    for worker in self._workers:
                        worker.tell()
                    self._notifier.status(self._described())
                    self._listen(ear)
                    self._reap()
                    self._watchdog.look(time.monotonic(), self._workers)
            finally:
                self._close_listeners()
                self._signal_all(signal.SIGKILL)
                signal.set_wakeup_fd(-1)
        return self._status

    def _is_busy(self) -> bool:
        """True if there is a process that has not ended yet."""
        is_shipping = self._companion is not None and self._companion.is_filled
        return is_shipping or any(worker.is_filled for worker in self._workers)

    def _signal_all(self, number: signal.Signals) -> None:
        for worker in self._workers:
            worker.signal(number)
        if self._companion is not None:
            self._companion.signal(number)

    # -- starting -----------------------------------------------------------------------------

    def _start_due(self) -> None:
        now = time.monotonic()
        if self._is_stopping:
            if now >= self._kill_at:
                self._signal_all(signal.SIGKILL)
            return
        for worker in self._workers:
            if not worker.is_filled and now >= worker.start_at:
                self._start(worker)

    def _start(self, worker: Place) -> None:
        part = (worker.number, len(self._workers))
        sockets = [fd for listener in self._listeners for fd in listener.of(*part)]
        tls = [fd for listener in self._listeners if listener.is_tls for fd in listener.of(*part)]
        admin = [fd for listener in self._admin for fd in listener.of(*part)]
        brief = Brief(self._settings, worker.number, len(self._workers), sockets, tls, admin, self._memory.fd)
        worker.start(brief, [self._lock, self._memory.fd, *sockets, *admin])
        worker.due_at = worker.started_at + _START_S
        self._selector.register(worker.stdout, selectors.EVENT_READ, worker)

    def _told(self, worker: Place) -> None:
        """A worker says that it is ready, or its output has ended with it."""
        said = worker.said()
        if not said:
            self._selector.unregister(worker.stdout)
        if RELOADED in said:
            self._reloaded(worker)
        if READY in said:
            worker.is_ready = True
            if self._rolling and self._rolling[0] is worker:
                log.info("worker %d is replaced", worker.number)
                self._rolling.pop(0)
                self._roll()
            if not self._has_started and all(worker.is_ready for worker in self._workers):
                self._has_started = True
                self._announce()

    def _announce(self) -> None:
        shown = ", ".join(listener.url for listener in self._listeners)
        count = len(self._workers)
        log.info(
            "ingestd %s listens on %s, data in %s, %d worker%s",
            *(__version__, shown, Path(self._settings.data_dir).resolve(), count, "s"[count == 1 :]),
        )
        if self._admin:
            log.info("metrics and probes on %s", ", ".join(listener.url for listener in self._admin))
        if self._first_secret is not None:
            # A certificate may be one that curl does not trust.
            plainest = min(self._listeners, key=lambda listener: listener.is_tls)
            keyfile.show_first(self._first_secret, plainest.url)
            self._first_secret = None
        if self._companion is not None:
            self._companion.start_at = time.monotonic()
        self._notifier.ready()
        self._watchdog.start(time.monotonic())

    def _described(self) -> str:
        """The state of the server in a line, for `systemctl status`."""
        count = len(self._workers)
        if self._is_stopping:
            left = sum(worker.is_filled for worker in self._workers)
            return f"Draining: {left} of {count} workers still work"
        shown = f"{sum(w.is_ready for w in self._workers)} of {count} workers are ready"
        if self._rolling:
            shown += f", {len(self._rolling)} are yet to be replaced"
        if self._watchdog.problem:
            shown += f"; {self._watchdog.problem}"
        return f"{'Serving' if self._has_started else 'Starting'}: {shown}"

    # -- signals ------------------------------------------------------------------------------

    def _listen(self, ear: socket.socket) -> None:
        """Wait for a signal, a word of a worker, or the time of the next start."""
        now = time.monotonic()
        starts = [worker.start_at for worker in self._workers if not worker.is_filled]
        if self._companion is not None and not self._companion.is_filled:
            starts.append(self._companion.start_at)
        until = self._kill_at if self._is_stopping else min([*starts, self._watchdog.look_at])
        for key, _ in self._selector.select(min(60.0, max(0.0, until - now))):
            if key.data is not None:
                self._told(key.data)
                continue
            with suppress(BlockingIOError):
                for number in ear.recv(256):
                    self._heard(number)

    def _heard(self, number: int) -> None:
        if number in _STOPS:
            self._stop(number)
        elif number in _FORWARDED:
            if number == signal.SIGHUP and self._has_started and not self._is_stopping:
                # Those that start will read everything anew in any case.
                self._reloading = {worker for worker in self._workers if worker.is_ready}
                if self._reloading:
                    self._notifier.reloading()
            for worker in self._workers:
                worker.signal(number)
        elif number == signal.SIGUSR2 and not self._is_stopping and not self._rolling:
            log.info("SIGUSR2: replacing the workers one by one")
            self._rolling = list(self._workers)
            self._roll()

    def _reloaded(self, worker: Place) -> None:
        """The worker has reloaded, or is no more: the next one reads everything anew."""
        if worker in self._reloading:
            self._reloading.remove(worker)
            if not self._reloading:
                self._notifier.ready()

    def _roll(self) -> None:
        """End the next worker that is to be replaced; its sockets stay open meanwhile."""
        if self._rolling and not self._is_stopping:
            worker = self._rolling[0]
            worker.is_ready = False
            worker.due_at = time.monotonic() + self._settings.drain_timeout_s + _KILL_S
            worker.signal(signal.SIGTERM)

    def _stop(self, number: int) -> None:
        if self._is_stopping:
            return
        log.info("%s: stopping", signal.Signals(number).name)
        self._end_all()

    def _end_all(self) -> None:
        self._is_stopping = True
        self._notifier.stopping()
        self._kill_at = time.monotonic() + self._settings.drain_timeout_s + _KILL_S
        self._close_listeners()
        self._signal_all(signal.SIGTERM)

    def _close_listeners(self) -> None:
        for listener in [*self._listeners, *self._admin]:
            listener.close()

    # -- ends ---------------------------------------------------------------------------------

    def _reap(self) -> None:
        if self._companion is not None:
            self._companion.look(time.monotonic(), is_stopping=self._is_stopping)
        for worker in self._workers:
            status = worker.ended()
            if status is None:
                continue
            with suppress(KeyError):
                self._selector.unregister(worker.stdout)
            worker.empty()
            worker.due_at = time.monotonic() + _DELAY_S_MAX + _START_S
            self._reloaded(worker)
            self._ended(worker, status)

    def _ended(self, worker: Place, status: int) -> None:
        """Say that a worker has ended, if it was not asked to, and decide when the next one starts."""
        now = time.monotonic()
        if self._is_stopping:
            # One that has hardly begun, and does not know the signal yet, is ended by it.
            if status != -signal.SIGTERM:
                self._status = self._status or abs(status)
            return
        if self._rolling and self._rolling[0] is worker and status == 0:
            worker.start_at = now
            return
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        if not self._has_started:
            # It has said why: it would fail again.
            log.error("worker %d %s", worker.number, how)
            self._status = abs(status) or 1
            self._end_all()
            return
        is_steady = now - worker.started_at >= _STEADY_S
        worker.delay_s = 0.0 if is_steady else min(max(_DELAY_S, 2 * worker.delay_s), _DELAY_S_MAX)
        worker.start_at = now + worker.delay_s
        worker.restarts += 1
        log.error("worker %d %s, the next one starts in %.1f s", worker.number, how, worker.delay_s)
