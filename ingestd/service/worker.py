"""One worker: a loop, a ring, a flusher thread, an open segment; built, run and ended here.

The only room that knows both the wire and the disk.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import stat
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
import uvloop

from ingestd import __version__
from ingestd.config import Settings
from ingestd.errors import StorageError, UsageError, no_room
from ingestd.events import Batch
from ingestd.http.hub import Hub
from ingestd.http.protocol import Connection
from ingestd.keys import Keyring
from ingestd.ring import Ring
from ingestd.service import keyfile, memory
from ingestd.storage import recovery
from ingestd.storage.disk import Disk
from ingestd.storage.flusher import Flusher
from ingestd.storage.sealer import Sealer
from ingestd.storage.segment import open_directory

log = logging.getLogger("ingestd.worker")

_TICK_S = 0.25
_KEYS_TICKS = 4
STUCK_S = 5.0
"""No disk that works takes so long for one commit."""
_FILES_KEPT_BACK = 64
_BACKLOG = 4096
_STOPS = (signal.SIGTERM, signal.SIGINT)
_UNIX = "unix:"


def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; returns the exit status. Raises UsageError, StorageError."""
    if settings.workers != 1:
        raise UsageError(f"--workers {settings.workers}: this version runs one worker; say --workers 1")
    parse_address(settings.listen)
    settings = _within_file_limit(settings)
    # A signal during recovery waits for the loop: a start that is stopped ends like any other stop.
    early: list[int] = []
    for number in _STOPS:
        signal.signal(number, lambda number, _frame: early.append(number))
    disk = Disk()
    data_dir = Path(settings.data_dir)
    disk.make_directory(data_dir)
    lock = disk.lock(data_dir / "lock")
    try:
        disk.make_directory(open_directory(data_dir))
        sealer = Sealer(settings, disk)
        for recovered in recovery.recover_all(disk, data_dir):
            log.warning("recovery: %s", recovered)
            if recovered.is_left:
                sealer.take_abandoned(recovered.path)
        return uvloop.run(_Worker(settings, disk, sealer).run(early))
    finally:
        # The process's number may be another's soon.
        with suppress(StorageError):
            disk.truncate(lock, 0)
        disk.close(lock)


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
    def __init__(self, settings: Settings, disk: Disk, sealer: Sealer) -> None:
        self._settings = settings
        self._disk = disk
        self._data_dir = Path(settings.data_dir)
        self._ring = Ring(settings.ring_batches_max, settings.ring_bytes_max)
        self._sealer = sealer
        self._flusher = Flusher(settings, disk, self._ring, self._acknowledge, sealer, socket.gethostname())
        self._keyring = Keyring()
        self._keys_stamp: object = None
        self._stopping = asyncio.Event()

    async def run(self, early: list[int]) -> int:
        """Serve until a signal; then answer what is in flight, commit, seal. Returns the exit status.

        `early` are the signals that came before there was a loop.
        """
        self._loop = asyncio.get_running_loop()
        for number in _STOPS:
            self._loop.add_signal_handler(number, self._stop, number)
        if early:
            self._stop(early[0])
        self._hub = Hub(
            self._settings,
            self._keyring,
            self._ring,
            clock=self._loop.time,
            defer=self._loop.call_soon,
            drain_bytes_per_s=lambda: self._flusher.bytes_per_s,
            not_ready=self._not_ready,
        )
        server, address = await self._listen()
        # Only a server that can be reached makes the key that is shown once. Nothing is accepted
        # before the next await, so no request meets an empty keyring.
        first_secret = keyfile.ensure_one(self._disk, self._data_dir)
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
        ticking = asyncio.create_task(self._tick())
        shown = address if address.startswith(_UNIX) else f"http://{address}"
        log.info("ingestd %s listens on %s, data in %s", __version__, shown, self._data_dir.resolve())
        if first_secret is not None:
            keyfile.show_first(first_secret, address)
        await self._stopping.wait()
        server.close()
        await self._drain()
        if address.startswith(_UNIX):
            try:
                self._disk.unlink(Path(address.removeprefix(_UNIX)))
            except StorageError as e:
                log.error("the socket stays behind: %s", e)
        ticking.cancel()
        return 0 if self._flusher.events_failed == 0 else 1

    async def _listen(self) -> tuple[asyncio.Server, str]:
        """The listening server and its address; where port 0 was asked for, with the port it got."""
        listen = self._settings.listen
        make = partial(Connection, self._hub)
        try:
            if listen.startswith(_UNIX):
                path = listen.removeprefix(_UNIX)
                _remove_stale_socket(path)
                return await self._loop.create_unix_server(make, path, backlog=_BACKLOG), listen
            host, port = parse_address(listen)
            server = await self._loop.create_server(make, host, port, backlog=_BACKLOG)
        except UnicodeError as e:
            raise UsageError(f"--listen {listen}: not a host name: {e}") from e
        except OSError as e:
            raise UsageError(f"--listen {listen}: {e.strerror or e}") from e
        name = server.sockets[0].getsockname()
        return server, f"{f'[{name[0]}]' if ':' in name[0] else name[0]}:{name[1]}"

    async def _tick(self) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(_TICK_S)
            ticks += 1
            # Nothing may end this task: no deadline would pass any more, and no revoked key stop.
            try:
                self._heed_room()
                self._hub.tick()
            except Exception:
                log.exception("bug while ending what is overdue")
            if ticks % _KEYS_TICKS == 0:
                try:
                    self._load_keys()
                except Exception as e:
                    log.error("keys not reloaded, the old ones stay: %s", e)

    def _load_keys(self) -> None:
        """Take up keys.toml if it has changed since the last look. Raises UsageError, StorageError."""
        stamp = self._disk.stamp(keyfile.path(self._data_dir))
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

    def _acknowledge(self, batches: list[Batch], error: StorageError | None) -> None:
        """On the flusher's thread: one hop to the loop for the whole commit.

        The next commit waits for what these answers bring in, or the clients would part into two
        crowds that are committed in turn, with twice the commits.
        """
        self._ring.expect_more()
        self._loop.call_soon_threadsafe(self._deliver, batches, error)

    def _deliver(self, batches: list[Batch], error: StorageError | None) -> None:
        self._hub.rounds.begin()
        for batch in batches:
            assert batch.ack is not None
            try:
                batch.ack(error)
            except Exception:
                # The others must hear of theirs.
                log.exception("bug while answering")

    def _not_ready(self) -> str:
        flusher = self._flusher
        since = flusher.committing_since
        if not flusher.alive:
            return "the flusher has ended"
        if flusher.error is not None:
            return f"storage fails: {flusher.error}"
        if since is not None and time.monotonic() - since > STUCK_S:
            return f"the disk has not taken a commit for {time.monotonic() - since:.0f} s"
        refusal = self._hub.no_room
        return str(refusal.detail) if refusal is not None else ""

    def _stop(self, number: int) -> None:
        if not self._stopping.is_set():
            log.info("%s: stopping", signal.Signals(number).name)
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
        self._settle()

    def _settle(self) -> None:
        """Say what became of every event that was received."""
        flusher, rounds, sealer = self._flusher, self._hub.rounds, self._sealer
        received, refused = rounds.events_received, rounds.events_refused
        stored, failed = flusher.events_stored, flusher.events_failed
        log.info(
            "stopped: %d events received = %d stored + %d refused + %d failed, "
            "%d commits, %d segments sealed",
            *(received, stored, refused, failed, flusher.commits, sealer.segments_sealed),
        )
        if received != stored + refused + failed:
            log.error("%d events are not accounted for: this is a bug", received - stored - refused - failed)


def parse_address(listen: str) -> tuple[str, int]:
    """HOST:PORT, with brackets around an IPv6 host, or unix:PATH as (PATH, 0). Raises UsageError."""
    if listen.startswith(_UNIX) and listen != _UNIX:
        return listen.removeprefix(_UNIX), 0
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--listen {listen}: say HOST:PORT, such as 127.0.0.1:8080, or unix:PATH")
    return host.strip("[]") or "0.0.0.0", int(port)


def _remove_stale_socket(path: str) -> None:
    """A socket that nobody listens on is left over from a crash; anything else at `path` stays."""
    if not os.path.exists(path):
        return
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        raise UsageError(f"--listen unix:{path}: a file that is no socket is there")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            return
    raise UsageError(f"--listen unix:{path}: another process listens there")
