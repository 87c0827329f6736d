"""What has been delivered where: durable markers, which the shipper makes and retention heeds.

    DATA/shipped/<destination>/destination    where `ingestd ship` delivers to, from its first start on
    DATA/shipped/<destination>/<name>.json    that sealed segment is there: the destination has said so

A destination may be away for days, so retention deletes only what every destination has. Whoever
stops shipping to one removes its directory.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from ingestd.storage.disk import TEMPORARY_PATTERN, Disk
from ingestd.storage.segment import SUFFIX

_DESTINATION: Final = "destination"
_MARKER_SUFFIX: Final = ".json"


def _directory(data_dir: Path) -> Path:
    return data_dir / "shipped"


class Markers:
    """Those of one destination."""

    def __init__(self, disk: Disk, data_dir: Path, destination: str) -> None:
        self._disk = disk
        self._folder = _directory(data_dir) / destination

    def begin(self, url: str) -> set[str]:
        """Have the directory, durably; returns the names of segments that are delivered.

        From now on retention waits for this destination. Raises StorageError.
        """
        disk, folder = self._disk, self._folder
        disk.make_directory(folder)
        for leftover in disk.list(folder, TEMPORARY_PATTERN):
            # Another shipper's, perhaps, which then fails to write it and tries again.
            disk.unlink(leftover)
        disk.replace_file(folder / _DESTINATION, f"{url}\n".encode())
        return {path.name.removesuffix(_MARKER_SUFFIX) for path in disk.list(folder, f"*{_MARKER_SUFFIX}")}

    def has(self, name: str) -> bool:
        """True if the segment of this name is delivered. Raises StorageError."""
        return self._disk.exists(self._path(name))

    def put(self, name: str, told: bytes) -> None:
        """The segment is delivered, as `told` says for whoever looks. Raises StorageError."""
        self._disk.replace_file(self._path(name), told)

    def remove(self, name: str) -> None:
        """The segment is not here any more. Not durably: come back, the marker is removed again."""
        self._disk.unlink(self._path(name))

    def _path(self, name: str) -> Path:
        return self._folder / (name + _MARKER_SUFFIX)


def undelivered(disk: Disk, data_dir: Path) -> Callable[[Path], str]:
    """Tells of a sealed segment's path which destination does not have it; "" if none is without.

    Raises StorageError, as does what is returned.
    """
    folders = [path.parent for path in disk.list(_directory(data_dir), _DESTINATION, deep=True)]

    def missing(path: Path) -> str:
        marker = path.name.removesuffix(SUFFIX) + _MARKER_SUFFIX
        return next((folder.name for folder in folders if not disk.exists(folder / marker)), "")

    return missing
