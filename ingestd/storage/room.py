"""Room on the disk: requests are refused while there is still enough for all that was accepted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from ingestd.storage.disk import Disk

_WAIT_S_UNKNOWN: Final = 10
_WAIT_S_MAX: Final = 60
_FILES_MIN: Final = 16
"""Files that can still be made: a segment, its packed form, directories."""
_MIB: Final = 1024 * 1024


class Room:
    """What is free on the data directory's file system. Looked at by one thread, read by others."""

    def __init__(self, disk: Disk, data_dir: Path, reserve_bytes: int) -> None:
        self._disk = disk
        self._data_dir = data_dir
        self._reserve_bytes = reserve_bytes
        self.free_bytes = 0
        """When it was last looked at."""
        self._freed_bytes_per_s = 0.0
        self._looked_at: float | None = None
        self.problem = ""
        """Why nothing is accepted now; empty while there is room."""

    def look(self, now: float) -> None:
        """Take up what is free now. Raises StorageError."""
        free_bytes, free_files = self._disk.free(self._data_dir)
        if self._looked_at is not None and now > self._looked_at:
            self._freed_bytes_per_s = (free_bytes - self.free_bytes) / (now - self._looked_at)
        self.free_bytes, self._looked_at = free_bytes, now
        if free_bytes < self._reserve_bytes:
            self.problem = (
                f"{free_bytes // _MIB} MiB of disk are free, and disk_reserve_bytes keeps "
                f"{self._reserve_bytes // _MIB} MiB back"
            )
        elif free_files is not None and free_files < _FILES_MIN:
            self.problem = f"the file system has room for {free_files} more files only"
        else:
            self.problem = ""

    @property
    def retry_after_s(self) -> int:
        """Seconds until there is room, at the rate at which it was freed last; a guess if it was not."""
        missing = self._reserve_bytes - self.free_bytes
        if self._freed_bytes_per_s <= 0 or missing <= 0:
            return _WAIT_S_UNKNOWN
        return min(_WAIT_S_MAX, max(1, math.ceil(missing / self._freed_bytes_per_s)))
