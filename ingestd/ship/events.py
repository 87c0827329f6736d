"""Segments as events: each line is a message of a log, in order, from a durable cursor on.

The cursor of a segment is how many of its commits the log has acknowledged. What was sent since it was
written is sent again after a crash: a stream of JetStream knows it by its id, readers of Kafka do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Final

import zstandard

from ingestd.errors import StorageError
from ingestd.eventlog.log import EventLog, LogError, Message, TooLarge
from ingestd.eventlog.messages import Messages
from ingestd.ship.content import commits
from ingestd.ship.delivery import Delivered, DestinationError, Segment
from ingestd.ship.pace import Pace
from ingestd.storage.disk import Disk
from ingestd.storage.reading import read
from ingestd.storage.repeats import Seen
from ingestd.storage.segment import Commit, content
from ingestd.storage.shipped import Markers

log = logging.getLogger("ingestd.ship")

_GROUP_BYTES: Final = 1024 * 1024
"""Lines that are sent before the cursor moves, unless a commit has more."""


class Events:
    """Delivers to a log."""

    lanes = 1

    def __init__(
        self,
        disk: Disk,
        event_log: EventLog,
        name: str,
        messages: Messages,
        markers: Markers,
        pace: Pace,
        timeout_s: float,
        stopping: asyncio.Event,
        seen: Seen | None = None,
    ) -> None:
        """`name` is what markers call the log; with `seen` repeats are left out. Raises StorageError."""
        self.underway = markers.cursors()
        """Those that are delivered in part: what of them is there must be known before others are sent."""
        self._disk = disk
        self._log = event_log
        self._name = name
        self._messages = messages
        self._markers = markers
        self._pace = pace
        self._timeout_s = timeout_s
        self._stopping = stopping
        self._seen = seen
        self._dropped: dict[str, int] = {}
        """Repeats that were left out of them, by mark."""
        self._pending: tuple[Segment, int, int] | None = None
        """How far it is when the log has acknowledged what it was given, and the repeats before that."""
        self._done: dict[str, int] = {}
        """Commits that the log has, by mark, until there is a marker: the disk may be full."""
        self._problem = ""
        """Why the last cursor was not written."""

    async def deliver(self, segment: Segment) -> Delivered | None:
        """Have all its events there. Raises DestinationError, StorageError."""
        await self._settle()
        size, found = await asyncio.to_thread(commits, self._disk, segment.path)
        segment.require(self._disk)
        done = await asyncio.to_thread(self._cursor, segment)
        if done > len(found):
            raise StorageError(f"its cursor is damaged: it says {done} commits of {len(found)}")
        if done and segment.mark not in self._done:
            await asyncio.to_thread(self._recall, segment, found[:done])
        for end in _group_ends(found, done):
            if self._stopping.is_set():
                return None
            messages, dropped = await asyncio.to_thread(self._read, segment, found[done:end])
            await self._pace.take(sum(len(message.value) for message in messages))
            self._pending = segment, end, dropped
            try:
                await asyncio.to_thread(self._log.put, messages)
            except TooLarge as e:
                self._forget()
                raise StorageError(str(e)) from None
            except LogError as e:
                raise self._failed(e) from None
            await self._settle()
            done = end
        dropped = self._dropped.get(segment.mark, 0)
        events = sum(commit.events for commit in found) - dropped
        told: dict[str, object] = {"log": self._name, "events": events, "bytes": size}
        if self._seen is not None:
            told["dropped"] = dropped
        return Delivered(size, True, told, events, dropped)

    async def close(self) -> None:
        """Give up what is on its way."""
        await asyncio.to_thread(self._log.close)

    async def _settle(self) -> None:
        """Wait for what is pending, and move the cursor. Raises DestinationError."""
        if self._pending is None:
            return
        try:
            await asyncio.to_thread(self._log.settle, self._timeout_s)
        except LogError as e:
            raise self._failed(e) from None
        (segment, end, dropped), self._pending = self._pending, None
        self._done[segment.mark] = end
        self._dropped[segment.mark] = self._dropped.get(segment.mark, 0) + dropped
        if self._seen is not None:
            self._seen.record()
        try:
            await asyncio.to_thread(self._markers.put_cursor, segment.mark, end)
        except StorageError as e:
            # Going on keeps the order; what is not on disk is sent again if the process ends now.
            if str(e) != self._problem:
                self._problem = str(e)
                log.error("how far %s is cannot be written down: %s", segment.name, e)

    def _cursor(self, segment: Segment) -> int:
        """Raises StorageError."""
        for mark in [mark for mark in self._done if self._markers.has(mark)]:
            del self._done[mark]
            self._dropped.pop(mark, None)
        return max(self._done.get(segment.mark, 0), self._markers.cursor(segment.mark))

    def _failed(self, error: LogError) -> DestinationError:
        if error.is_lost:
            # From the cursor on.
            self._forget()
        return DestinationError(str(error))

    def _forget(self) -> None:
        """What was given to the log may not be there."""
        self._pending = None
        if self._seen is not None:
            self._seen.forget_pending()

    def _recall(self, segment: Segment, commits: list[Commit]) -> None:
        """Record what another process has delivered of it."""
        if self._seen is not None:
            for commit in commits:
                for lines in self._lines(segment, [commit]):
                    dropped = self._seen.sift(lines, commit.last_ms).dropped
                    self._dropped[segment.mark] = self._dropped.get(segment.mark, 0) + dropped
                    self._seen.record()

    def _read(self, segment: Segment, wanted: list[Commit]) -> tuple[list[Message], int]:
        """The messages of these commits, and how many are left out."""
        lines, dropped = self._lines(segment, wanted), 0
        if self._seen is not None:
            sifted = [
                self._seen.sift(of_one, commit.last_ms) for commit, of_one in zip(wanted, lines, strict=True)
            ]
            lines, dropped = [one.kept for one in sifted], sum(one.dropped for one in sifted)
        try:
            joined = b"".join(lines)
            return self._messages.of(joined) if joined else [], dropped
        except StorageError:
            self._forget()
            raise

    def _lines(self, segment: Segment, wanted: list[Commit]) -> list[bytes]:
        first, end = wanted[0].offset, wanted[-1].end
        data = memoryview(read(self._disk, segment.path, first, end - first))
        decompressor = zstandard.ZstdDecompressor()
        return [content(data, commit, first, decompressor) for commit in wanted]


def _group_ends(found: list[Commit], done: int) -> Iterator[int]:
    """After which commits, from `done` on, the log is waited for."""
    size = 0
    for number in range(done, len(found)):
        if size and size + found[number].content_bytes > _GROUP_BYTES:
            yield number
            size = 0
        size += found[number].content_bytes
    if done < len(found):
        yield len(found)
