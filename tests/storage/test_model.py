"""Some hundreds of runs of the model, the runs that have found bugs, and bugs that it must find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ingestd.events import Batch
from ingestd.ring import Ring
from ingestd.storage import fingerprints, packing, recovery, rotation
from ingestd.storage.disk import Disk
from ingestd.storage.index import Index
from ingestd.storage.open_segment import OpenSegment
from ingestd.storage.receipts import Receipt
from ingestd.storage.rotation import Rotation
from tests.storage.machine import Action
from tests.storage.model import Tally, failure, failures, plan, run, shrink
from tests.storage.processes import Shape

RUNS = 300
AT_ONCE = 30

FOUND: dict[str, tuple[Shape, list[Action]]] = {
    # A footer without its head, of which the first sector was not written, passed for that of later commits.
    "a footer of which only the last bytes were written costs no commit": (
        Shape(segment_bytes=400, commit_bytes=1500, commits_max=3, packed_bytes=700, has_dsync=True),
        [
            ("post", 0, 1, 5, 0),
            ("post", 2, 5, 5, 1),
            ("post", 1, 1, 40, 0),
            ("post", 0, 1, 200, 1),
            ("post", 2, 1, 3215, 1),
            ("commit",),
            ("sweep", 5, 93904),
        ],
    ),
    # After a kill a commit was sealed that the open file then lost in a power cut.
    "an open file that has lost its end is no other segment than its sealed copy": (
        Shape(segment_bytes=12000, commit_bytes=1500),
        [
            ("sweep", 50, 1022937),
            ("post", 1, 1, 40, 0),
            ("commit",),
            ("post", 1, 1, 3413, 0),
            ("cut", 1, 0, 289500),
            ("commit",),
        ],
    ),
    # It had been cut off, but not durably.
    "nor is one in which a refused commit has come back": (
        Shape(),
        [
            ("post", 0, 1, 5, 0),
            ("commit",),
            ("fail", 1, 0, 1, 0, 1, 0, 7),
            ("post", 0, 1, 5, 0),
            ("commit",),
            ("cut", 24, 1, 7),
            ("seal",),
        ],
    ),
    # The clock stood still, so its name was used again; then it came back.
    "a segment deleted by retention is not in the way after a power cut": (
        Shape(commit_bytes=100_000, packed_bytes=700, retain_bytes=3000, retain_age_s=90, has_clock=False),
        [
            ("post", 1, 5, 4898, 1),
            ("commit",),
            ("kill",),
            ("seal",),
            ("post", 2, 1, 40, 0),
            ("sweep", 15, 364535),
        ],
    ),
}


@pytest.mark.parametrize("first", range(0, RUNS, AT_ONCE))
def test_whatever_happens_every_promise_is_kept(first: int) -> None:
    for report in failures(range(first, first + AT_ONCE), Tally()):
        pytest.fail(report, pytrace=False)


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_stays_mended(name: str) -> None:
    run(*FOUND[name])


def _unsynced(segment: OpenSegment, *what: Any, **_: bool) -> int:
    return COMMIT(segment, *what, sync=False)


def _events_only(rotation: Rotation, batches: list[Batch], *, sync: bool) -> Receipt:
    is_aside = rotation._node.endswith("-invalid")
    return Receipt("", 0) if is_aside else COMMIT_BATCHES(rotation, batches, sync=sync)


def _reversed(ring: Ring, bytes_max: int) -> Any:
    return POP(ring, bytes_max)[::-1]


def _moved_hastily(disk: Disk, source: Any, target: Any) -> None:
    disk.link(source, target)
    disk.unlink(source)
    disk.sync_directory(source.parent)


COMMIT, POP, OF_IDS = OpenSegment.commit, Ring.pop, fingerprints.of_ids
COMMIT_BATCHES = Rotation.commit
BUGS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "commits are not synced": (OpenSegment, "commit", _unsynced),
    "batches are committed in another order": (Ring, "pop", _reversed),
    "the old name goes before the new one is durable": (Disk, "move", _moved_hastily),
    "files that failed are forgotten": (
        Rotation,
        "abandon",
        lambda rotation: setattr(rotation, "_segment", None),
    ),
    "copies are not synced": (
        recovery,
        "_write_whole",
        lambda disk, path, _data: disk.close(disk.create(path)),
    ),
    "what is set aside is not written": (Rotation, "commit", _events_only),
    "packing loses lines": (packing, "counted", lambda *_: b""),
    "packing forgets which commits there were": (packing, "Index", lambda found, _commits: Index(found)),
    "recovery makes no index": (recovery, "_index", lambda *_: b""),
    "ids are not indexed in the order of their lines": (
        fingerprints,
        "of_ids",
        lambda ids: OF_IDS(ids[::-1]),
    ),
    "a receipt names the commit before": (
        rotation,
        "Receipt",
        lambda segment, commit: Receipt(segment, max(0, commit - 1)),
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_model_finds_a_bug_and_the_fewest_actions_that_show_it(
    bug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, name, instead = BUGS[bug]
    with monkeypatch.context() as patch:
        patch.setattr(where, name, instead)
        seed = next(seed for seed in range(500) if failure(*plan(seed)) is not None)
        shape, actions = plan(seed)
        fewest = shrink(shape, actions)
        assert failure(shape, fewest) is not None
        for at in range(len(fewest)):
            assert failure(shape, fewest[:at] + fewest[at + 1 :]) is None
    assert failure(shape, fewest) is None


def test_a_seed_is_the_same_run_each_time() -> None:
    tallies = [Tally(), Tally()]
    for tally in tallies:
        for seed in range(20):
            run(*plan(seed), tally)
    assert tallies[0] == tallies[1]
    assert tallies[0].done["power cuts"] > 20
