"""Writes docs/metrics.md's table of what /metrics shows; `--check` only compares.

The names and the help texts are those of the code, so the page and the server cannot differ.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from marked import rewrite
from prometheus_client.core import Metric

from ingestd.config import Settings
from ingestd.service import scoreboard, tallies
from ingestd.service.collector import Collector
from ingestd.service.reporter import ANSWERS, KEY_EVENTS
from ingestd.service.scoreboard import WORKER_FIELDS
from ingestd.service.standing import Standing
from ingestd.service.tallies import Tallies
from ingestd.ship import collector as shipping
from ingestd.ship.delivery import Segment
from ingestd.ship.shipper import Shipper
from ingestd.storage.disk import Disk
from ingestd.storage.repeats import Seen
from ingestd.storage.shipped import Markers

PAGE = Path(__file__).with_name("metrics.md")
SHIPPING = Path(__file__).with_name("shipping.md")


def table() -> str:
    """A row for each family, of a server that has seen something of each kind."""
    memory = scoreboard.make(1)
    standing = Standing(memory, 1)
    for field in WORKER_FIELDS:
        standing.rows[0][field] = 1
    seen = Tallies(memory.region(tallies.REGION, 0), 0)
    seen.put((ANSWERS, "/v1/track", 400, "invalid_event"), 1)
    seen.put((KEY_EVENTS, "default"), 1)
    return _rows(Collector(Settings(), memory, standing).collect())


class _Nowhere:
    lanes = 1
    underway = ()

    async def deliver(self, _segment: Segment) -> None:
        return None

    async def close(self) -> None:
        return None


def ship_table() -> str:
    """The same of a shipper."""
    disk, nowhere = Disk(), Path()
    shipper = Shipper(disk, nowhere, _Nowhere(), Markers(disk, nowhere, ""))
    shipper.seen = Seen(1, 1)
    return _rows(shipping.Collector(shipper).collect())


def _rows(families: Iterable[Metric]) -> str:
    rows = ["| name | labels | kind | meaning |", "|--|--|--|--|"]
    for family in families:
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le")
        kind = "gauge" if family.type == "info" else family.type
        rows.append(
            f"| `{name}` | {', '.join(f'`{label}`' for label in labels)} | {kind} | {family.documentation} |"
        )
    return "\n".join(rows)


def main(arguments: list[str]) -> int:
    """Rewrite the pages between the markers; with `--check`, exit 1 if that would change one."""
    return max(
        rewrite(PAGE, "metrics", "ingestd/service", table(), arguments),
        rewrite(SHIPPING, "metrics", "ingestd/ship/collector.py", ship_table(), arguments),
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
