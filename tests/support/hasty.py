"""The real server, told to stop in the very moment in which it accepts a connection, if `stop` is there.

Run as a program it is `ingestd`, and with the word `worker` one of its workers.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from ingestd import cli
from ingestd.http import logged
from ingestd.http.hub import Hub
from ingestd.http.protocol import Connection
from ingestd.service import place, worker

_accept = worker._Worker._accept
_connection = logged.connection


async def _hasty(self: worker._Worker, fd: int, hub: Hub) -> asyncio.Server:
    def connection(hub: Hub) -> Connection:
        # The loop calls this on accepting; the connection is made in the loop's next turn.
        if Path("stop").exists():
            self._stop("the test")
        return _connection(hub)

    logged.connection = connection
    return await _accept(self, fd, hub)


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        worker._Worker._accept = _hasty  # type: ignore[method-assign]
        sys.exit(worker.main())
    place.WORKER = (sys.executable, __file__, "worker")
    sys.exit(cli.main())
