"""The shipper's listener for operators and their machines: /metrics, /healthz and /readyz."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Self

from ingestd.config import Settings
from ingestd.errors import not_ready
from ingestd.http import logged
from ingestd.http.calls import OK, Page, Routes, page, show_ok
from ingestd.service.accepting import accept
from ingestd.service.admin import hub
from ingestd.service.collector import CONTENT_TYPE
from ingestd.service.listeners import Listener
from ingestd.ship.collector import Collector
from ingestd.ship.shipper import Shipper

log = logging.getLogger("ingestd.ship")


class Admin:
    """What is shown, and the servers that show it: the loop closes those that nobody holds."""

    def __init__(self, settings: Settings, shipper: Shipper) -> None:
        self._shipper = shipper
        self._collector = Collector(shipper)
        routes: Routes = {
            b"/metrics": page(lambda: Page(self._collector.text(), CONTENT_TYPE)),
            b"/healthz": page(show_ok),
            b"/readyz": page(self._ready),
        }
        self._hub = hub(settings, asyncio.get_running_loop(), routes)
        self._servers: list[asyncio.Server] = []

    @classmethod
    async def serve(cls, settings: Settings, shipper: Shipper, listeners: Sequence[Listener]) -> Self:
        """Answer on these sockets from now on."""
        admin = cls(settings, shipper)
        make = partial(logged.connection, admin._hub)
        for listener in listeners:
            for one in listener.sockets:
                admin._servers.append(await accept(one, make))
            log.info("metrics and probes on %s", listener.url)
        return admin

    def tick(self) -> None:
        """To be called a few times a second: end what is overdue."""
        self._hub.tick()

    def close(self) -> None:
        """Answer nobody any more."""
        for server in self._servers:
            server.close()
        for connection in list(self._hub.connections):
            connection.abort()

    def _ready(self) -> Page:
        """Raises Rejection (503) that says why the destination takes nothing."""
        if self._shipper.problem:
            raise not_ready(self._shipper.problem)
        return OK
