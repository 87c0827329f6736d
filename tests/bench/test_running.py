"""A contender is started, asked and measured; what can be had without wrk and packages of others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench import contenders, corpus, wrk
from bench.contenders import Contender
from bench.corpus import Load
from bench.run import LONG
from bench.running import Running
from tests.support.tools import tool

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="server and load have a core each")


def _contender(name: str) -> Contender:
    return next(one for one in contenders.every() if one.name == name)


@pytest.mark.parametrize("name", [contenders.FSYNC, contenders.TWO])
def test_ingestd_is_what_the_page_says_of_it(name: str, tmp_path: Path) -> None:
    tool("taskset")
    one = Running(_contender(name), tmp_path / "site")
    try:
        checked = one.check()
        assert checked.refuses_unknown_keys
        assert checked.refuses_invalid_events
        assert checked.keeps_gzip_inflated
        assert checked.keeps_events
        timing = one.time(corpus.bodies(Load(1), count=50), rate=200.0, seconds=1.0)
        one.settle()
        stored = one.stored(Load(1))
        # With those of the warm-up.
        assert stored.events > timing.requests > 100
        assert 0 < stored.zstd3_bytes < stored.content_bytes
        assert one.process.cpu_s() > 0
        assert one.process.peak_rss_bytes() > 1 << 20
        one.forget()
        assert one.stored(Load(1)).bytes == 0
    finally:
        one.stop()
    assert one.process.has_ended


def test_the_noop_server_is_found_to_keep_nothing(tmp_path: Path) -> None:
    tool("taskset")
    one = Running(_contender(contenders.NOOP), tmp_path / "site")
    try:
        checked = one.check()
    finally:
        one.stop()
    assert not checked.keeps_events
    assert not checked.refuses_unknown_keys
    assert not checked.refuses_invalid_events


def test_who_is_missing_names_what_to_install() -> None:
    by_name = {one.name: one.needs() for one in contenders.every()}
    assert by_name[contenders.FSYNC] is None
    assert by_name["Vector"] == "name its binary with --vector PATH"
    assert by_name[contenders.FLUENT_BIT] == "name its binary with --fluent-bit PATH"


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    broken = Contender(
        "broken", "", lambda _site: ["sh", "-c", "echo no such thing >&2; exit 3"], lambda: None, dict
    )
    with pytest.raises(RuntimeError, match="no such thing"):
        Running(broken, tmp_path / "site")


@pytest.mark.parametrize("load", LONG.loads, ids=lambda load: load.name)
def test_bodies_are_the_same_each_time_and_read_back(load: Load, tmp_path: Path) -> None:
    real = tmp_path / "real.ndjson"
    real.write_bytes(b'{"event":"e","properties":{"a":%d}}\n' * 300 % tuple(range(300)))
    bodies = corpus.bodies(load, real, count=2 if load.shape != "real" else None)
    assert bodies == corpus.bodies(load, real, count=2 if load.shape != "real" else None)
    assert len(set(bodies[:2])) == 2
    wrk.write_bodies(bodies, tmp_path / "bodies")
    assert wrk.read_bodies(tmp_path / "bodies") == bodies
