"""`ingestd ship --dedup` to a log: each messageId once, over stops in the middle of segments and cuts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.eventlog.conftest import KINDS
from tests.support.distinct import marker_of, seal
from tests.support.logs import Log
from tests.support.server import wait_until
from tests.support.shipping import Shipping, markers, sealed


@pytest.mark.parametrize("log", KINDS, indirect=True)
def test_repeats_in_a_segment_and_across_segments_and_starts_are_not_sent(tmp_path: Path, log: Log) -> None:
    data = tmp_path / "data"
    first = seal(data, 1, ["a", "b"], ["a", "c"], more="first")
    second = seal(data, 2, ["b"], ["c", "d", "d"], worker=1, more="second")
    third = seal(data, 3, ["a"], ["b"])
    shipping = Shipping(tmp_path, log.url, "--once", "--dedup", "24h")
    assert shipping.once() == 0, shipping.log
    assert log.message_ids() == ["a", "b", "c", "d"]
    assert [json.loads(value)["x"] for value in log.values()] == ["first"] * 3 + ["second"]
    assert "6 repeats left out" in shipping.log
    told = [marker_of(data, name) for name in (first, second, third)]
    assert [(one["events"], one["dropped"]) for one in told] == [(3, 1), (1, 3), (0, 2)]
    seal(data, 4, ["d", "e"], ["a"])
    assert shipping.once() == 0, shipping.log
    assert "remembers 4 events of 3 delivered segments" in shipping.log
    assert log.message_ids() == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("log", KINDS, indirect=True)
def test_a_segment_that_is_delivered_in_part_is_remembered_in_part(tmp_path: Path, log: Log) -> None:
    data = tmp_path / "data"
    commits = [[f"{commit}-{event}" for event in range(3)] for commit in range(40)]
    # Its end repeats its beginning.
    seal(data, 5, *commits, *commits[:2], more="x" * 30_000)
    # The second megabyte is not sent before the first is paid off.
    with Shipping(tmp_path, log.url, "--dedup", "24h", ship_bytes_per_s=200_000):
        wait_until(lambda: list(data.glob("shipped/*/*.cursor")), "the cursor has moved", 60)
    # It stands before the other one, and repeats what that has delivered and what it has not.
    seal(data, 1, ["new", *commits[0]], commits[-1], worker=1)
    shipping = Shipping(tmp_path, log.url, "--once", "--dedup", "24h")
    assert shipping.once() == 0, shipping.log
    assert Counter(log.message_ids()) == Counter({"new", *(one for commit in commits for one in commit)})
    assert log.message_ids()[-1] == "new"
    assert markers(data) == sealed(data).keys()
