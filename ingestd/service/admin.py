"""The listener for operators and their machines: /metrics, /healthz and /readyz, for all workers at once.

Its socket is shared by all workers, and whichever accepts a connection answers from the shared
memory. It goes through the same door as events do, with the same guards and deadlines, and takes no
events: what it shows is nothing for the public, so it has an address of its own.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from typing import Final

import msgspec

from ingestd.config import Settings
from ingestd.errors import not_ready
from ingestd.http.calls import OK, Page, Routes, page, show_ok
from ingestd.http.hub import Hub
from ingestd.keys import Keyring
from ingestd.ring import Ring
from ingestd.service.brief import Brief
from ingestd.service.collector import CONTENT_TYPE, Collector
from ingestd.service.reporter import Reporter
from ingestd.service.scoreboard import SharedMemory
from ingestd.service.standing import Standing

_CONNECTIONS_MAX: Final = 64
"""Of one worker: a few scrapers and probes, and room for those that have gone away unheard."""
_INFLIGHT_BYTES_MAX: Final = 1024 * 1024


def hub(settings: Settings, loop: AbstractEventLoop, routes: Routes) -> Hub:
    """The hub of a listener that takes no events and shows these pages."""
    settings = msgspec.structs.replace(
        settings,
        connections_max=_CONNECTIONS_MAX,
        inflight_bytes_max=_INFLIGHT_BYTES_MAX,
        request_log=False,
        cors_origins="",
    )
    return Hub(
        settings,
        Keyring(),
        Ring(1, 1),
        clock=loop.time,
        defer=loop.call_soon,
        drain_bytes_per_s=lambda: 0.0,
        not_ready=lambda: "",
        routes=routes,
    )


class Admin:
    """What is shown."""

    def __init__(self, brief: Brief, memory: SharedMemory, reporter: Reporter) -> None:
        self._brief = brief
        self._reporter = reporter
        self._standing = Standing(memory, brief.workers)
        self._collector = Collector(brief.settings, memory, self._standing)

    def hub(self, loop: AbstractEventLoop) -> Hub:
        """The hub of its connections."""
        routes: Routes = {
            b"/metrics": page(self._metrics),
            b"/healthz": page(show_ok),
            b"/readyz": page(self._ready),
        }
        return hub(self._brief.settings, loop, routes)

    def _metrics(self) -> Page:
        # The others are up to a tick behind; this one need not be.
        self._reporter.report()
        return Page(self._collector.text(), CONTENT_TYPE)

    def _ready(self) -> Page:
        """Raises Rejection (503) that says which workers are not ready, and why."""
        self._reporter.report()
        reason = self._standing.described()
        if reason:
            raise not_ready(reason)
        return OK
