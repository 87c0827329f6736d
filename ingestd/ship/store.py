"""The object store, through obstore: an object is made whole and only once, or not at all.

What is small enough goes with one request that the store refuses if there is such an object
already (`If-None-Match: *`, RFC 9110 §13.1.2). A larger one goes in parts, under a name of its own
where no reader looks, and is copied to its place under the same condition when it is whole.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from ingestd.errors import StorageError, UsageError, extra_missing
from ingestd.ship.content import PART_BYTES, Content
from ingestd.ship.delivery import DestinationError
from ingestd.ship.destination import STAGING, Destination
from ingestd.ship.pace import Pace
from ingestd.ship.reasons import described
from ingestd.storage.disk import Disk
from ingestd.storage.reading import unsealed
from ingestd.storage.segment import Chain, Walk, walk

AT_ONCE_BYTES_MAX: Final = 128 * 1024 * 1024
"""In one request, held in memory: a segment of the default size and what it may go over it."""
_PARTS_AT_ONCE: Final = 2
_CONNECT_S: Final = 10
_NEVER: Final = timedelta(days=1)
"""The client's own limit on a request does not grow with its size; ours does."""

_Result = TypeVar("_Result")


def at_once_bytes_max(bytes_per_s: int) -> int:
    """What goes in one request: no more than a second's worth where there is a bound."""
    return min(AT_ONCE_BYTES_MAX, max(PART_BYTES, bytes_per_s)) if bytes_per_s else AT_ONCE_BYTES_MAX


class Store:
    """One destination."""

    def __init__(self, destination: Destination, pace: Pace, timeout_s: float) -> None:
        """Raises UsageError if obstore is not there, or does not take the settings."""
        try:
            import obstore
            from obstore.exceptions import AlreadyExistsError, BaseError
            from obstore.store import LocalStore, from_url
        except ModuleNotFoundError as e:
            raise extra_missing("shipping", "ship", e) from None
        self._api: Any = obstore
        self._exists: type[Exception] = AlreadyExistsError
        self._errors: tuple[type[Exception], ...] = (BaseError, OSError, ValueError, TimeoutError)
        self._destination = destination
        self._pace = pace
        self._timeout_s = timeout_s
        self._disk = Disk()
        self._root = None if destination.kind.is_remote else Path(destination.url.removeprefix("file://"))
        try:
            if self._root is not None:
                self._require_root(self._root)
                self._store: Any = LocalStore(self._root)
            else:
                config = {"copy_if_not_exists": "multipart"} if destination.scheme == "s3" else {}
                self._store = from_url(
                    destination.url,
                    config=config,  # type: ignore[arg-type, call-overload, unused-ignore]
                    client_options={
                        "allow_http": destination.endpoint.startswith("http://"),
                        "connect_timeout": timedelta(seconds=_CONNECT_S),
                        "timeout": _NEVER,
                    },
                    # Trying again is the shipper's: it counts, says why, and can be stopped.
                    retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=1)},
                )
        except DestinationError as e:
            raise UsageError(f"--to {e}") from None
        except (BaseError, ValueError, OSError) as e:
            raise UsageError(f"--to {destination}: {described(e, destination)}") from None

    async def has(self, key: str, size: int) -> bool:
        """True if there is such an object, durably: of this size, or a whole segment.

        Raises DestinationError.
        """
        try:
            if not await self._is_there(key):
                return False
            await self._confirm(key, (size,), is_exact=False)
            await self._keep(key)
        except self._errors as e:
            raise DestinationError(described(e, self._destination)) from None
        return True

    async def deliver(
        self, key: str, content: Content, name: str, *, source_bytes: int | None = None
    ) -> bool:
        """Have the content there under this key, durably; False if it was there already.

        What is there already has the content's size. With `source_bytes` it may have these instead, or be any
        other whole segment. Raises DestinationError, and StorageError if the content cannot be read.
        """
        if self._root is not None:
            self._require_root(self._root)
        sizes = (content.size,) if source_bytes is None else (content.size, source_bytes)
        try:
            is_new = await self._make(key, content, name)
            if not is_new:
                await self._confirm(key, sizes, is_exact=source_bytes is None)
            await self._keep(key)
        except self._errors as e:
            raise DestinationError(described(e, self._destination)) from None
        return is_new

    async def _make(self, key: str, content: Content, name: str) -> bool:
        """Make the object; False if there is one of this name."""
        try:
            if content.data is not None:
                await self._pace.take(content.size)
                put = self._api.put_async(self._store, key, content.data, mode="create", use_multipart=False)
                await self._within(put, content.size)
            elif await self._is_there(key):
                # The copy would find out too, but only when all is sent.
                return False
            else:
                await self._make_of_parts(key, content, f"{STAGING}/{name}-{content.sha256}")
        except self._exists:
            return False
        return True

    async def _is_there(self, key: str) -> bool:
        try:
            await self._within(self._api.head_async(self._store, key), 0)
        except FileNotFoundError:
            return False
        return True

    async def _make_of_parts(self, key: str, content: Content, staging: str) -> None:
        """The staging name tells the content: whoever else writes there writes the same."""
        writer = self._api.open_writer_async(
            self._store, staging, buffer_size=PART_BYTES, max_concurrency=_PARTS_AT_ONCE
        )
        digest = hashlib.sha256()
        for offset in range(0, content.size, PART_BYTES):
            part = await asyncio.to_thread(content.part, offset, PART_BYTES)
            digest.update(part)
            await self._pace.take(len(part))
            await self._within(writer.write(part), len(part))
        if digest.hexdigest() != content.sha256:
            # Not closed, it is not there.
            raise StorageError("it has changed while it was sent")
        await self._within(writer.close(), PART_BYTES)
        try:
            copy = self._api.copy_async(self._store, staging, key, overwrite=False)
            await self._within(copy, content.size)
        finally:
            # Another shipper may have been faster with it.
            with suppress(*self._errors):
                await self._within(self._api.delete_async(self._store, staging), 0)

    async def _confirm(self, key: str, sizes: tuple[int, ...], *, is_exact: bool) -> None:
        """There is an object of this name: see that it is one that was made whole."""
        found = (await self._within(self._api.head_async(self._store, key), 0))["size"]
        if found in sizes:
            return
        if is_exact:
            problem = f"instead of {sizes[0]}: it was not made by ingestd"
        elif problem := unsealed(await self._walked(key, found)):
            # A folder's file has its name before its bytes are durable.
            problem = (
                f"that are no whole segment ({problem}): "
                "it was not made by ingestd, or a power cut has cut it"
            )
        else:
            return
        raise DestinationError(f"{key} is there with {found} bytes {problem}; move it away")

    async def _walked(self, key: str, size: int) -> Walk:
        """What the object is, as a segment; in bounded memory."""
        found, want = Walk(Chain(), "torn"), PART_BYTES
        while (base := found.chain.end) < size:
            before, part = len(found.chain.commits), min(want, size - base)
            call = self._api.get_range_async(self._store, key, start=base, length=part)
            data = bytes(await self._within(call, part))
            found = await asyncio.to_thread(walk, data, found.chain)
            has_more = len(found.chain.commits) > before
            if base + part >= size or (found.state == "damaged" and not has_more):
                break
            # What the part has cut through is at the beginning of the next, or is larger than a part.
            want = PART_BYTES if has_more else 2 * want
        return found

    async def _keep(self, key: str) -> None:
        """A store keeps what it has confirmed; a folder must be told to. Raises DestinationError."""
        if self._root is not None:
            await asyncio.to_thread(self._make_durable, self._root, key)

    def _require_root(self, root: Path) -> None:
        """It is never made: what belongs there may not be mounted. Raises DestinationError."""
        if not self._disk.is_directory(root):
            raise DestinationError(
                f"{self._destination.url}: no such folder: make it, or mount what belongs there"
            )

    def _make_durable(self, root: Path, key: str) -> None:
        """obstore leaves that to the kernel. Raises DestinationError."""
        disk, path = self._disk, root / key
        try:
            disk.sync_file(path)
            for leftover in disk.list(path.parent, "*#*"):
                # Of a shipper that was killed; one that lives fails, and tries again.
                if leftover.name.startswith(f"{path.name}#"):
                    disk.unlink(leftover)
            for folder in path.parents:
                disk.sync_directory(folder)
                if folder == root:
                    break
        except StorageError as e:
            raise DestinationError(str(e)) from None

    async def _within(self, call: Awaitable[_Result], size: int) -> _Result:
        """The call's result, in the time that so many bytes may take. Raises TimeoutError."""
        return await asyncio.wait_for(call, self._timeout_s * (1 + size / PART_BYTES))
