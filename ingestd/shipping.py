"""The command `ship`: what it is told, and what can be known to be wrong before it begins."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from ingestd.config import Settings

_HELP = """\
Delivers each sealed segment to object storage, once, or its events to Kafka or NATS JetStream, in order,
and marks it in DIR/shipped. It goes on until it is stopped, or with --once until what is sealed now is
delivered. A server on the same directory then deletes, as its retention says, only what is delivered.
Credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION,
AWS_ENDPOINT_URL, NATS_CREDS, …), those of Kafka from the file that kafka_config_file names.

--dedup 24h leaves out events whose messageId was delivered in the 24 hours before. The segments
of several workers overlap: in the last segment_age_max_s of that time a repeat may still be delivered, and a
shorter time than that is refused.

Exit status 0: with --once, all is confirmed, else it was stopped; 1: not all is; 2: usage."""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `ship` to the commands."""
    ship = commands.add_parser(
        "ship",
        help="deliver sealed segments to object storage, or their events to a log",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ship.add_argument("--data-dir", metavar="DIR", help="the server's data directory (./data)")
    ship.add_argument("--to", metavar="URL", help="s3://BUCKET/PREFIX, gs, az, file, or kafka and nats://…")
    ship.add_argument("--once", action="store_true", help="deliver what is sealed now, and end")
    ship.add_argument("--admin", metavar="ADDRESS", help="HOST:PORT or unix:PATH of its own /metrics (none)")
    ship.add_argument("--dedup", metavar="TIME", help="leave out what was delivered within 24h, 15m, … (off)")
    ship.add_argument("--config", type=Path, metavar="FILE", help="the server's settings: data_dir, ship_…")
    # The supervisor's: a shipper that it has started must not outlive it.
    ship.add_argument("--until-eof", action="store_true", help=argparse.SUPPRESS)


def check(settings: Settings, environ: Mapping[str, str]) -> None:
    """Raises UsageError if ship_to is not a place."""
    # It knows obstore's words; no other command needs them.
    from ingestd.ship.destination import destination

    destination(settings.ship_to, environ)
