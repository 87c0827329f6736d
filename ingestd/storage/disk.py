"""Every file system call of ingestd, so that tests can put a faulty disk in its place.

Errors of the operating system leave here as StorageError with the call and the path named.
Paths are `Path`s; descriptors are the plain ints of os.open.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ingestd.errors import StorageError, UsageError


@contextmanager
def _naming(call: str, what: object) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise StorageError(f"{call} {what}: {e.strerror or e}") from e


class Disk:
    """The real disk."""

    def create(self, path: Path) -> int:
        """Create a file that must not exist yet, for appending; its directory is not yet synced."""
        with _naming("create", path):
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def write(self, fd: int, data: bytes) -> None:
        """Write all of `data`; a short write is continued."""
        with _naming("write", f"{len(data)} bytes"):
            written = os.write(fd, data)
            if written == len(data):
                return
            rest = memoryview(data)[written:]
            while rest:
                rest = rest[os.write(fd, rest) :]

    def fdatasync(self, fd: int) -> None:
        """Return when the file's bytes and size are on stable storage."""
        with _naming("fdatasync", "segment"):
            os.fdatasync(fd)

    def sync_file(self, path: Path) -> None:
        """fdatasync for a file that is not open."""
        with _naming("fdatasync", path):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)

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

    def make_directory(self, path: Path) -> None:
        """Create the directory and its missing parents, each synced into its own parent."""
        with _naming("mkdir", path):
            missing = []
            while not path.is_dir():
                missing.append(path)
                path = path.parent
            for directory in reversed(missing):
                with suppress(FileExistsError):
                    os.mkdir(directory, 0o750)
                self.sync_directory(directory.parent)

    def sync_directory(self, path: Path) -> None:
        """Make the creations, renames and removals in a directory durable."""
        with _naming("fsync", path):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def read(self, path: Path, offset: int = 0) -> bytes:
        """The file's bytes from `offset` to its end."""
        with _naming("read", path), path.open("rb") as f:
            f.seek(offset)
            return f.read()

    def exists(self, path: Path) -> bool:
        """True if there is something at this path."""
        return path.exists()

    def list(self, directory: Path, pattern: str) -> list[Path]:
        """Files that match the glob pattern, by name; none if there is no such directory."""
        with _naming("list", directory):
            return sorted((p for p in directory.glob(pattern) if p.is_file()), key=lambda p: p.name)

    def replace_file(self, path: Path, data: bytes) -> None:
        """Put `data` in place of the file in one step: a reader sees the old or the new, whole."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
        self.unlink(temporary)
        fd = self.create(temporary)
        try:
            self.write(fd, data)
            self.fdatasync(fd)
        finally:
            self.close(fd)
        self.rename(temporary, path)
        self.sync_directory(path.parent)

    def stamp(self, path: Path) -> tuple[int, int, int] | None:
        """Something that changes when the file is replaced or written; None if it is not there."""
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise StorageError(f"stat {path}: {e.strerror}") from e
        return found.st_ino, found.st_mtime_ns, found.st_size

    def lock(self, path: Path) -> int:
        """Hold the file until the process ends. Raises UsageError if another process holds it."""
        with _naming("lock", path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
            os.write(fd, b"%d\n" % os.getpid())
            return fd
