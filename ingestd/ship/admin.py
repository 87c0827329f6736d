"""The shipper's listener for operators and their machines: /metrics, /healthz and /readyz."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from functools import partial

from ingestd.config import Settings
from ingestd.errors import not_ready
from ingestd.http import logged
from ingestd.http.calls import OK, Page, page
from ingestd.http.hub import Hub
from ingestd.service.admin import hub
from ingestd.service.collector import CONTENT_TYPE
from ingestd.service.listeners import BACKLOG, Listener
from ingestd.ship.collector import Collector
from ingestd.ship.shipper import Shipper

log = logging.getLogger("ingestd.ship")


async def serve(settings: Settings, shipper: Shipper, listeners: Sequence[Listener]) -> Hub:
    """Answer on these sockets from now on; the hub wants to be ticked a few times a second."""
    loop, collector = asyncio.get_running_loop(), Collector(shipper)

    def ready() -> Page:
        """Raises Rejection (503) that says why the destination takes nothing."""
        if shipper.problem:
            raise not_ready(shipper.problem)
        return OK

    made = hub(
        settings,
        loop,
        {
            b"/metrics": page(lambda: Page(collector.text(), CONTENT_TYPE)),
            b"/healthz": page(lambda: OK),
            b"/readyz": page(ready),
        },
    )
    make = partial(logged.connection, made)
    for listener in listeners:
        for one in listener.sockets:
            if one.family == socket.AF_UNIX:
                await loop.create_unix_server(make, sock=one, backlog=BACKLOG)
            else:
                await loop.create_server(make, sock=one, backlog=BACKLOG)
        log.info("metrics and probes on %s", listener.url)
    return made
