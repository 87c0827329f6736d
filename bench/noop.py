"""The floor of HTTP in Python: uvloop and httptools, every request answered at once, nothing kept.

`python -m bench.noop` prints the port it listens on. With `handed` the parser hands over target,
headers and body, as to any server that must know what it is asked; without, only the end of each
request, which is less than any server can do with.
"""

from __future__ import annotations

import asyncio
import sys
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


class Handed(Noop):
    """The same, with the request in its hands."""

    def on_message_begin(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._target = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._method = self._parser.get_method()

    def on_body(self, data: bytes) -> None:
        self._body.append(data)


async def _main(protocol: type[Noop]) -> None:
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main(Handed if sys.argv[1:] == ["handed"] else Noop))
