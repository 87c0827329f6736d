"""Logs: one line per happening on stderr, which journald collects."""

from __future__ import annotations

import logging
import sys


def begin(worker: int | None = None) -> None:
    """Log to stderr; the lines of a worker say which one it is."""
    who = "" if worker is None else f" w{worker}"
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format=f"%(levelname)s %(name)s{who}: %(message)s"
    )
