"""A disk in memory that can fail, lie and lose power; otherwise it does what the real one does.

Every file has two copies, what a reader sees and what is on stable storage, and every directory
entry likewise: bytes become durable by fdatasync, entries by sync_directory. `crash` is a power
cut: it gives back a new disk with what was durable, perhaps with some of the rest.

What it makes worse than real disks are: the two halves of a rename between directories become
durable one by one, and after a failed fdatasync that lies, nothing of that file is ever saved again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from random import Random

from ingestd.errors import StorageError, UsageError
from ingestd.storage.disk import Disk
from tests.support.copies import DIRECTORY, SECTOR, Copies, Entries, File
from tests.support.faults import Fault, Faults, PowerCut, part, storage_error

__all__ = ["SECTOR", "FaultyDisk", "PowerCut"]


class FaultyDisk(Faults, Disk):
    """Has one directory, `root`, at first. Composed operations are inherited from the real Disk.

    Without `has_links` it is a file system without hard links, whose renames are one step.
    """

    def __init__(
        self, root: Path = Path("/disk"), *, has_links: bool = True, has_dsync: bool = False
    ) -> None:
        super().__init__()
        self.free_bytes = 1 << 40
        self.free_files: int | None = None
        self.clock: Callable[[], float] = lambda: 0.0
        """The time in seconds since 1970, for files that are written."""
        self.times: dict[Path, float] = {}
        """When a file was written, if not by the clock."""
        self.root = root
        self._has_links = has_links
        self._has_dsync = has_dsync
        self._copies = Copies(root, is_journaled=not has_links)
        self._open: dict[int, tuple[Path, File]] = {}
        self._positions: dict[int, int] = {}
        """Where the next write to a descriptor goes."""
        self._held: set[Path] = set()
        self._next_fd = 1000

    # What happens to it

    def crash(self, rng: Random | None = None) -> FaultyDisk:
        """Cut the power: a new disk with what was durable and, with `rng`, a part of the rest.

        That part is any subset of the directory operations not yet durable and, of each file, any
        subset of the changed sectors, with any length on the way from the durable to the seen one.
        """
        return self._with(self._copies.after_power_cut(rng))

    def kill(self, name: str = "*") -> FaultyDisk:
        """End the process that has the files of these names open.

        It is the same disk: all that was written is seen, nothing is made durable by it.
        """
        self.cut_after = None
        self._open = {fd: one for fd, one in self._open.items() if not fnmatchcase(one[0].name, name)}
        self._held.clear()
        return self

    def copy(self) -> FaultyDisk:
        """Another disk, as a process finds it that looks at this moment; nothing fails on it."""
        return self._with(self._copies.twin())

    def write_back(self, rng: Random) -> None:
        """What a kernel does when it likes: some of the rest becomes durable, entries in their order."""
        self._copies.write_back(rng, self._files())

    def evict(self) -> None:
        """Another thing it does: files whose sync has failed are read from stable storage again."""
        for file in self._files():
            if file.lies:
                file.seen = file.durable.ljust(len(file.seen), b"\0")[: len(file.seen)]

    def rot(self, path: Path, change: Callable[[bytes], bytes]) -> None:
        """Change a file's bytes behind everybody's back, on stable storage too."""
        file = self._file(path, "rot")
        file.seen, file.durable = change(file.seen), change(file.durable)

    @property
    def open_files(self) -> Sequence[str]:
        """The names of the files that have a descriptor."""
        return [path.name for path, _ in self._open.values()]

    # The interface of Disk

    def create(self, path: Path) -> int:
        self._enter("create", path)
        self._parent(path, "create")
        if path in self._seen:
            raise storage_error("create", path, errno.EEXIST)
        file = File(written=self.clock())
        self._copies.change({path: file})
        self._next_fd += 1
        self._open[self._next_fd] = path, file
        return self._next_fd

    def _write(self, fd: int, data: bytes | memoryview, offset: int | None) -> int:
        path, file = self._handle(fd, "write", f"{len(data)} bytes")
        try:
            fault = self._due("write", path)
        except PowerCut:
            if self.cut_rng is not None:
                self._put(fd, file, bytes(data[: part(len(data), self.cut_rng)]), offset)
                self.cut_rng = None
            raise
        done = len(data) if fault is None else fault.part(len(data))
        self._put(fd, file, bytes(data[:done]), offset)
        file.written = self.clock()
        if fault is not None and fault.error:
            raise _fallen(file, fault)
        return done

    def _put(self, fd: int, file: File, data: bytes, offset: int | None) -> None:
        at = self._positions.get(fd, 0) if offset is None else offset
        end = at + len(data)
        if offset is None:
            self._positions[fd] = end
        file.seen = file.seen[:at].ljust(at, b"\0") + data + file.seen[end:]

    def _write_synced(self, fd: int, data: bytes, offset: int) -> int:
        done = self._write(fd, data, offset)
        self._sync(fd)
        return done

    def fdatasync(self, fd: int) -> None:
        try:
            self._sync(fd)
        except OSError as e:
            raise StorageError(f"fdatasync segment: {e.strerror}") from e

    def _sync(self, fd: int) -> None:
        path, file = self._handle(fd, "fdatasync", "segment")
        fault = self._due("fdatasync", path)
        if fault is not None:
            if fault.rng is not None:
                file.durable = file.survivor(fault.rng)
            raise _fallen(file, fault)
        if not file.lies:
            file.durable = file.seen

    def truncate(self, fd: int, size: int) -> None:
        path, file = self._handle(fd, "truncate", f"to {size} bytes")
        self._enter("truncate", path)
        file.seen = file.seen[:size].ljust(size, b"\0")
        file.written = self.clock()

    def close(self, fd: int) -> None:
        if fd not in self._open:
            # The number may be another file's or a connection's by now.
            raise AssertionError(f"descriptor {fd} is closed twice")
        with suppress(StorageError):
            self._enter("close", self._open.pop(fd)[0])

    def rename(self, source: Path, target: Path) -> None:
        self._enter("rename", source)
        file = self._seen.get(source)
        if file is None or target.parent not in self._seen:
            raise storage_error("rename", source, errno.ENOENT)
        if target in self._seen and self._seen[target] is None:
            raise storage_error("rename", source, errno.EISDIR)
        if self._seen.get(target) is not file:
            self._copies.change({source: None, target: file})

    def link(self, source: Path, target: Path) -> None:
        self._enter("link", source)
        file = self._seen.get(source)
        if file is None or target.parent not in self._seen:
            raise storage_error("link", source, errno.ENOENT)
        if not self._has_links:
            raise storage_error("link", source, errno.EPERM)
        if target in self._seen:
            raise storage_error("link", source, errno.EEXIST)
        self._copies.change({target: file})

    def unlink(self, path: Path) -> None:
        self._enter("unlink", path)
        if path in self._seen:
            if self._seen[path] is None:
                raise storage_error("unlink", path, errno.EISDIR)
            self._copies.change({path: None})

    def _make_one_directory(self, path: Path) -> None:
        self._enter("mkdir", path)
        self._parent(path, "mkdir")
        if path in self._seen:
            if self._seen[path] is not None:
                raise storage_error("mkdir", path, errno.EEXIST)
            return
        self._copies.change({path: DIRECTORY})

    def sync_directory(self, path: Path) -> None:
        self._enter("fsync", path)
        if path == self.root.parent:
            return
        if path not in self._seen:
            raise storage_error("fsync", path, errno.ENOENT)
        if self._seen[path] is not None:
            raise storage_error("fsync", path, errno.ENOTDIR)
        self._copies.sync_directory(path)

    def read(self, path: Path, offset: int = 0, size: int = -1) -> bytes:
        self._enter("read", path)
        seen = self._file(path, "read").seen
        return seen[offset:] if size < 0 else seen[offset : offset + size]

    def exists(self, path: Path) -> bool:
        self._enter("stat", path)
        return path in self._seen

    def is_directory(self, path: Path) -> bool:
        self._enter("stat", path)
        return self._seen.get(path, DIRECTORY) is None

    def list(
        self,
        directory: Path,
        pattern: str,
        *,
        deep: bool = False,
        unreadable: Callable[[StorageError], None] | None = None,
    ) -> list[Path]:
        try:
            self._enter("list", directory)
            if isinstance(self._seen.get(directory), File):
                raise storage_error("list", directory, errno.ENOTDIR)
        except StorageError as e:
            if unreadable is None:
                raise
            unreadable(e)
            return []
        within = f"{directory}/"
        found = [
            path
            # At once: another thread may make files meanwhile.
            for path, file in tuple(self._seen.items())
            if file is not None
            and str(path).startswith(within)
            and (deep or "/" not in str(path)[len(within) :])
            and fnmatchcase(path.name, pattern)
        ]
        return sorted(found, key=lambda path: path.name)

    def free(self, path: Path) -> tuple[int, int | None]:
        self._enter("statvfs", path)
        return self.free_bytes, self.free_files

    def size_and_time(self, path: Path) -> tuple[int, float] | None:
        self._enter("stat", path)
        file = self._seen.get(path)
        return None if file is None else (len(file.seen), self.times.get(path, file.written))

    def remove_directory(self, path: Path) -> None:
        self._enter("rmdir", path)
        if any(path == other.parent for other in self._seen):
            raise storage_error("rmdir", path, errno.ENOTEMPTY)
        if path not in self._seen:
            raise storage_error("rmdir", path, errno.ENOENT)
        if self._seen[path] is not None:
            raise storage_error("rmdir", path, errno.ENOTDIR)
        self._copies.change({path: None})

    def _keep_owner(self, fd: int, path: Path) -> None:
        """There is one owner here."""

    def stamp(self, path: Path) -> tuple[int, int, int] | None:
        file = self._seen.get(path)
        return None if file is None else (id(file), hash(file.seen), len(file.seen))

    def lock(self, path: Path, *, shared: bool = False) -> int:
        assert not shared, "nobody shares here"
        if path in self._held:
            raise UsageError(
                f"{path.parent} is in use by process {os.getpid()}; stop that one or name another --data-dir"
            )
        if path not in self._seen:
            self.close(self.create(path))
        self._held.add(path)
        self._next_fd += 1
        self._open[self._next_fd] = path, self._file(path, "lock")
        return self._next_fd

    @contextmanager
    def alone(self, directory: Path) -> Iterator[None]:
        """One process uses this disk."""
        self._enter("lock", directory)
        yield

    # Within

    @property
    def _seen(self) -> Entries:
        return self._copies.seen

    def _with(self, copies: Copies) -> FaultyDisk:
        """A new disk of the same kind that holds this; by the same clock and count of failures."""
        after = FaultyDisk(self.root, has_links=self._has_links, has_dsync=self._has_dsync)
        after.clock, after.times, after.failed = self.clock, self.times, self.failed
        after._copies = copies
        return after

    def _files(self) -> Sequence[File]:
        """Every file that has a name or a descriptor, once."""
        found = [*self._seen.values(), *(file for _, file in self._open.values())]
        return tuple({id(file): file for file in found if file is not None}.values())

    def _parent(self, path: Path, call: str) -> None:
        if path.parent not in self._seen:
            raise storage_error(call, path, errno.ENOENT)
        if self._seen[path.parent] is not None:
            raise storage_error(call, path, errno.ENOTDIR)

    def _handle(self, fd: int, call: str, what: str) -> tuple[Path, File]:
        if fd not in self._open:
            raise storage_error(call, what, errno.EBADF)
        return self._open[fd]

    def _file(self, path: Path, call: str) -> File:
        if path not in self._seen:
            raise storage_error(call, path, errno.ENOENT)
        file = self._seen[path]
        if file is None:
            raise storage_error(call, path, errno.EISDIR)
        return file


def _fallen(file: File, fault: Fault) -> OSError:
    """The error of a write or a sync, after what it does to the file for ever."""
    file.lies |= fault.lies
    return OSError(fault.error, os.strerror(fault.error))
