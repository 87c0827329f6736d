"""Segments as events: each line is a message of a log, in order, from a durable cursor on.

The cursor of a segment is how many of its commits the log has acknowledged. What was sent since it was
written is sent again after a crash: a stream of JetStream knows it by its id, readers of Kafka do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import zstandard

from ingestd.errors import StorageError
from ingestd.eventlog.log import EventLog, LogError, Message, TooLarge
from ingestd.eventlog.messages import Messages
from ingestd.ship.content import commits
from ingestd.ship.delivery import Delivered, DestinationError, Segment
from ingestd.ship.pace import Pace
from ingestd.storage.disk import Disk
from ingestd.storage.reading import read
from ingestd.storage.segment import Commit, content
from ingestd.storage.shipped import Markers

_GROUP_BYTES = 1024 * 1024
"""Lines that are sent before the cursor moves, unless a commit has more."""


class Events:
    """Delivers to a log."""

    lanes = 1
    underway = ()

    def __init__(
        self,
        disk: Disk,
        log: EventLog,
        name: str,
        messages: Messages,
        markers: Markers,
        pace: Pace,
        timeout_s: float,
        stopping: asyncio.Event,
    ) -> None:
        """`name` is what markers call the log."""
        self._disk = disk
        self._log = log
        self._name = name
        self._messages = messages
        self._markers = markers
        self._pace = pace
        self._timeout_s = timeout_s
        self._stopping = stopping
        self._pending: tuple[Segment, int] | None = None
        """How far it is when the log has acknowledged what it was given."""
        self._done: dict[str, int] = {}
        """Commits that the log has, by mark, until there is a marker: the disk may be full."""

    async def deliver(self, segment: Segment) -> Delivered | None:
        """Have all its events there. Raises DestinationError, StorageError."""
        await self._settle()
        size, found = await asyncio.to_thread(commits, self._disk, segment.path)
        segment.require(self._disk)
        done = await asyncio.to_thread(self._cursor, segment)
        for end in _group_ends(found, done):
            if self._stopping.is_set():
                return None
            messages = await asyncio.to_thread(self._read, segment, found[done:end])
            await self._pace.take(sum(len(message.value) for message in messages))
            self._pending = segment, end
            try:
                await asyncio.to_thread(self._log.put, messages)
            except TooLarge as e:
                self._pending = None
                raise StorageError(str(e)) from None
            except LogError as e:
                raise self._failed(e) from None
            await self._settle()
            done = end
        events = sum(commit.events for commit in found)
        return Delivered(size, True, {"log": self._name, "events": events, "bytes": size}, events)

    async def close(self) -> None:
        """Give up what is on its way."""
        await asyncio.to_thread(self._log.close)

    async def _settle(self) -> None:
        """Wait for what is pending, and move the cursor. Raises DestinationError, StorageError."""
        if self._pending is None:
            return
        try:
            await asyncio.to_thread(self._log.settle, self._timeout_s)
        except LogError as e:
            raise self._failed(e) from None
        (segment, end), self._pending = self._pending, None
        self._done[segment.mark] = end
        await asyncio.to_thread(self._markers.put_cursor, segment.mark, end)

    def _cursor(self, segment: Segment) -> int:
        """Raises StorageError."""
        for mark in [mark for mark in self._done if self._markers.has(mark)]:
            del self._done[mark]
        return max(self._done.get(segment.mark, 0), self._markers.cursor(segment.mark))

    def _failed(self, error: LogError) -> DestinationError:
        if error.is_lost:
            # From the cursor on.
            self._pending = None
        return DestinationError(str(error))

    def _read(self, segment: Segment, wanted: list[Commit]) -> list[Message]:
        first, end = wanted[0].offset, wanted[-1].end
        data = memoryview(read(self._disk, segment.path, first, end - first))
        decompressor = zstandard.ZstdDecompressor()
        lines = [content(data, commit, first, decompressor) for commit in wanted]
        return self._messages.of(b"".join(lines))


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
