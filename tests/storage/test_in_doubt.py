"""What recovery says of the commits and events that it cannot vouch for."""

from __future__ import annotations

import pytest

from ingestd.storage.recovery import recover_all
from ingestd.storage.segment import walk
from tests.storage.samples import (
    DATA,
    disk_with,
    lines,
    open_bytes,
    sealed_bytes,
)

WHOLE = open_bytes([lines(2), lines(30, 2), lines(1, 32)])
SIX = [lines(n + 1, 100 * n) for n in range(6)]
FRAMES = walk(open_bytes(SIX)).chain.commits


def damaged(data: bytes, *commits: int) -> str:
    """What recovery says is in doubt when the frames, or (negative) the trailers, of these are damaged."""
    broken = bytearray(data)
    for number in commits:
        broken[FRAMES[number].offset + 6 if number >= 0 else FRAMES[~number].end - 20] ^= 1
    (done,) = recover_all(disk_with(bytes(broken)), DATA)
    assert done.action == "quarantined"
    return done.in_doubt


@pytest.mark.parametrize(
    ("commits", "expected"),
    [
        ([2], "commits 2 to 5, 18 events"),
        ([0], "commits 0 to 5, 21 events"),
        ([2, 4], "commits 2 to 5, 18 events"),
        ([~2], "commits 2 to 5, 15 events in 3 of them, the others not known"),
        ([1, ~3], "commits 1 to 5, 16 events in 4 of them, the others not known"),
    ],
)
def test_later_trailers_tell_which_commits_and_events_are_in_doubt(commits: list[int], expected: str) -> None:
    assert damaged(open_bytes(SIX), *commits) == expected


def test_a_footer_tells_of_all_that_is_in_doubt() -> None:
    assert damaged(sealed_bytes(SIX), ~2) == "commits 2 to 5, 18 events"


def test_of_a_torn_tail_only_its_first_commit_is_known() -> None:
    (done,) = recover_all(disk_with(WHOLE[:-1]), DATA)
    assert done.in_doubt == "commit 2, perhaps more"
    (done,) = recover_all(disk_with(WHOLE), DATA)
    assert done.in_doubt == ""
