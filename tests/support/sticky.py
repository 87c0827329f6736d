"""The real server on a disk that takes nothing while there is a file `stuck` in its working directory."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ingestd.cli import main
from ingestd.service import worker
from ingestd.storage.disk import Disk

_write_through = Disk.write_through


def _sticky(self: Disk, fd: int, data: bytes) -> None:
    while Path("stuck").exists():
        time.sleep(0.01)
    _write_through(self, fd, data)


if __name__ == "__main__":
    Disk.write_through = _sticky  # type: ignore[method-assign]
    worker.STUCK_S = 0.2
    sys.exit(main())
