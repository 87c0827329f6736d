"""Retention: which sealed segments may go, by age and by the size of all. Off by default.

Only sealed segments are ever deleted, oldest first, those of invalid events among the others. The age
is that of a segment's youngest event: it counts from the time when the file was last written. Where
segments are shipped, those that a destination does not have yet stay, whatever the limits say: see
`shipped`. Those of invalid events are not shipped.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ingestd.errors import StorageError
from ingestd.storage import shipped
from ingestd.storage.disk import Disk
from ingestd.storage.segment import SUFFIX, invalid_directory


def expired(
    disk: Disk,
    data_dir: Path,
    age_s: float,
    bytes_max: int,
    now: float,
    kept: Callable[[Path, str], None] = lambda _path, _destination: None,
) -> list[Path]:
    """The sealed segments to delete now, oldest first; 0 is no limit. Raises StorageError.

    `kept` is told of those that would go, were it not for a destination that does not have them.
    """
    if not age_s and not bytes_max:
        return []
    paths = disk.list(data_dir / "segments", f"*{SUFFIX}", deep=True)
    paths += disk.list(invalid_directory(data_dir) / "segments", f"*{SUFFIX}", deep=True)
    paths.sort(key=lambda path: path.name)
    found = [(path, stat) for path in paths if (stat := disk.size_and_time(path)) is not None]
    total = sum(size for _, (size, _) in found)
    undelivered = shipped.undelivered(disk, data_dir)
    out = []
    for path, (size, written) in found:
        is_old = bool(age_s) and written < now - age_s
        if is_old or (bytes_max and total > bytes_max):
            is_shipped = data_dir / "segments" in path.parents
            if is_shipped and (destination := undelivered(shipped.mark(path, size, written))):
                kept(path, destination)
                continue
            out.append(path)
            total -= size
    return out


def delete(disk: Disk, path: Path) -> None:
    """Delete a segment, durably, and its hour and date directories if they are empty now.

    Come back after a power cut, it would be read again, or be in the way of another of its name.
    Raises StorageError.
    """
    disk.unlink(path)
    # Another worker may have been faster, and have removed the directory as well.
    if disk.is_directory(path.parent):
        disk.sync_directory(path.parent)
    for directory in (path.parent, path.parent.parent):
        # Not empty, or in use by somebody else: all the same.
        with suppress(StorageError):
            disk.remove_directory(directory)
