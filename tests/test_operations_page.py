"""docs/operations.md explains what the code can say, and the units point to it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Final

from ingestd.service import readiness, standing

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = (ROOT / "docs" / "operations.md").read_text()


def test_every_reason_for_a_503_is_explained() -> None:
    [table] = re.findall(r"^\| `detail` \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    said = " ".join(re.findall(r"^\|([^|]*)\|", table, re.MULTILINE))
    for reason in readiness.REASONS[1:]:
        assert reason in said
    # What the admin listener says of workers that cannot speak for themselves.
    others = re.findall(r'return "([a-z ]+)"', inspect.getsource(standing._reason))
    assert len(others) >= 3
    for reason in others:
        assert f"`{reason}`" in said


def test_the_units_point_to_the_page_where_make_install_puts_it() -> None:
    assert 'share/doc/docs" docs/*.md' in (ROOT / "systemd" / "install").read_text()
    for unit in ("ingestd.service", "ingestd.socket"):
        text = (ROOT / "systemd" / unit).read_text()
        assert "Documentation=file:///opt/ingestd/share/doc/docs/operations.md\n" in text
