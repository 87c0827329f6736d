"""Invalid events are set aside in segments of their own, before the valid ones are said to be kept."""

from __future__ import annotations

import json
import time
from pathlib import Path
from random import Random

import pytest

from ingestd.config import AckLevel
from ingestd.events import Batch, Stamper
from ingestd.forms import MANY
from ingestd.sifting import sifted
from ingestd.storage.find import Search
from ingestd.storage.reader import cat
from ingestd.storage.receipts import Receipt
from ingestd.storage.recovery import recover_all
from ingestd.storage.retention import expired
from ingestd.storage.segment import invalid_directory, open_directory
from ingestd.storage.verify import verify
from tests.storage.running import Running
from tests.storage.samples import DATA, batch, new_disk, put
from tests.support.disk import FaultyDisk
from tests.support.requests import encoded, event

INVALID = invalid_directory(DATA)
STAMPER = Stamper("web", 64 * 1024)


def disk_for_both() -> FaultyDisk:
    """As a worker has it at its start."""
    disk = new_disk()
    disk.make_directory(open_directory(INVALID))
    return disk


def mixed(name: str, bad: int = 1) -> Batch:
    """A valid event and some that are not, each with an id."""
    events = [event(f"good {name}"), *({"messageId": f"bad {name} {i}"} for i in range(bad))]
    [found] = [one for one in sifted(STAMPER, encoded(events), MANY) if one is not None]
    return found


def ids(disk: FaultyDisk, data_dir: Path) -> list[str]:
    """Of all that can be read; nothing may be wrong."""
    wrong: list[str] = []
    content = b"".join(cat(disk, [data_dir], follow=False, problem=wrong.append))
    assert wrong == []
    return [json.loads(line)["messageId"] for line in content.splitlines()]


def after_power_cut(disk: FaultyDisk, rng: Random | None = None) -> FaultyDisk:
    """What is there after a power cut and the recovery that a worker does."""
    after = disk.crash(rng)
    for directory in (DATA, INVALID):
        recover_all(after, directory)
    return after


def test_what_is_set_aside_is_read_verified_and_found_like_other_events() -> None:
    disk = disk_for_both()
    running = Running(disk).start()
    running.commit(mixed("a", 2), batch(0), mixed("b"))
    for state in ("open", "sealed"):
        assert ids(disk, DATA) == ["good a", "0", "good b"]
        assert ids(disk, INVALID) == ["bad a 0", "bad a 1", "bad b 0"]
        verdict = verify(disk, INVALID)
        assert (verdict.ok, verdict.events, verdict.commits) == (
            True,
            3,
            2 if state == "open" else verdict.commits,
        )
        assert verify(disk, DATA).events == 3
        search = Search(disk, [DATA, INVALID], pytest.fail)
        [found] = search.by_message_id("bad a 1")
        assert found.receipt is not None
        assert Receipt.parsed(found.receipt).segment.endswith("-node-invalid-w0-000001")
        assert found in list(search.by_receipt(Receipt.parsed(found.receipt)))
        assert json.loads(json.loads(found.event)["event"]) == {"messageId": "bad a 1"}
        if state == "open":
            running.stop()
    assert (running.flusher.events_stored, running.flusher.events_quarantined) == (3, 3)
    assert running.sealer.segments_sealed == 2
    assert disk.list(open_directory(INVALID), "*") == disk.list(open_directory(DATA), "*") == []


def test_both_are_on_stable_storage_when_the_batch_is_acknowledged() -> None:
    for seed in range(20):
        disk = disk_for_both()
        running = Running(disk).start()
        seen: list[tuple[list[str], list[str]]] = []

        def look(
            disk: FaultyDisk = disk, seed: int = seed, seen: list[tuple[list[str], list[str]]] = seen
        ) -> None:
            after = after_power_cut(disk, Random(seed))
            seen.append((ids(after, DATA), ids(after, INVALID)))

        running.on_ack = look
        running.commit(mixed("a"), mixed("b"))
        running.stop()
        assert seen == [
            (["good a"], ["bad a 0"]),
            (["good a", "good b"], ["bad a 0", "bad b 0"]),
        ]


@pytest.mark.parametrize("call", ["write", "fdatasync", "create", "fsync"])
@pytest.mark.parametrize("nth", range(1, 7))
def test_where_either_fails_the_request_does_and_what_was_acknowledged_stays(call: str, nth: int) -> None:
    disk = disk_for_both()
    running = Running(disk).start()
    assert running.commit(mixed("before")) is None
    disk.fail(call, nth=nth)
    kept = ["before"]
    for n in range(8):
        if running.commit(mixed(str(n))) is None:
            kept.append(str(n))
    running.stop()
    assert len(kept) >= 8
    for found in (disk, after_power_cut(disk)):
        good, bad = ids(found, DATA), ids(found, INVALID)
        assert [one for one in good if one.split()[1] in kept] == [f"good {n}" for n in kept]
        assert [one for one in bad if one.split()[1] in kept] == [f"bad {n} 0" for n in kept]
        # What was refused may be among the events set aside, but not among the others.
        assert len(good) == len(kept)
        assert len(bad) <= len(kept) + 1


class _Replica:
    """A log that has acknowledged everything."""

    def send(self, batches: list[Batch]) -> AckLevel:
        assert batches
        return "replicated"

    def look(self) -> None:
        """It is there."""


def test_where_a_log_has_the_valid_ones_the_others_are_on_stable_storage() -> None:
    disk = disk_for_both()
    running = Running(disk, ack="replicated", replica=_Replica())
    running.ring.push(mixed("a"))
    running.ring.publish()
    assert running.flusher.step()
    assert len(ids(after_power_cut(disk), INVALID)) == 1


def test_segments_of_invalid_events_rotate_and_are_sealed_by_age() -> None:
    disk = disk_for_both()
    running = Running(disk, segment_bytes_max=1024).start()
    running.commit(*[mixed(str(n), 5) for n in range(40)])
    running.stop()
    sealed = disk.list(INVALID / "segments", "*", deep=True)
    assert len(sealed) > 2
    assert ids(disk, INVALID) == [f"bad {n} {i}" for n in range(40) for i in range(5)]
    assert verify(disk, INVALID).ok


def test_retention_takes_the_oldest_of_both() -> None:
    disk = disk_for_both()
    paths = []
    for hour, kind in enumerate(["", "-invalid"] * 2):
        root = INVALID if kind else DATA
        name = f"20260102T0{hour}0405.678Z-node{kind}-w0-000001.ndjson.zst"
        paths.append(root / "segments" / "date=2026-01-02" / f"hour=0{hour}" / name)
        put(disk, paths[-1], bytes(100))
    assert expired(disk, DATA, 0, 399, time.time()) == paths[:1]
    assert expired(disk, DATA, 0, 250, time.time()) == paths[:2]
    assert expired(disk, DATA, 0, 1, time.time()) == paths
