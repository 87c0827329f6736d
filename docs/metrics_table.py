"""Writes docs/metrics.md's table of what /metrics shows; `--check` only compares.

The names and the help texts are those of the code, so the page and the server cannot differ.
"""

from __future__ import annotations

import sys
from pathlib import Path

from marked import rewrite

from ingestd.config import Settings
from ingestd.service import scoreboard, tallies
from ingestd.service.collector import Collector
from ingestd.service.reporter import ANSWERS, KEY_EVENTS
from ingestd.service.scoreboard import WORKER_FIELDS
from ingestd.service.standing import Standing
from ingestd.service.tallies import Tallies

PAGE = Path(__file__).with_name("metrics.md")


def table() -> str:
    """A row for each family, of a server that has seen something of each kind."""
    memory = scoreboard.make(1)
    standing = Standing(memory, 1)
    for field in WORKER_FIELDS:
        standing.rows[0][field] = 1
    seen = Tallies(memory.region(tallies.REGION, 0), 0)
    seen.put((ANSWERS, "/v1/track", 400, "invalid_event"), 1)
    seen.put((KEY_EVENTS, "default"), 1)
    rows = ["| name | labels | kind | meaning |", "|--|--|--|--|"]
    for family in Collector(Settings(), memory, standing).collect():
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le")
        kind = "gauge" if family.type == "info" else family.type
        rows.append(
            f"| `{name}` | {', '.join(f'`{label}`' for label in labels)} | {kind} | {family.documentation} |"
        )
    return "\n".join(rows)


def main(arguments: list[str]) -> int:
    """Rewrite the page between the markers; with `--check`, exit 1 if that would change it."""
    return rewrite(PAGE, "metrics", "ingestd/service", table(), arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
