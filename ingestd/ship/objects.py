"""Segments as objects: each is one, byte for byte, under a name that tells what is in it."""

from __future__ import annotations

import asyncio
from typing import Final

from ingestd.ship.content import Content, load
from ingestd.ship.delivery import Delivered, Segment
from ingestd.ship.destination import Template
from ingestd.ship.store import Store
from ingestd.storage.disk import Disk

_LANES: Final = 2
"""One segment is read while the other is sent."""


class Objects:
    """Delivers to an object store."""

    lanes = _LANES
    underway = ()

    def __init__(self, disk: Disk, store: Store, template: Template, at_once_bytes_max: int) -> None:
        """What is larger than `at_once_bytes_max` goes in parts."""
        self._disk = disk
        self._store = store
        self._template = template
        self._at_once_bytes_max = at_once_bytes_max

    async def deliver(self, segment: Segment) -> Delivered | None:
        """Have the object there. Raises DestinationError, StorageError."""
        content = await asyncio.to_thread(self._load, segment)
        key = self._template.key(segment.name, content.sha256)
        is_new = await self._store.deliver(key, content, segment.name)
        told = {"object": key, "bytes": content.size, "sha256": content.sha256}
        return Delivered(content.size, is_new, told)

    async def close(self) -> None:
        """Nothing holds: what is on its way is cancelled with its task."""

    def _load(self, segment: Segment) -> Content:
        content = load(self._disk, segment.path, self._at_once_bytes_max)
        segment.require(self._disk)
        return content
