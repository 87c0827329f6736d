"""What has been delivered where: durable markers, which the shipper makes and retention heeds.

    DATA/shipped/<destination>/destination    where `ingestd ship` delivers to, from its first start on
    DATA/shipped/<destination>/<mark>.json    that sealed segment is there: the destination has said so
    DATA/shipped/<destination>/<mark>.cursor  so many of its commits are there, in digits: a log takes them
                                              one after the other; until there is a .json
    DATA/shipped/<destination>/underway       marks, one a line: that may be there, if they have no marker

A mark is a segment's name, its size and when it was written: a machine without a clock battery
boots into the same time again and again, and gives a name once more when the segment that had it
is deleted. What such a one holds must not pass for delivered.

A destination may be away for days, so retention deletes only what every destination has. Whoever
stops shipping to one removes its directory.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ingestd.errors import StorageError
from ingestd.storage.disk import TEMPORARY_PATTERN, Disk
from ingestd.storage.segment import NAME, SUFFIX, sealed_path

_DESTINATION: Final = "destination"
_MARKER_SUFFIX: Final = ".json"
_CURSOR_SUFFIX: Final = ".cursor"
_UNDERWAY: Final = "underway"
_MARK: Final = re.compile(r"[^/\0]{1,250}")
"""With a suffix, one name in a folder."""


def _directory(data_dir: Path) -> Path:
    return data_dir / "shipped"


def mark(path: Path, size: int, written: float) -> str:
    """What tells this file from any other that has had its name."""
    return f"{path.name.removesuffix(SUFFIX)}-{size}-{int(written * 1000)}"


def _name(mark: str) -> str:
    """The segment's."""
    return mark.rsplit("-", 2)[0]


class Markers:
    """Those of one destination."""

    def __init__(self, disk: Disk, data_dir: Path, destination: str) -> None:
        self._disk = disk
        self._data_dir = data_dir
        self.folder = _directory(data_dir) / destination
        """Where they are."""

    def hold(self, *, shared: bool) -> None:
        """Have the directory, and keep other shippers out until this process ends, but those that share it.

        An object is made once, however many make it. What is sent to a log twice is there twice, and who
        leaves out repeats must know of every delivery. Raises UsageError, StorageError.
        """
        self._disk.make_directory(self.folder)
        self._disk.lock(self.folder / "lock", shared=shared)

    def begin(self, url: str) -> set[str]:
        """Clear what a crash has left; returns the marks of segments that are delivered.

        From now on retention waits for this destination. Raises StorageError.
        """
        disk, folder = self._disk, self.folder
        disk.make_directory(folder)
        with disk.alone(folder):
            for leftover in disk.list(folder, TEMPORARY_PATTERN):
                # A marker of another shipper's, perhaps, which then fails to write it and tries again.
                disk.unlink(leftover)
            disk.replace_file(folder / _DESTINATION, f"{url}\n".encode())
        return {path.name.removesuffix(_MARKER_SUFFIX) for path in disk.list(folder, f"*{_MARKER_SUFFIX}")}

    def has(self, mark: str) -> bool:
        """True if the segment is delivered. Raises StorageError."""
        return self._disk.exists(self._path(mark))

    def put(self, mark: str, told: bytes) -> None:
        """The segment is delivered, as `told` says for whoever looks. Raises StorageError."""
        self._disk.replace_file(self._path(mark), told)
        self._disk.unlink(self._path(mark, _CURSOR_SUFFIX))

    def cursor(self, mark: str) -> int:
        """How many of the segment's commits are delivered, as far as is known. Raises StorageError."""
        path = self._path(mark, _CURSOR_SUFFIX)
        if not self._disk.exists(path):
            return 0
        digits = self._disk.read(path).strip()
        if not digits.isdigit():
            raise StorageError(f"{path} is damaged: it should hold a number; without it all is sent again")
        return int(digits)

    def cursors(self) -> list[str]:
        """The marks of segments that have one, in order of their names. Raises StorageError."""
        found = self._disk.list(self.folder, f"*{_CURSOR_SUFFIX}")
        return [path.name.removesuffix(_CURSOR_SUFFIX) for path in found]

    def put_cursor(self, mark: str, commits: int) -> None:
        """So many of its commits are delivered. Raises StorageError."""
        self._disk.replace_file(self._path(mark, _CURSOR_SUFFIX), b"%d\n" % commits)

    def remove(self, mark: str) -> None:
        """The segment is not here any more. Not durably: come back, the marker is removed again."""
        self._disk.unlink(self._path(mark))
        self._disk.unlink(self._path(mark, _CURSOR_SUFFIX))

    def underway(self) -> list[str]:
        """The marks that were put there last, in their order. Raises StorageError.

        What a damaged file has instead of marks is passed over: it must not keep all others waiting.
        """
        path = self.folder / _UNDERWAY
        found = self._disk.read(path).decode(errors="replace").split() if self._disk.exists(path) else []
        return [one for one in found if _MARK.fullmatch(one) and NAME.fullmatch(_name(one))]

    def put_underway(self, marks: list[str]) -> None:
        """Durably. Raises StorageError."""
        self._disk.replace_file(self.folder / _UNDERWAY, "".join(f"{one}\n" for one in marks).encode())

    def waits(self, mark: str) -> bool:
        """True if the segment is here and has no marker. Raises StorageError."""
        return self._disk.exists(sealed_path(self._data_dir, _name(mark))) and not self.has(mark)

    def _path(self, mark: str, suffix: str = _MARKER_SUFFIX) -> Path:
        return self.folder / (mark + suffix)


def undelivered(disk: Disk, data_dir: Path) -> Callable[[str], str]:
    """Tells of a sealed segment's mark which destination does not have it; "" if none is without.

    Raises StorageError, as does what is returned.
    """
    folders = [path.parent for path in disk.list(_directory(data_dir), _DESTINATION, deep=True)]

    def missing(mark: str) -> str:
        marker = mark + _MARKER_SUFFIX
        return next((folder.name for folder in folders if not disk.exists(folder / marker)), "")

    return missing
