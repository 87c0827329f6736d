"""The floor of HTTP in Python: uvloop and httptools, every request answered at once, nothing kept.

`python -m bench.noop` listens on the port that `BENCH_PORT` names. The parser hands over only the end
of each request, which is less than any server can do with.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import httptools
import uvloop

_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 68\r\n\r\n"
    b'{"status":"ok","messageId":"00000000-0000-4000-8000-000000000000"}\r\n'
)


class Noop(asyncio.Protocol):
    """Reads requests to their end and says ok."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._transport.write(_ANSWER)


async def _main() -> None:
    port = int(os.environ["BENCH_PORT"])
    server = await asyncio.get_running_loop().create_server(Noop, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main())
