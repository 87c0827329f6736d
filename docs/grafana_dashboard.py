"""Writes docs/grafana-dashboard.json from the rows below; `--check` only compares.

A dashboard's JSON is long and alike from panel to panel: here stands what differs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

TARGET = Path(__file__).with_name("grafana-dashboard.json")
WIDTH = 24
HEIGHT = 8
HERE = '{instance=~"$instance"}'
"""What each query is narrowed to."""


_GRAPH = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
_STAT = {"reduceOptions": {"calcs": ["lastNotNull"]}}


class Panel(NamedTuple):
    """One graph: its lines as (query, legend); the queries say HERE."""

    title: str
    unit: str
    text: str
    lines: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    shows: str = "auto"
    """Of a stat: the value, or its name."""


def rate(name: str, by: str = "") -> str:
    """The sum of a counter's rates."""
    return f"sum{f' by ({by})' if by else ''} (rate({name}HERE[$__rate_interval]))"


def quantiles(name: str) -> tuple[tuple[str, str], ...]:
    """Median and worst of a histogram."""
    return tuple(
        (f"histogram_quantile({q}, {rate(f'{name}_bucket', 'le')})", legend)
        for q, legend in ((0.5, "half"), (0.99, "99 of 100"))
    )


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "At a glance",
        (
            Panel(
                "Ready", "bool_yes_no", "Every worker takes events.",
                (("min(ingestd_readyHERE)", "ready"),), "stat",
            ),
            Panel(
                "Workers that take events", "none", "Of how many there are to be.",
                (("sum(ingestd_worker_readyHERE)", "ready"), ("sum(ingestd_workersHERE)", "wanted")), "stat",
            ),
            Panel(
                "Events stored", "cps", "A second.",
                ((rate("ingestd_events_stored_total"), "stored"),), "stat",
            ),
            Panel(
                "Version", "none", "Of what answers.",
                (("count by (version, python) (ingestd_build_infoHERE)", "{{version}}, Python {{python}}"),),
                "stat", "name",
            ),
        ),
    ),
    (
        "What comes in",
        (
            Panel(
                "Events", "cps", "Valid ones, by what became of them.",
                (
                    (rate("ingestd_events_received_total"), "received"),
                    (rate("ingestd_events_stored_total"), "stored"),
                    (rate("ingestd_events_refused_total"), "refused: 429"),
                    (rate("ingestd_events_failed_total"), "failed: 500"),
                    (rate("ingestd_events_quarantined_total"), "invalid, set aside"),
                ),
            ),
            Panel(
                "Requests", "reqps", "By route and status.",
                ((rate("ingestd_requests_total", "route, status"), "{{route}} {{status}}"),),
            ),
            Panel(
                "Refusals", "reqps", "By the code in the answer.",
                ((rate("ingestd_refusals_total", "code"), "{{code}}"),),
            ),
            Panel(
                "Events by key", "cps", "The ten largest.",
                ((f"topk(10, {rate('ingestd_key_events_total', 'key')})", "{{key}}"),),
            ),
            Panel(
                "Bytes", "Bps", "From clients, as lines, and as they were written.",
                (
                    (rate("ingestd_received_bytes_total"), "received"),
                    (rate("ingestd_commit_bytes_sum"), "lines"),
                    (rate("ingestd_stored_bytes_total"), "stored, compressed"),
                ),
            ),
            Panel(
                "Connections", "none", "Open ones, and how many may be.",
                (
                    ("sum(ingestd_connectionsHERE)", "open"),
                    ("sum(ingestd_connections_limitHERE)", "limit"),
                    (rate("ingestd_connections_accepted_total"), "accepted a second"),
                ),
            ),
        ),
    ),
    (
        "What waits",
        (
            Panel(
                "Ring fill", "percentunit", "Of the fullest worker; full, it refuses with 429.",
                (("max by (instance) (ingestd_ring_fill_ratioHERE)", "{{instance}}"),),
            ),
            Panel(
                "Bytes that wait for their commit", "bytes", "In all rings.",
                (("sum(ingestd_ring_bytesHERE)", "bytes"), ("sum(ingestd_ring_limit_bytesHERE)", "limit")),
            ),
            Panel(
                "Batches that wait for their commit", "none", "In all rings.",
                (("sum(ingestd_ring_batchesHERE)", "batches"),),
            ),
            Panel(
                "Bodies in flight", "bytes", "That are being received, inflated.",
                (
                    ("sum(ingestd_inflight_bytesHERE)", "bytes"),
                    ("sum(ingestd_inflight_limit_bytesHERE)", "limit"),
                ),
            ),
        ),
    ),
    (
        "The disk",
        (
            Panel("Commit latency", "s", "What every client waits for.", quantiles("ingestd_commit_seconds")),
            Panel("fsync latency", "s", "Of it: what the disk takes.", quantiles("ingestd_fsync_seconds")),
            Panel(
                "Events of a commit", "none", "More of them at once cost less.",
                quantiles("ingestd_commit_events"),
            ),
            Panel("Bytes of a commit", "bytes", "Lines, uncompressed.", quantiles("ingestd_commit_bytes")),
            Panel(
                "Commits", "cps", "And those that the disk has refused.",
                (
                    (rate("ingestd_commit_seconds_count"), "commits"),
                    (rate("ingestd_commits_failed_total"), "failed"),
                ),
            ),
            Panel(
                "Disk room", "bytes", "Below the reserve every event gets 429.",
                (
                    ("min by (instance) (ingestd_disk_free_bytesHERE)", "free {{instance}}"),
                    ("max by (instance) (ingestd_disk_reserve_bytesHERE)", "reserve {{instance}}"),
                ),
            ),
        ),
    ),
    (
        "Log (ack = replicated)",
        (
            Panel(
                "Log away", "none", "1 while it does not acknowledge.",
                (("max by (instance) (ingestd_log_awayHERE)", "{{instance}}"),),
            ),
            Panel(
                "Replication latency", "s", "Until the log had acknowledged a commit.",
                quantiles("ingestd_replication_seconds"),
            ),
            Panel(
                "Without the log", "cps", "Events that fell back to fsync, and commits not acknowledged.",
                (
                    (rate("ingestd_events_fallen_back_total"), "events fallen back"),
                    (rate("ingestd_replications_failed_total"), "commits not acknowledged"),
                ),
            ),
        ),
    ),
    (
        "Segments and workers",
        (
            Panel(
                "Segments", "none", "In a quarter of an hour.",
                tuple(
                    (f"sum(increase(ingestd_segments_{what}_totalHERE[15m]))", what)
                    for what in ("sealed", "packed", "expired")
                ),
            ),
            Panel(
                "Files to be sealed", "none", "Refused ones are tried again.",
                (
                    ("sum(ingestd_sealing_waiting_filesHERE)", "waiting"),
                    ("sum(ingestd_sealing_refused_filesHERE)", "of these refused by the disk"),
                    ("sum(increase(ingestd_seal_refusals_totalHERE[15m]))", "refusals in 15 minutes"),
                ),
            ),
            Panel(
                "Recovery", "none", "Files that a process had left open; events and bytes in doubt of them.",
                (
                    ("sum by (action) (ingestd_recovery_files_totalHERE)", "{{action}}"),
                    ("sum(ingestd_recovery_events_totalHERE)", "events"),
                    ("sum(ingestd_recovery_in_doubt_bytes_totalHERE)", "bytes in doubt"),
                ),
            ),
            Panel(
                "Worker restarts", "none", "In a quarter of an hour; replaced ones do not count.",
                (
                    (
                        "sum by (instance, worker) (increase(ingestd_worker_restarts_totalHERE[15m]))",
                        "{{instance}} worker {{worker}}",
                    ),
                ),
            ),
            Panel(
                "Silence", "s", "Since a loop or a flusher has gone round; an idle one does once a second.",
                (
                    (
                        "max by (instance, worker, thread) (ingestd_worker_silence_secondsHERE)",
                        "{{instance}} worker {{worker}} {{thread}}",
                    ),
                ),
            ),
            Panel(
                "Workers up", "none", "Processes that run.",
                (("sum by (instance) (ingestd_worker_upHERE)", "{{instance}}"),),
            ),
        ),
    ),
)  # fmt: skip


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS:
        place = {"h": 1, "w": WIDTH, "x": 0, "y": top}
        panels.append({"type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []})
        top += 1
        height = HEIGHT if row[0].kind == "timeseries" else HEIGHT // 2
        columns = 3 if height == HEIGHT else len(row)
        for number, panel in enumerate(row):
            place = {
                "h": height,
                "w": WIDTH // columns,
                "x": WIDTH // columns * (number % columns),
                "y": top + height * (number // columns),
            }
            panels.append(_panel(panel, place))
        top += height * -(-len(row) // columns)
    for number, made in enumerate(panels, 1):
        made["id"] = number
    return {
        "uid": "ingestd",
        "title": "ingestd",
        "tags": ["ingestd"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_source(), _instance()]},
        "panels": panels,
    }


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": source,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": _GRAPH if panel.kind == "timeseries" else _STAT | {"textMode": panel.shows},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": source,
                "expr": query.replace("HERE", HERE),
                "legendFormat": legend,
            }
            for number, (query, legend) in enumerate(panel.lines)
        ],
    }  # fmt: skip


def _source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _instance() -> dict[str, Any]:
    return {
        "name": "instance",
        "label": "Instance",
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": "label_values(ingestd_build_info, instance)",
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def main(arguments: list[str]) -> int:
    """Write the file; with `--check`, exit 1 if that would change it."""
    made = json.dumps(dashboard(), indent=1) + "\n"
    if "--check" in arguments:
        is_same = TARGET.exists() and TARGET.read_text() == made
        if not is_same:
            print(f"{TARGET.name} is not that of {Path(__file__).name}: run `make docs`")
        return int(not is_same)
    TARGET.write_text(made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
