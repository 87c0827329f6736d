"""The real server on a disk that takes nothing while there is a file `stuck` in its working directory.

Run as a program it is `ingestd`, and with the word `worker` one of its workers.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ingestd import cli
from ingestd.service import place, readiness, worker
from ingestd.storage.disk import Disk

_write_through = Disk.write_through


def _sticky(self: Disk, fd: int, data: bytes, offset: int) -> None:
    while Path("stuck").exists():
        time.sleep(0.01)
    _write_through(self, fd, data, offset)


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        Disk.write_through = _sticky  # type: ignore[method-assign]
        readiness.STUCK_S = 0.2
        sys.exit(worker.main())
    place.WORKER = (sys.executable, __file__, "worker")
    sys.exit(cli.main())
