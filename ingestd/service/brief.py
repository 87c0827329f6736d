"""What the supervisor tells a worker, as one line of JSON on its standard input."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from ingestd.config import Settings

READY: Final = b"ready\n"
"""What the worker says on its standard output when it serves."""
RELOADED: Final = b"reloaded\n"
"""What it says when it has done what SIGHUP asks for, as far as that can be done."""


class Brief(Struct, frozen=True):
    """Who the worker is and what it has inherited."""

    settings: Settings
    worker: int
    """Its number, from 0."""
    workers: int
    """How many there are."""
    sockets: list[int]
    """Descriptors of the listening sockets."""
    tls_sockets: list[int]
    """Those of them on which TLS is spoken."""
    admin_sockets: list[int]
    """Descriptors of those of the admin listener."""
    memory: int
    """Descriptor of the memory that all share: see `scoreboard`."""
