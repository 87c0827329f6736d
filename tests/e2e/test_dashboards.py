"""Dashboard, alerts and page name only what a real server shows; each alert fires when it should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.support.scrape import Scrape, scrape
from tests.support.server import EVENT, Server, wait_until

DOCS: Final = Path(__file__).parents[2] / "docs"
DASHBOARD: Final = json.loads((DOCS / "grafana-dashboard.json").read_text())
PANELS: Final = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES: Final[list[dict[str, Any]]] = [
    rule for group in yaml.safe_load((DOCS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
ALERTS: Final = [rule["alert"] for rule in RULES]
SUFFIXES: Final = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "info": ("_info",)}

_LABEL: Final = re.compile(r'([a-z_]+)\s*(?:=~|!~|!=|=)\s*"')
_BY: Final = re.compile(r"by \(([^)]*)\)")
_OF_PROMETHEUS: Final = {"instance", "job", "le"}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scrape]:
    """What a server shows that has stored and refused something."""
    with Server(tmp_path_factory.mktemp("server"), admin="127.0.0.1:0") as server:
        with server.client() as client:
            assert client.post("/v1/track", EVENT).status == 200
            assert client.post("/v1/track", b"{").status == 400
        wait_until(lambda: scrape(server).by("refusals_total", "code"), "both are counted")
        yield scrape(server)


def names(shown: Scrape) -> set[str]:
    """Everything that can stand in a query."""
    found = set()
    for family in shown.families.values():
        found |= {family.name + suffix for suffix in SUFFIXES.get(family.type, ("",))}
    return found


def labels(shown: Scrape) -> set[str]:
    samples = [sample for family in shown.families.values() for sample in family.samples]
    return {label for sample in samples for label in sample.labels}


def assert_known(query: str, shown: Scrape) -> None:
    used = set(re.findall(r"\bingestd_\w+", query))
    assert used, query
    assert used <= names(shown), used - names(shown)
    named = set(_LABEL.findall(query))
    for by in _BY.findall(query):
        named |= {label.strip() for label in by.split(",")}
    assert named <= labels(shown) | _OF_PROMETHEUS, named


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_shows_what_there_is(panel: dict[str, Any], shown: Scrape) -> None:
    assert panel["description"].endswith(".")
    assert panel["targets"]
    for target in panel["targets"]:
        assert_known(target["expr"], shown)
        assert target["legendFormat"]
        assert target["expr"].count('{instance=~"$instance"}') >= 1
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            assert label in labels(shown) | _OF_PROMETHEUS


def test_everything_that_is_shown_is_on_the_dashboard(shown: Scrape) -> None:
    queries = "".join(target["expr"] for panel in PANELS for target in panel["targets"])
    missing = [name for name in shown.families if name not in queries]
    assert missing == []


def test_panels_do_not_overlap_and_have_numbers_of_their_own() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in own) < 24
        assert not own & cells
        cells |= own
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("rule", RULES, ids=ALERTS)
def test_an_alert_names_what_there_is_and_says_what_it_is_about(rule: dict[str, Any], shown: Scrape) -> None:
    assert_known(rule["expr"], shown)
    assert rule["labels"]["severity"] in ("critical", "warning")
    summary, description = rule["annotations"]["summary"], rule["annotations"]["description"]
    assert 0 < len(summary) < 100
    assert not summary.endswith(".")
    assert description.endswith(".")
    compared = re.search(r"(==|<|>) ?([\d.]+|ingestd_\w+)", rule["expr"])
    assert compared or rule["expr"].startswith("absent("), "no threshold"


def test_each_alert_is_on_the_page_with_what_to_do() -> None:
    page = (DOCS / "metrics.md").read_text()
    rows = re.findall(r"^\| (`Ingestd.*?) \| (.+?) \|$", page, re.MULTILINE)
    listed = [name for row, _ in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(listed) == sorted(ALERTS)
    assert len(set(ALERTS)) == len(ALERTS)


@pytest.mark.parametrize("script", ["grafana_dashboard.py", "metrics_table.py"])
def test_what_is_made_from_the_code_is_up_to_date(script: str) -> None:
    done = subprocess.run(
        [sys.executable, DOCS / script, "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def promtool(*arguments: str, folder: Path) -> None:
    """Run promtool; it is not asked for, for its package brings a whole Prometheus."""
    path = shutil.which("promtool")
    if path is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    done = subprocess.run([path, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules_and_the_page(tmp_path: Path, shown: Scrape) -> None:
    promtool("check", "rules", str(DOCS / "alerts.yml"), folder=tmp_path)
    path = shutil.which("promtool")
    assert path is not None
    done = subprocess.run(
        [path, "check", "metrics"], input=shown.text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# What a server shows, minute by minute, when nothing is wrong: name and labels, and the values.
WELL: Final = {
    "ingestd_build_info": "1x90",
    "ingestd_ready": "1x90",
    'ingestd_worker_restarts_total{worker="0"}': "0x90",
    'ingestd_worker_silence_seconds{worker="0",thread="flusher"}': "1x90",
    "ingestd_events_failed_total": "0x90",
    "ingestd_disk_free_bytes": "100000x90",
    "ingestd_disk_reserve_bytes": "1000x90",
    "ingestd_ring_fill_ratio": "0.1x90",
    'ingestd_refusals_total{code="overloaded"}': "0x90",
    'ingestd_commit_seconds_bucket{le="0.25"}': "0+600x90",
    'ingestd_commit_seconds_bucket{le="1.0"}': "0+600x90",
    'ingestd_commit_seconds_bucket{le="+Inf"}': "0+600x90",
    "ingestd_sealing_refused_files": "0x90",
    "ingestd_sealing_waiting_files": "0x90",
    "ingestd_segments_sealed_total": "0+1x90",
    'ingestd_recovery_files_total{action="recovered"}': "1x90",
    'ingestd_recovery_files_total{action="quarantined"}': "0x90",
    "ingestd_connections": "100x90",
    "ingestd_connections_limit": "1000x90",
    'ingestd_requests_total{route="/v1/track",status="200"}': "0+600x90",
    'ingestd_requests_total{route="/v1/track",status="400"}': "0+10x90",
}
# What is otherwise when each alert has to fire; within 90 minutes, and no other alert with it.
WRONG: Final[dict[str, dict[str, str]]] = {
    "IngestdAbsent": {"ingestd_build_info": "1x40 _x50"},
    "IngestdLogAway": {"ingestd_log_away": "0x40 1x50"},
    "IngestdNotReady": {"ingestd_ready": "1x40 0x50"},
    "IngestdWorkerRestarting": {'ingestd_worker_restarts_total{worker="0"}': "0x80 1+1x9"},
    "IngestdWorkerSilent": {'ingestd_worker_silence_seconds{worker="0",thread="flusher"}': "1x80 20+60x9"},
    "IngestdEventsFailed": {"ingestd_events_failed_total": "0x85 3x5"},
    "IngestdDiskFull": {"ingestd_disk_free_bytes": "900x90"},
    "IngestdDiskFilling": {"ingestd_disk_free_bytes": "100000-500x90"},
    "IngestdRingFilling": {"ingestd_ring_fill_ratio": "0.1x80 0.9x10"},
    "IngestdOverloaded": {'ingestd_refusals_total{code="overloaded"}': "0x40 0+120x50"},
    "IngestdSlowCommits": {'ingestd_commit_seconds_bucket{le="0.25"}': "0+500x90"},
    "IngestdSealingStuck": {
        "ingestd_sealing_waiting_files": "0x40 2x50",
        "ingestd_segments_sealed_total": "5x90",
    },
    "IngestdDamaged": {'ingestd_recovery_files_total{action="quarantined"}': "1x90"},
    "IngestdConnectionsNearLimit": {"ingestd_connections": "900x90"},
    "IngestdMostlyRefused": {'ingestd_requests_total{route="/v1/track",status="400"}': "0+900x90"},
}
ALSO: Final = {"IngestdDiskFull": {"IngestdDiskFilling"}}
"""A disk that is full is also about to be."""


@pytest.mark.parametrize("alert", ["none", *ALERTS])
def test_an_alert_fires_when_it_should_and_no_other_does(alert: str, tmp_path: Path) -> None:
    series = {with_instance(name): values for name, values in (WELL | WRONG.get(alert, {})).items()}
    silent = [other for other in ALERTS if other != alert and other not in ALSO.get(alert, ())]
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": "89m", "alertname": other, "exp_alerts": []} for other in silent],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
                "eval_time": "89m",
                "exp_samples": [{"labels": "{}", "value": 1}] if alert != "none" else [],
            }
        ],
    }
    path = tmp_path / "test.yml"
    path.write_text(
        yaml.safe_dump(
            {"rule_files": [str(DOCS / "alerts.yml")], "evaluation_interval": "1m", "tests": [test]}
        )
    )
    promtool("test", "rules", str(path), folder=tmp_path)


def with_instance(series: str) -> str:
    """The series as Prometheus has it after a scrape."""
    name, brace, own = series.partition("{")
    return f'{name}{{instance="a:1",job="ingestd"{"," + own if brace else "}"}'
