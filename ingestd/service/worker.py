"""One worker: a loop, a ring, a flusher thread, an open segment; built, run and ended here.

The only room that knows both the wire and the disk. It is a process of its own, which the
supervisor starts as `python -m ingestd.service.worker`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from ingestd import ratelimit
from ingestd.config import AckLevel, Settings
from ingestd.errors import StorageError, UsageError, no_room
from ingestd.events import Batch
from ingestd.http import logged
from ingestd.http.hub import Hub
from ingestd.http.tls import TlsTransport
from ingestd.keys import Keyring
from ingestd.ratelimit import RateLimits
from ingestd.ring import Ring
from ingestd.service import keyfile, logs, memory, readiness, replica
from ingestd.service.accepting import accept
from ingestd.service.brief import READY, RELOADED, Brief
from ingestd.service.certificates import Certificate
from ingestd.service.reporter import Reporter
from ingestd.service.scoreboard import SharedMemory
from ingestd.storage import recovery
from ingestd.storage.disk import Disk
from ingestd.storage.flusher import Flusher
from ingestd.storage.sealer import Sealer
from ingestd.storage.segment import invalid_directory, open_directory, worker_of

log = logging.getLogger("ingestd.worker")

_TICK_S: Final = 0.25
_KEYS_TICKS: Final = 4
_FILES_KEPT_BACK: Final = 64
_LIFELINE: Final = 0
"""Standard input: it ends when the supervisor does."""


def main() -> int:
    """Take the brief, recover, serve; returns the exit status."""
    # Ctrl-C reaches the whole group; the supervisor says when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A signal during recovery waits for the loop: a start that is stopped ends like any other stop.
    early: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: early.append(number))
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)
    brief = msgspec.json.decode(sys.stdin.buffer.readline(), type=Brief)
    logs.begin(brief.settings, brief.worker)
    try:
        return _serve(brief, early)
    except (UsageError, StorageError) as e:
        log.error("%s", e)
        return 2 if isinstance(e, UsageError) else 1


def _serve(brief: Brief, early: list[int]) -> int:
    settings = _within_file_limit(brief.settings)
    disk, data_dir = Disk(), Path(settings.data_dir)
    sealer = Sealer(settings, disk)
    for directory in (data_dir, invalid_directory(data_dir)):
        disk.make_directory(open_directory(directory))
        for recovered in recovery.recover_all(disk, directory, partial(_is_ours, brief)):
            log.warning("recovery: %s", recovered)
            sealer.recoveries.add(recovered)
            if recovered.is_left:
                sealer.take_abandoned(recovered.path)
    return uvloop.run(_Worker(brief, settings, disk, sealer).run(early))


def _is_ours(brief: Brief, name: str) -> bool:
    """True for a file that this worker has left behind; the first one takes what no other will."""
    number = worker_of(name)
    return number == brief.worker or (brief.worker == 0 and (number is None or number >= brief.workers))


def _within_file_limit(settings: Settings) -> Settings:
    """As many connections as there may be files, some kept back: storage must never lack one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = max(1, hard - _FILES_KEPT_BACK)
    if hard == resource.RLIM_INFINITY or settings.connections_max <= most:
        return settings
    log.warning("connections_max is %d, for the limit on open files is %d", most, hard)
    return msgspec.structs.replace(settings, connections_max=most)


class _Worker:
    def __init__(self, brief: Brief, settings: Settings, disk: Disk, sealer: Sealer) -> None:
        self._brief = brief
        self._settings = settings
        self._disk = disk
        self._data_dir = Path(settings.data_dir)
        self._ring = Ring(settings.ring_batches_max, settings.ring_bytes_max)
        self._sealer = sealer
        self._replica = replica.replica(settings, os.environ)
        node = socket.gethostname()
        self._flusher = Flusher(
            settings, disk, self._ring, self._acknowledge, sealer, node, brief.worker, self._replica
        )
        self._memory = SharedMemory(brief.memory)
        self._certificate = Certificate(settings) if brief.tls_sockets else None
        self._keyring = Keyring()
        self._keys_stamp: object = "none yet"
        self._stopping = asyncio.Event()

    async def run(self, early: list[int]) -> int:
        """Serve until a signal; then answer what is in flight, commit, seal. Returns the exit status.

        `early` are the signals that came before there was a loop.
        """
        self._loop = asyncio.get_running_loop()
        self._hear()
        if early:
            self._stop("SIGTERM")
        self._hub = Hub(
            self._settings,
            self._keyring,
            self._ring,
            clock=self._loop.time,
            defer=self._loop.call_soon,
            drain_bytes_per_s=lambda: self._flusher.bytes_per_s,
            not_ready=lambda: readiness.look(self._hub, self._flusher, self._replica)[1],
            limits=self._limits(),
        )
        self._load_keys()
        memory.keep_freed_blocks()
        self._sealer.room.look(self._loop.time())
        self._heed_room()
        self._sealer.start()
        self._flusher.start()
        # What lives now lives until the end; collecting it again and again costs time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        servers = [await self._accept(fd, self._hub) for fd in self._brief.sockets]
        admin_servers: list[asyncio.Server] = []
        # Before anybody takes it for ready, so that the beats of the one before it are gone.
        self._reporter = Reporter(
            self._brief, self._memory, self._hub, self._ring, self._flusher, self._sealer, self._replica
        )
        self._reporter.report()
        self._admin = self._admin_hub()
        if self._admin is not None:
            admin_servers = [await self._accept(fd, self._admin) for fd in self._brief.admin_sockets]
        ticking = asyncio.create_task(self._tick())
        os.write(sys.stdout.fileno(), READY)
        await self._stopping.wait()
        for server in servers:
            server.close()
        # What was accepted in this turn of the loop becomes a connection in the next: it is to be heard.
        await asyncio.sleep(0)
        await self._drain()
        # Until now it has told that this worker drains.
        for server in admin_servers:
            server.close()
        for connection in list(self._admin.connections) if self._admin is not None else ():
            connection.abort()
        ticking.cancel()
        self._reporter.report()
        return 0 if self._flusher.events_failed == 0 else 1

    def _hear(self) -> None:
        """From now on the loop hears signals, and the end of the supervisor."""
        add = self._loop.add_signal_handler
        add(signal.SIGTERM, self._stop, "SIGTERM")
        add(signal.SIGHUP, self._reload)
        add(signal.SIGUSR1, self._flusher.seal_now)
        self._loop.add_reader(_LIFELINE, self._orphaned)

    def _orphaned(self) -> None:
        self._loop.remove_reader(_LIFELINE)
        self._stop("the supervisor has ended")

    async def _accept(self, fd: int, hub: Hub) -> asyncio.Server:
        make: Callable[[], asyncio.BaseProtocol] = partial(logged.connection, hub)
        if self._certificate is not None and fd in self._brief.tls_sockets:
            certificate = self._certificate
            make = partial(TlsTransport, hub, lambda: certificate.context, logged.connection)
        return await accept(socket.socket(fileno=fd), make)

    async def _tick(self) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(_TICK_S)
            ticks += 1
            # Nothing may end this task: no deadline would pass any more, and no revoked key stop.
            try:
                self._heed_room()
                self._hub.tick()
                if self._admin is not None:
                    self._admin.tick()
            except Exception:
                log.exception("bug while ending what is overdue")
            try:
                self._reporter.report()
            except Exception:
                log.exception("bug while telling the others")
            if ticks % _KEYS_TICKS == 0:
                self._follow_keys()

    def _reload(self) -> None:
        log.info("SIGHUP: reloading")
        self._keys_stamp = None
        self._follow_keys()
        if self._certificate is not None:
            try:
                self._certificate.reload()
            except Exception as e:
                log.error("certificate not reloaded, the old one stays: %s", e)
        os.write(sys.stdout.fileno(), RELOADED)

    def _admin_hub(self) -> Hub | None:
        """The hub of the listener for operators, if there is one."""
        if not self._brief.admin_sockets:
            return None
        # prometheus-client is a tenth of what a worker imports (measured: 21 of 234 ms of CPU).
        from ingestd.service.admin import Admin

        return Admin(self._brief, self._memory, self._reporter).hub(self._loop)

    def _limits(self) -> RateLimits:
        """Those of the keys, in the memory of all workers."""
        worker, workers = self._brief.worker, self._brief.workers
        memory = self._memory.region(ratelimit.REGION, ratelimit.memory_bytes(workers))
        return RateLimits(memory, worker, workers, self._loop.time)

    def _follow_keys(self) -> None:
        """Take up keys.toml if that can be done; the server runs in any case."""
        try:
            self._load_keys()
        except Exception as e:
            log.error("keys not reloaded, the old ones stay: %s", e)

    def _load_keys(self) -> None:
        """Take up keys.toml if it has changed since the last look. Raises UsageError, StorageError."""
        stamp = self._disk.stamp(keyfile.path(self._disk, self._data_dir))
        if stamp == self._keys_stamp:
            return
        try:
            keys = keyfile.load(self._disk, self._data_dir)
        except UsageError:
            # Said once: looking again at the same file would find the same mistake.
            self._keys_stamp = stamp
            raise
        self._keyring.replace(keys)
        self._keys_stamp = stamp
        log.info("keys loaded: %d", len(self._keyring))
        if not len(self._keyring):
            log.warning("there are no keys, so every event gets 401; 'ingestd key add NAME' makes one")

    def _heed_room(self) -> None:
        """Refuse events while the disk is nearly full."""
        room, hub = self._sealer.room, self._hub
        problem = room.problem
        if problem and hub.no_room is None:
            log.error("events get 429: %s", problem)
        elif not problem and hub.no_room is not None:
            log.warning("there is room on the disk again, events are taken")
        hub.no_room = no_room(problem, room.retry_after_s) if problem else None

    def _acknowledge(
        self, batches: list[Batch], error: StorageError | None, receipt: str, ack: AckLevel
    ) -> None:
        """On the flusher's thread: one hop to the loop for the whole commit.

        The next commit waits for what these answers bring in, or the clients would part into two
        crowds that are committed in turn, with twice the commits.
        """
        self._ring.expect_more()
        self._loop.call_soon_threadsafe(self._deliver, batches, error, receipt, ack)

    def _deliver(self, batches: list[Batch], error: StorageError | None, receipt: str, ack: AckLevel) -> None:
        self._hub.rounds.begin()
        self._hub.rounds.ack = ack
        for batch in batches:
            assert batch.ack is not None
            try:
                batch.ack(error, receipt)
            except Exception:
                # The others must hear of theirs.
                log.exception("bug while answering")

    def _stop(self, why: str) -> None:
        if not self._stopping.is_set():
            log.info("%s: draining", why)
            self._stopping.set()

    async def _drain(self) -> None:
        """In the order of the data's way: requests, ring, segment."""
        hub, flusher = self._hub, self._flusher
        hub.drain()
        log.info(
            "drain: %d connections open, %d batches in the ring", len(hub.connections), self._ring.batches
        )
        end = self._loop.time() + self._settings.drain_timeout_s
        while hub.connections and self._loop.time() < end:
            await asyncio.sleep(0.02)
        for connection in list(hub.connections):
            connection.abort()
        flusher.stop()
        await asyncio.to_thread(flusher.join)
        await asyncio.to_thread(self._sealer.stop)
        if self._replica is not None:
            self._replica.close()
        self._settle()

    def _settle(self) -> None:
        """Say what became of every event that was received."""
        flusher, rounds, sealer = self._flusher, self._hub.rounds, self._sealer
        received, refused = rounds.events_received, rounds.events_refused + flusher.events_unreplicated
        stored, failed = flusher.events_stored, flusher.events_failed
        log.info(
            "stopped: %d events received = %d stored + %d refused + %d failed, "
            "%d commits, %d segments sealed",
            *(received, stored, refused, failed, flusher.commits, sealer.segments_sealed),
        )
        self._hub.reports.tick(math.inf)
        if received != stored + refused + failed:
            log.error("%d events are not accounted for: this is a bug", received - stored - refused - failed)


if __name__ == "__main__":
    sys.exit(main())
