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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from random import Random

from ingestd.errors import StorageError, UsageError
from ingestd.storage.disk import Disk

SECTOR = 512


class PowerCut(BaseException):
    """The process ends here: nothing may catch this but the test."""


@dataclass(eq=False)
class _File:
    """`lies`: a failed sync has dropped its dirty pages; later ones report success and save nothing."""

    seen: bytes = b""
    durable: bytes = b""
    lies: bool = False


@dataclass
class _Fault:
    call: str
    skip: int
    errno: int
    once: bool
    lies: bool
    name: str


@dataclass
class _Change:
    """A directory operation whose entries are not all durable; None removes an entry."""

    entries: dict[Path, _File | None] = field(default_factory=dict)


class FaultyDisk(Disk):
    """Has one directory, `root`, at first. Composed operations are inherited from the real Disk."""

    def __init__(self, root: Path = Path("/disk")) -> None:
        self.calls: list[tuple[str, str]] = []
        """Every call with the name of its file or directory, in order."""
        self.on_call: Callable[[str, str], None] | None = None
        """Called before each call takes effect, on the caller's thread."""
        self.cut_after: int | None = None
        """How many calls still work; the next raises PowerCut. None: all."""
        self.free_bytes = 1 << 40
        self.free_files: int | None = None
        self.times: dict[Path, float] = {}
        """When a file was written, in seconds since 1970; else 0."""
        self.root = root
        self._seen: dict[Path, _File | None] = {root: None}
        self._durable: dict[Path, _File | None] = {root: None}
        self._pending: list[_Change] = []
        self._faults: list[_Fault] = []
        self._open: dict[int, tuple[Path, _File]] = {}
        self._held: set[Path] = set()
        self._next_fd = 1000

    # Faults

    def fail(
        self,
        call: str,
        *,
        nth: int = 1,
        error: int = errno.EIO,
        once: bool = True,
        lies: bool = False,
        name: str = "*",
    ) -> None:
        """Let the nth call of this name from now on fail, and unless `once` all after it.

        A failed write leaves half of its bytes. With `lies` a failed fdatasync drops what was
        dirty, and later ones on that file report success. `name` is a pattern for the file's name.
        """
        self._faults.append(_Fault(call, nth - 1, error, once, lies, name))

    def mend(self) -> None:
        """No call fails any more."""
        self._faults.clear()

    def crash(self, rng: Random | None = None) -> FaultyDisk:
        """Cut the power: a new disk with what was durable and, with `rng`, a part of the rest.

        That part is any subset of the directory operations not yet durable and, of each file, any
        subset of the changed sectors, with any length on the way from the durable to the seen one.
        """
        entries = dict(self._durable)
        if rng is not None:
            for change in self._pending:
                if rng.random() < 0.5:
                    _apply(entries, change.entries)
        after = FaultyDisk(self.root)
        for path, file in sorted(entries.items()):
            if path != self.root and path.parent not in after._seen:
                continue
            kept = None if file is None else _survivor(file, rng)
            after._seen[path] = after._durable[path] = kept
        return after

    def kill(self) -> FaultyDisk:
        """End the process only: the same disk, all that was written seen, nothing made durable by it."""
        self.cut_after = None
        self._open.clear()
        self._held.clear()
        return self

    def _enter(self, call: str, path: Path, what: object | None = None) -> None:
        """The beginning of every call: note it, cut the power, or fail if it is due."""
        if self.on_call is not None:
            self.on_call(call, path.name)
        if self.cut_after is not None:
            if self.cut_after <= 0:
                raise PowerCut
            self.cut_after -= 1
        self.calls.append((call, path.name))
        for fault in self._faults:
            if fault.call != call or not fnmatchcase(path.name, fault.name):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            if fault.once:
                self._faults.remove(fault)
            if fault.lies:
                self._file(path, call).lies = True
            raise _error(call, what or path, fault.errno)

    # The interface of Disk

    def create(self, path: Path) -> int:
        self._enter("create", path)
        self._parent(path, "create")
        if path in self._seen:
            raise _error("create", path, errno.EEXIST)
        file = _File()
        self._change({path: file})
        self._next_fd += 1
        self._open[self._next_fd] = path, file
        return self._next_fd

    def write(self, fd: int, data: bytes) -> None:
        path, file = self._handle(fd, "write", f"{len(data)} bytes")
        try:
            self._enter("write", path, f"{len(data)} bytes")
        except StorageError:
            file.seen += data[: len(data) // 2]
            raise
        file.seen += data

    def fdatasync(self, fd: int) -> None:
        path, file = self._handle(fd, "fdatasync", "segment")
        self._enter("fdatasync", path, "segment")
        if not file.lies:
            file.durable = file.seen

    def write_through(self, fd: int, data: bytes) -> None:
        self.write(fd, data)
        self.fdatasync(fd)

    def truncate(self, fd: int, size: int) -> None:
        path, file = self._handle(fd, "truncate", f"to {size} bytes")
        self._enter("truncate", path, f"to {size} bytes")
        file.seen = file.seen[:size].ljust(size, b"\0")

    def close(self, fd: int) -> None:
        if fd in self._open:
            self._enter("close", self._open.pop(fd)[0])
        else:
            # The number may be another file's or a connection's by now.
            raise AssertionError(f"descriptor {fd} is closed twice")

    def rename(self, source: Path, target: Path) -> None:
        self._enter("rename", source)
        file = self._seen.get(source)
        if file is None or target.parent not in self._seen:
            raise _error("rename", source, errno.ENOENT)
        if self.is_directory(target):
            raise _error("rename", source, errno.EISDIR)
        if self._seen.get(target) is not file:
            self._change({source: None, target: file})

    def link(self, source: Path, target: Path) -> None:
        self._enter("link", source)
        file = self._seen.get(source)
        if file is None or target.parent not in self._seen:
            raise _error("link", source, errno.ENOENT)
        if target in self._seen:
            raise _error("link", source, errno.EEXIST)
        self._change({target: file})

    def unlink(self, path: Path) -> None:
        self._enter("unlink", path)
        if path in self._seen:
            if self._seen[path] is None:
                raise _error("unlink", path, errno.EISDIR)
            self._change({path: None})

    def _make_one_directory(self, path: Path) -> None:
        self._enter("mkdir", path)
        self._parent(path, "mkdir")
        if path in self._seen:
            if self._seen[path] is not None:
                raise _error("mkdir", path, errno.EEXIST)
            return
        self._seen[path] = None
        # A directory that is lost takes its files with it, so it needs no _File of its own.
        self._pending.append(_Change({path: _DIRECTORY}))

    def sync_directory(self, path: Path) -> None:
        self._enter("fsync", path)
        if path == self.root.parent:
            return
        if path not in self._seen:
            raise _error("fsync", path, errno.ENOENT)
        if self._seen[path] is not None:
            raise _error("fsync", path, errno.ENOTDIR)
        for change in self._pending:
            done = {entry: file for entry, file in change.entries.items() if entry.parent == path}
            _apply(self._durable, done)
            for entry in done:
                del change.entries[entry]
        self._pending = [change for change in self._pending if change.entries]

    def read(self, path: Path, offset: int = 0) -> bytes:
        self._enter("read", path)
        return self._file(path, "read").seen[offset:]

    def exists(self, path: Path) -> bool:
        return path in self._seen

    def is_directory(self, path: Path) -> bool:
        return self._seen.get(path, _DIRECTORY) is None

    def list(self, directory: Path, pattern: str, *, deep: bool = False) -> list[Path]:
        self._enter("list", directory)
        if isinstance(self._seen.get(directory), _File):
            raise _error("list", directory, errno.ENOTDIR)
        return sorted(
            (
                path
                for path, file in self._seen.items()
                if file is not None
                and (directory in path.parents if deep else path.parent == directory)
                and fnmatchcase(path.name, pattern)
            ),
            key=lambda path: path.name,
        )

    def free(self, path: Path) -> tuple[int, int | None]:
        self._enter("statvfs", path)
        return self.free_bytes, self.free_files

    def size_and_time(self, path: Path) -> tuple[int, float] | None:
        self._enter("stat", path)
        file = self._seen.get(path)
        return None if file is None else (len(file.seen), self.times.get(path, 0.0))

    def remove_directory(self, path: Path) -> None:
        self._enter("rmdir", path)
        if any(path == other.parent for other in self._seen):
            raise _error("rmdir", path, errno.ENOTEMPTY)
        if self._seen.get(path, _DIRECTORY) is not None:
            raise _error("rmdir", path, errno.ENOTDIR)
        del self._seen[path]
        self._pending.append(_Change({path: None}))

    def _keep_owner(self, fd: int, path: Path) -> None:
        """There is one owner here."""

    def stamp(self, path: Path) -> tuple[int, int, int] | None:
        file = self._seen.get(path)
        return None if file is None else (id(file), hash(file.seen), len(file.seen))

    def lock(self, path: Path) -> int:
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

    def _change(self, entries: dict[Path, _File | None]) -> None:
        _apply(self._seen, entries)
        self._pending.append(_Change(entries))

    def _parent(self, path: Path, call: str) -> None:
        if path.parent not in self._seen:
            raise _error(call, path, errno.ENOENT)
        if self._seen[path.parent] is not None:
            raise _error(call, path, errno.ENOTDIR)

    def _handle(self, fd: int, call: str, what: str) -> tuple[Path, _File]:
        if fd not in self._open:
            raise _error(call, what, errno.EBADF)
        return self._open[fd]

    def _file(self, path: Path, call: str) -> _File:
        if path not in self._seen:
            raise _error(call, path, errno.ENOENT)
        file = self._seen[path]
        if file is None:
            raise _error(call, path, errno.EISDIR)
        return file


_DIRECTORY = _File()


def _apply(entries: dict[Path, _File | None], changes: dict[Path, _File | None]) -> None:
    for path, file in changes.items():
        if file is None:
            entries.pop(path, None)
        else:
            entries[path] = None if file is _DIRECTORY else file


def _survivor(file: _File, rng: Random | None) -> _File:
    """The file after a power cut: its durable bytes with some sectors, and some length, of the seen."""
    if rng is None or file.lies or file.seen == file.durable:
        return _File(file.durable, file.durable)
    seen, durable = file.seen, file.durable
    kept = bytearray(durable.ljust(len(seen), b"\0"))
    for at in range(0, len(seen), SECTOR):
        if rng.random() < 0.5:
            kept[at : at + SECTOR] = seen[at : at + SECTOR]
    low, high = sorted((len(durable), len(seen)))
    size = rng.choice((low, high, rng.randint(low, high)))
    return _File(bytes(kept[:size]), bytes(kept[:size]))


def _error(call: str, what: object, number: int) -> StorageError:
    """As the real Disk says it, with the operating system's error as its cause."""
    error = StorageError(f"{call} {what}: {os.strerror(number)}")
    error.__cause__ = OSError(number, os.strerror(number))
    return error
