"""Segments as objects, without the events that are there already.

A segment without repeats goes byte for byte, as ever. One with repeats is written anew without them, and a
segment of repeats only needs no object. The object's name tells the segment's digest, not its own: what is
left out depends on what is remembered, which after a crash may be less, and an object that is there
already has all that was to be delivered, whatever its size, if only it is whole.

An event may be in two segments. If the store's answer to the first is lost, the second must not have its
turn before it is known what became of the first, or both would be there; and that over a crash, too. So
which segments are on their way is written down before they are sent, and they are finished first.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from itertools import islice
from typing import Final

from ingestd.errors import Damaged, StorageError
from ingestd.ship.content import Content, load
from ingestd.ship.delivery import Delivered, DestinationError, Segment
from ingestd.ship.destination import Template
from ingestd.ship.store import Store
from ingestd.storage.disk import Disk
from ingestd.storage.packing import Packer
from ingestd.storage.reading import Gone, whole
from ingestd.storage.repeats import Seen
from ingestd.storage.segment import Commit
from ingestd.storage.shipped import Markers

_ANEW: Final = ".anew.{}.new"
"""What the next start removes, as it does with markers that were not finished."""


class _Stopped(Exception):
    """A stop came first."""


class DistinctObjects:
    """Delivers to an object store what is new in each segment."""

    lanes = 1
    """What was delivered before must be certain."""

    def __init__(
        self,
        disk: Disk,
        store: Store,
        template: Template,
        at_once_bytes_max: int,
        markers: Markers,
        seen: Seen,
        stopping: asyncio.Event,
    ) -> None:
        """As for `Objects`. Raises StorageError."""
        self.underway = markers.underway()
        self._disk = disk
        self._store = store
        self._template = template
        self._at_once_bytes_max = at_once_bytes_max
        self._markers = markers
        self._seen = seen
        self._stopping = stopping
        self._anew = markers.folder / _ANEW.format(os.getpid())

    async def deliver(self, segment: Segment) -> Delivered | None:
        """Have the object there; None if a stop came first. Raises DestinationError, StorageError."""
        try:
            return await self._clean_delivery(segment)
        except _Stopped:
            return None
        except (Gone, Damaged):
            raise
        except StorageError as e:
            if segment.mark not in self.underway:
                raise
            # It may be there, so nothing else has its turn, as while the store does not answer.
            raise DestinationError(f"{segment.name} must be delivered first: {e}") from None

    async def _clean_delivery(self, segment: Segment) -> Delivered:
        try:
            return await self._deliver(segment)
        finally:
            self._seen.forget_pending()
            await asyncio.to_thread(self._disk.unlink, self._anew)

    async def _deliver(self, segment: Segment) -> Delivered:
        source, new, dropped = await asyncio.to_thread(self._load, segment)
        key = self._template.key(segment.name, source.sha256)
        if new is None:
            # Sent before, and not marked, its own events are what it repeats.
            if await self._store.has(key, source.size):
                return Delivered(source.size, False, {"object": key})
            return Delivered(source.size, True, {"dropped": dropped}, dropped=dropped)
        await asyncio.to_thread(self._put_underway, segment)
        is_new = await self._store.deliver(key, new, segment.name, source_bytes=source.size)
        await asyncio.to_thread(self._seen.record)
        if not is_new:
            return Delivered(source.size, False, {"object": key})
        told = {"object": key, "bytes": new.size, "sha256": new.sha256, "dropped": dropped}
        return Delivered(source.size, True, told, dropped=dropped)

    async def close(self) -> None:
        """Nothing holds: what is on its way is cancelled with its task."""

    def _load(self, segment: Segment) -> tuple[Content, Content | None, int]:
        """The segment, what is new in it, and how many events are not."""
        source = load(self._disk, segment.path, self._at_once_bytes_max)
        segment.require(self._disk)
        intact = dropped = 0
        commits = self._commits(segment)
        for commit, lines in commits:
            sifted = self._seen.sift(lines, commit.last_ms)
            if sifted.dropped:
                dropped = sifted.dropped
                break
            intact += 1
        if not dropped:
            return source, source, 0
        digest = hashlib.sha256()
        with self._disk.making(self._anew) as fd:

            def write(part: bytes) -> None:
                digest.update(part)
                self._disk.write(fd, part)

            packer = Packer(write)
            for before, lines in islice(self._commits(segment), intact):
                packer.add(lines, before.events, before)
            packer.add(sifted.kept, commit.events - sifted.dropped, commit)
            for commit, lines in commits:
                sifted = self._seen.sift(lines, commit.last_ms)
                packer.add(sifted.kept, commit.events - sifted.dropped, commit)
                dropped += sifted.dropped
            size = packer.end()
        if not size:
            return source, None, dropped
        data = self._disk.read(self._anew) if size <= self._at_once_bytes_max else None
        return source, Content(self._disk, self._anew, size, digest.hexdigest(), data), dropped

    def _commits(self, segment: Segment) -> Iterator[tuple[Commit, bytes]]:
        """Raises _Stopped, for nobody waits for this thread longer than for what is on its way."""
        for commit in whole(self._disk, segment.path):
            if self._stopping.is_set():
                raise _Stopped
            yield commit

    def _put_underway(self, segment: Segment) -> None:
        """Write down that it may be there from now on, after those whose markers are missing still."""
        others = [mark for mark in self.underway if mark != segment.mark and self._markers.waits(mark)]
        self._markers.put_underway([*others, segment.mark])
        self.underway = [*others, segment.mark]
