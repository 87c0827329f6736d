"""`ingestd ship` as a process: what it is told by settings and signals, and how it tells how it is."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from ingestd.config import Settings
from ingestd.errors import StorageError, UsageError
from ingestd.eventlog.connect import connect
from ingestd.eventlog.messages import Messages
from ingestd.progress import Progress
from ingestd.service import listeners, logs
from ingestd.service.systemd import Notifier
from ingestd.ship.delivery import Delivery
from ingestd.ship.destination import Destination, Template, destination
from ingestd.ship.distinct import DistinctObjects
from ingestd.ship.events import Events
from ingestd.ship.objects import Objects
from ingestd.ship.pace import Pace
from ingestd.ship.shipper import Shipper
from ingestd.ship.store import Store, at_once_bytes_max
from ingestd.ship.window import rebuild
from ingestd.storage.disk import Disk
from ingestd.storage.repeats import Seen
from ingestd.storage.shipped import Markers

log = logging.getLogger("ingestd.ship")

_TICK_S: Final = 0.25
_STOP_S: Final = 5.0
"""At a stop: how long what is on its way may take to arrive. What does not is sent again."""


def ship(settings: Settings, *, is_once: bool, until_eof: bool = False) -> int:
    """Run until SIGTERM or SIGINT, or until what is sealed now is delivered; returns the exit status.

    With `until_eof` the end of standard input is a stop as well. Raises UsageError, StorageError.
    """
    logs.begin(settings)
    place = destination(settings.ship_to, os.environ)
    admin = listeners.open_admin(msgspec.structs.replace(settings, admin=settings.ship_admin))
    try:
        return uvloop.run(_Process(settings, place, is_once=is_once, until_eof=until_eof).run(admin))
    finally:
        for listener in admin:
            listener.close()


class _Process:
    def __init__(self, settings: Settings, place: Destination, *, is_once: bool, until_eof: bool) -> None:
        self._settings = settings
        self._place = place
        self._is_once = is_once
        self._until_eof = until_eof
        self._progress = Progress(sys.stderr)
        self._notifier = Notifier(os.environ)
        self._recalled = (0, 0)
        """Bytes of delivered segments whose ids are read, and bytes of all; none after that."""
        self._is_short = False

    async def run(self, admin: list[listeners.Listener]) -> int:
        """Deliver until there is nothing more to do, or a signal comes; returns the exit status."""
        loop, disk, data_dir = asyncio.get_running_loop(), Disk(), Path(self._settings.data_dir)
        markers = Markers(disk, data_dir, self._place.label)
        stop = asyncio.Event()
        seen = self._window()
        markers.hold(shared=self._place.log is None and seen is None)
        delivery = self._delivery(disk, markers, seen, stop)
        self._shipper = shipper = Shipper(disk, data_dir, delivery, markers, stopping=stop, say=self._say)
        shipper.seen = seen
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, signal.Signals(number).name)
        if self._until_eof:
            loop.add_reader(sys.stdin.fileno(), self._eof)
        shipper.begin(str(self._place))
        self._say(logging.INFO, "delivers what is sealed in %s to %s", data_dir.resolve(), self._place)
        ticking = asyncio.create_task(self._tick(admin))
        work = asyncio.create_task(self._work(disk, data_dir, markers))
        stopping = asyncio.create_task(shipper.stopping.wait())
        await asyncio.wait((work, stopping, ticking), return_when=asyncio.FIRST_COMPLETED)
        shipper.stopping.set()
        await asyncio.wait((work,), timeout=_STOP_S)
        await delivery.close()
        for task in (work, stopping, ticking):
            task.cancel()
        ended = await asyncio.gather(work, ticking, stopping, return_exceptions=True)
        self._progress.clear()
        for result in ended:
            # A bug, or what the disk has refused at the only look.
            if isinstance(result, Exception):
                raise result
        self._settle()
        return int(self._is_once and ended[0] is not True)

    async def _work(self, disk: Disk, data_dir: Path, markers: Markers) -> bool:
        """True if all that was sealed is delivered."""
        shipper, seen = self._shipper, self._shipper.seen
        if seen is not None:
            with suppress(StorageError):
                # How far behind it is, metrics say from the start; what is wrong, the next look does.
                await shipper.look()
            is_stopping = shipper.stopping.is_set
            read = await asyncio.to_thread(rebuild, disk, data_dir, markers, seen, self._recall, is_stopping)
            self._recalled = (0, 0)
            self._say(logging.INFO, "remembers %d events of %d delivered segments", len(seen), read)
        if self._is_once:
            return await shipper.run_once()
        await shipper.run()
        return False

    def _recall(self, done_bytes: int, total_bytes: int) -> None:
        self._recalled = done_bytes, total_bytes

    def _window(self) -> Seen | None:
        """Raises UsageError if it is too short."""
        settings = self._settings
        if not settings.ship_dedup_s:
            return None
        if settings.ship_dedup_s < settings.segment_age_max_s:
            # Workers' segments overlap, and are delivered one after the other.
            raise UsageError(
                f"--dedup (ship_dedup_s) is {settings.ship_dedup_s:g} s: it must not be less than "
                f"segment_age_max_s, {settings.segment_age_max_s:g} s"
            )
        return Seen(settings.ship_dedup_s, settings.ship_dedup_ids_max)

    def _delivery(self, disk: Disk, markers: Markers, seen: Seen | None, stopping: asyncio.Event) -> Delivery:
        """Raises UsageError."""
        settings, place = self._settings, self._place
        pace = Pace(settings.ship_bytes_per_s, asyncio.get_running_loop().time)
        if place.log is None:
            store = Store(place, pace, settings.ship_timeout_s)
            template, at_once = Template(settings.ship_key), at_once_bytes_max(settings.ship_bytes_per_s)
            if seen is None:
                return Objects(disk, store, template, at_once)
            return DistinctObjects(disk, store, template, at_once, markers, seen, stopping)
        messages = Messages(settings.message_key, settings.message_headers)
        log = connect(place.log, settings, os.environ)
        return Events(disk, log, place.url, messages, markers, pace, settings.ship_timeout_s, stopping, seen)

    def _settle(self) -> None:
        """Say what has been done."""
        shipper, tally = self._shipper, self._shipper.tally
        self._watch_window()
        log.info(
            "stopped: %d segments delivered (%d were there already), %d bytes%s; "
            "behind: %d segments, %d bytes",
            *(tally.segments_delivered, tally.segments_found, tally.bytes_delivered),
            "" if shipper.seen is None else f", {tally.events_dropped} repeats left out",
            *(len(shipper.behind), shipper.bytes_behind),
        )

    def _eof(self) -> None:
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        self._stop("the supervisor has ended")

    def _stop(self, why: str) -> None:
        if not self._shipper.stopping.is_set():
            self._say(logging.INFO, "%s: stopping", why)
            self._notifier.stopping()
            self._shipper.stopping.set()

    def _watch_window(self) -> None:
        """Say once if it remembers less than it should; only after a delivery is known how far it reaches."""
        seen, is_known = self._shipper.seen, self._shipper.tally.segments_delivered
        if seen is not None and is_known and not self._is_short and seen.reach_s < seen.window_s:
            self._is_short = True
            self._say(
                logging.WARNING,
                "repeats are known for %.0f s only, for %d ids are remembered: see ship_dedup_ids_max",
                *(seen.reach_s, len(seen)),
            )

    def _say(self, level: int, text: str, *arguments: object) -> None:
        if log.isEnabledFor(level):
            self._progress.clear()
            log.log(level, text, *arguments)

    async def _tick(self, admin: list[listeners.Listener]) -> None:
        """Show how it is, to the terminal, to systemd, and to whoever asks."""
        shipper, shown = self._shipper, None
        if admin:
            # The door for requests, and prometheus-client, are for those who ask for them.
            from ingestd.ship.admin import Admin

            shown = await Admin.serve(self._settings, shipper, admin)
        self._notifier.ready()
        while True:
            done, behind = shipper.tally.bytes_delivered, shipper.bytes_behind
            recalled, to_recall = self._recalled
            if to_recall:
                self._progress(recalled, to_recall)
                self._notifier.status("reads the ids of what was delivered")
            else:
                if behind:
                    self._progress(done, done + behind)
                else:
                    self._progress.clear()
                told = shipper.problem or f"to {self._place}"
                self._notifier.status(f"{len(shipper.behind)} segments behind: {told}")
            self._watch_window()
            await asyncio.sleep(_TICK_S)
            if shown is not None:
                shown.tick()
