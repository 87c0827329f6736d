"""Every file system call of ingestd, so that tests can put a faulty disk in its place.

Errors of the operating system leave here as StorageError with the call and the path named.
Paths are `Path`s; descriptors are the plain ints of os.open.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from ingestd.errors import StorageError, UsageError

TEMPORARY_PATTERN: Final = ".*.new"
"""Names of the files that a crash in `replace_file` leaves behind."""


_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
"""What file systems without hard links answer."""


@contextmanager
def _naming(call: str, what: object) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise StorageError(f"{call} {what}: {e.strerror or e}") from e


def _mode(path: Path) -> int | None:
    """What there is; None is nothing. Path.exists takes every error for nothing from Python 3.14 on."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _stat(path: Path) -> os.stat_result | None:
    """What is told of a file; None if it is not there."""
    with _naming("stat", path):
        try:
            return os.stat(path)
        except FileNotFoundError:
            return None


class Disk:
    """The real disk."""

    _has_dsync = True

    def create(self, path: Path) -> int:
        """Create a file that must not exist yet; its directory is not yet synced."""
        with _naming("create", path):
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)

    def write(self, fd: int, data: bytes, offset: int | None = None) -> None:
        """Write all of `data`, there or after what was written last; a short write is continued."""
        with _naming("write", f"{len(data)} bytes"):
            rest = memoryview(data)
            while rest:
                done = self._write(fd, rest, offset)
                rest = rest[done:]
                offset = None if offset is None else offset + done

    def _write(self, fd: int, data: bytes | memoryview, offset: int | None) -> int:
        """One system call, which may take a part only."""
        return os.write(fd, data) if offset is None else os.pwrite(fd, data, offset)

    def _write_synced(self, fd: int, data: bytes, offset: int) -> int:
        """The same, and what it has taken is on stable storage."""
        return os.pwritev(fd, (data,), offset, os.RWF_DSYNC)

    def fdatasync(self, fd: int) -> None:
        """Return when the file's bytes and size are on stable storage."""
        with _naming("fdatasync", "segment"):
            os.fdatasync(fd)

    def write_through(self, fd: int, data: bytes, offset: int) -> None:
        """`write` and `fdatasync` in one system call where the kernel has it (RWF_DSYNC, Linux 4.7).

        Each return from a call that has let go of the interpreter lock must win it back from the loop,
        so one call less is worth having at a thousand commits a second.
        """
        written = 0
        if self._has_dsync:
            try:
                written = self._write_synced(fd, data, offset)
            except OSError as e:
                if e.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                    raise StorageError(f"write {len(data)} bytes: {e.strerror or e}") from e
                self._has_dsync = False
        if written < len(data):
            self.write(fd, data[written:], offset + written)
            self.fdatasync(fd)

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file to `size` bytes."""
        with _naming("truncate", f"to {size} bytes"):
            os.ftruncate(fd, size)

    def close(self, fd: int) -> None:
        """Close; an error that close itself reports changes nothing that was promised."""
        with suppress(OSError):
            os.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Rename within the file system; neither directory is synced yet."""
        with _naming("rename", source):
            os.rename(source, target)

    def unlink(self, path: Path) -> None:
        """Remove a file; one that is not there is fine."""
        with _naming("unlink", path), suppress(FileNotFoundError):
            os.unlink(path)

    def link(self, source: Path, target: Path) -> None:
        """A second name, that must not exist yet, for a file; its directory is not yet synced."""
        with _naming("link", source):
            os.link(source, target)

    def move(self, source: Path, target: Path) -> None:
        """Give the file a new name, durably, and only then take away the old one.

        Not by rename: its two halves may become durable one by one, and a sync of the old directory
        alone, after a failed sync of the new one or by another process, could lose the file.
        """
        try:
            self.link(source, target)
        except StorageError as e:
            if not isinstance(e.__cause__, OSError) or e.__cause__.errno not in _NO_LINKS:
                raise
            self.rename(source, target)
        self.sync_directory(target.parent)
        self.unlink(source)
        self.sync_directory(source.parent)

    def make_directory(self, path: Path) -> None:
        """Create the directory and its missing parents, each synced into its own parent.

        The first that exists is synced too: who made it may have ended before the sync. All above
        it had been synced before anything was made in them.
        """
        missing = []
        while not self.is_directory(path):
            missing.append(path)
            path = path.parent
        try:
            self.sync_directory(path.parent)
        except StorageError as e:
            # A directory whose parent we may not even read was not made by us.
            if not isinstance(e.__cause__, PermissionError):
                raise
        for directory in reversed(missing):
            self._make_one_directory(directory)
            self.sync_directory(directory.parent)

    def _make_one_directory(self, path: Path) -> None:
        with _naming("mkdir", path):
            try:
                os.mkdir(path, 0o750)
            except FileExistsError:
                # Another worker may have been faster; a file of this name is an error.
                if not path.is_dir():
                    raise

    def sync_directory(self, path: Path) -> None:
        """Make the creations, renames and removals in a directory durable."""
        with _naming("fsync", path):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def sync_file(self, path: Path) -> None:
        """Make what others have written to a file durable."""
        with _naming("fsync", path):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def read(self, path: Path, offset: int = 0, size: int = -1) -> bytes:
        """The file's bytes from `offset` on, `size` of them if there are so many; -1: to its end."""
        with _naming("read", path), path.open("rb") as f:
            f.seek(offset)
            return f.read(size)

    def exists(self, path: Path) -> bool:
        """True if there is something at this path."""
        with _naming("stat", path):
            return _mode(path) is not None

    def is_directory(self, path: Path) -> bool:
        """True if there is a directory at this path."""
        with _naming("stat", path):
            return stat.S_ISDIR(_mode(path) or 0)

    def list(
        self,
        directory: Path,
        pattern: str,
        *,
        deep: bool = False,
        unreadable: Callable[[StorageError], None] | None = None,
    ) -> list[Path]:
        """Files whose names match the pattern, by name; `deep` looks below too.

        None if there is no such directory. One that may not be read is an error, not empty; with
        `unreadable` it is told of, and the others are listed.
        """

        def failed(error: OSError) -> None:
            if isinstance(error, FileNotFoundError):
                return
            if unreadable is None:
                raise error
            unreadable(StorageError(f"list {error.filename or directory}: {error.strerror or error}"))

        found: list[Path] = []
        with _naming("list", directory):
            for folder, _, names in os.walk(directory, onerror=failed):
                for path in (Path(folder, name) for name in names if fnmatchcase(name, pattern)):
                    try:
                        if stat.S_ISREG(_mode(path) or 0):
                            found.append(path)
                    except OSError as e:
                        # A link to itself is as little a file as one to nothing.
                        if e.errno != errno.ELOOP:
                            failed(e)
                if not deep:
                    break
        return sorted(found, key=lambda path: path.name)

    @contextmanager
    def making(self, path: Path) -> Iterator[int]:
        """A new file to be written in the block, in place of what a crash has left there.

        If something fails it is removed: on a full disk half a file would take up room.
        """
        self.unlink(path)
        fd = self.create(path)
        try:
            try:
                yield fd
            finally:
                self.close(fd)
        except StorageError:
            with suppress(StorageError):
                self.unlink(path)
            raise

    def replace_file(self, path: Path, data: bytes) -> None:
        """Put `data` in place of the file in one step: a reader sees the old or the new, whole."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
        with self.making(temporary) as fd:
            self._keep_owner(fd, path)
            self.write(fd, data)
            self.fdatasync(fd)
        try:
            self.rename(temporary, path)
        except StorageError:
            with suppress(StorageError):
                self.unlink(temporary)
            raise
        self.sync_directory(path.parent)

    def _keep_owner(self, fd: int, path: Path) -> None:
        """Mode and owner of the file that is replaced, or else the directory's owner.

        Without it, root's 'ingestd key add' would lock the server's user out of its keys.
        """
        with _naming("chown", path):
            try:
                like = os.stat(path)
                os.fchmod(fd, stat.S_IMODE(like.st_mode))
            except FileNotFoundError:
                like = os.stat(path.parent)
            if like.st_uid != os.geteuid():
                with suppress(PermissionError):
                    os.fchown(fd, like.st_uid, like.st_gid)

    def free(self, path: Path) -> tuple[int, int | None]:
        """Bytes and files for which this process has room on the file system; None: no limit is told."""
        with _naming("statvfs", path):
            found = os.statvfs(path)
        return found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None

    def size_and_time(self, path: Path) -> tuple[int, float] | None:
        """The file's bytes and when it was last written, in seconds since 1970; None if it is gone."""
        found = _stat(path)
        return None if found is None else (found.st_size, found.st_mtime)

    def remove_directory(self, path: Path) -> None:
        """Remove an empty directory."""
        with _naming("rmdir", path):
            os.rmdir(path)

    def stamp(self, path: Path) -> tuple[int, int, int] | None:
        """Something that changes when the file is replaced or written; None if it is not there."""
        found = _stat(path)
        return None if found is None else (found.st_ino, found.st_mtime_ns, found.st_size)

    def lock(self, path: Path, *, shared: bool = False) -> int:
        """Hold the file until the process ends, alone or with others that share it.

        Raises UsageError if another process is in the way.
        """
        with _naming("lock", path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except OSError as e:
                holder = os.read(fd, 32).decode(errors="replace").strip()
                os.close(fd)
                if e.errno != errno.EWOULDBLOCK:
                    raise
                raise UsageError(
                    f"{path.parent} is in use by process {holder or '?'}; "
                    "stop that one or name another --data-dir"
                ) from None
            os.ftruncate(fd, 0)
            if not shared:
                os.write(fd, b"%d\n" % os.getpid())
            return fd

    @contextmanager
    def alone(self, directory: Path) -> Iterator[None]:
        """Wait until no other process (or thread) is in here for this directory, and keep others out."""
        with _naming("lock", directory):
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with _naming("lock", directory):
                fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)
