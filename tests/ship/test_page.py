"""docs/shipping.md says what the code does."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from ingestd.ship import content, destination, process, shipper, store
from tests.support.tools import ROOT

PAGE: Final = (ROOT / "docs" / "shipping.md").read_text()
[RULES] = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)
ALERTS: Final[list[dict[str, Any]]] = yaml.safe_load(RULES)["groups"][0]["rules"]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_names_what_there_is(rule: dict[str, Any]) -> None:
    names = set(re.findall(r"\bingestd_\w+", rule["expr"]))
    assert names
    assert names <= set(re.findall(r"^\| `(ingestd_\w+)` \|", PAGE, re.M))


def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    (tmp_path / "rules.yml").write_text(RULES)
    done = subprocess.run(
        [promtool, "check", "rules", tmp_path / "rules.yml"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_figures_are_those_of_the_code() -> None:
    for figure in (
        f"more than {store.AT_ONCE_BYTES_MAX >> 20} MiB goes in parts of {content.PART_BYTES >> 20} MiB",
        f"what is on its way has {process._STOP_S:.0f} s to arrive",
        f"`PREFIX/{destination.STAGING}`",
    ):
        assert figure in PAGE
    assert {4: "fourth", 5: "fifth", 6: "sixth"}[shipper._ONCE_TRIES] + " failure in a row" in PAGE


def test_every_kind_of_store_is_on_the_page_with_its_variables() -> None:
    for scheme, kind in destination.KINDS.items():
        [row] = re.findall(rf"^\| `{scheme}://.*$", PAGE, re.M)
        for variable in re.findall(r"[A-Z_]{5,}", f"{kind.credentials} {kind.endpoint}"):
            assert f"`{variable}`" in row, variable
