"""From a socket that listens to a server on the loop; apart, for who makes the sockets has no loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from ingestd.service.listeners import BACKLOG


async def accept(one: socket.socket, make: Callable[[], asyncio.BaseProtocol]) -> asyncio.Server:
    """Answer on a socket that listens, with a protocol for each connection."""
    loop = asyncio.get_running_loop()
    create = loop.create_unix_server if one.family == socket.AF_UNIX else loop.create_server
    # It listens already; asyncio would cut its backlog to 100.
    return await create(make, sock=one, backlog=BACKLOG)
