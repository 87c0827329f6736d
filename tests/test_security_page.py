"""docs/security.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec

from ingestd import oddities, sifting
from ingestd.config import Settings
from ingestd.errors import tls_required
from ingestd.http import decoder, guards, intake, protocol, unzstd
from ingestd.service import logwriter

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = (ROOT / "docs" / "security.md").read_text()
FIXED: Final = {
    "http.intake": intake,
    "http.protocol": protocol,
    "http.decoder": decoder,
    "http.unzstd": unzstd,
    "service.logwriter": logwriter,
    "oddities": oddities,
    "sifting": sifting,
}


def rows(heading: str) -> list[list[str]]:
    """The cells of the table whose first row begins with `heading`."""
    [table] = re.findall(rf"^\| {heading} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]


def test_every_limit_stands_on_the_page_with_its_default_and_a_reason() -> None:
    defaults = msgspec.structs.asdict(Settings())
    limits = {
        name
        for name in defaults
        if name.endswith(("_max", "_timeout_s"))
        and not name.startswith(("segment_", "commit_", "drain_", "ship_"))
    }
    stated = {name.strip("`"): (default, reason) for name, default, reason in rows("setting")}
    assert set(stated) == limits
    for name, (default, reason) in stated.items():
        assert default == f"`{defaults[name]}`", name
        assert len(reason.split()) >= 4, name


def test_every_fixed_limit_has_the_value_that_the_page_says() -> None:
    stated = rows("limit")
    assert len(stated) >= 4
    for name, value, _reason in stated:
        module, _, constant = name.strip("`").rpartition(".")
        assert value == f"`{getattr(FIXED[module], constant)}`", name


def test_every_rule_for_heads_stands_on_the_page_in_its_order() -> None:
    stated = [(int(status), code.strip("`"), detail) for status, code, detail in rows("status")]
    assert stated == [(rule.status, rule.code, rule.detail) for rule in guards.RULES]


def test_the_headers_that_may_stand_once_are_those_that_the_guards_refuse_twice() -> None:
    def is_refused_twice(name: bytes) -> bool:
        head = guards.Head()
        for _ in range(2):
            head.add(name, b"x")
        return bool(head.repeated)

    [sentence] = re.findall(r"may stand once: (.+?)\.\n", PAGE, re.DOTALL)
    refused = sorted(name.decode() for name in guards.KNOWN if is_refused_twice(name))
    assert re.findall(r"`([a-z-]+)`", sentence) == refused


def test_every_other_refusal_of_the_wire_is_named_with_its_status() -> None:
    flat = " ".join(PAGE.split())
    for rejection in (
        guards.unreadable("x"),
        guards.bad_request_line(),
        guards.header_too_large(1, 1),
        guards.target_too_long(1),
        guards.chunks_too_small(1),
        tls_required(),
    ):
        assert re.search(rf"\b{rejection.status}( `\w+` or)? `{rejection.code}`", flat), rejection
