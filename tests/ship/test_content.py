"""What is delivered is what stays: checked, and durable under its name before it leaves."""

from __future__ import annotations

import hashlib

import pytest

from ingestd.errors import StorageError
from ingestd.ship.content import load
from ingestd.storage.reading import Gone
from tests.storage.samples import DATA, OPEN, SEALED, disk_with, lines, sealed_bytes

BYTES = sealed_bytes([lines(3), lines(2, 3)])
each_way = pytest.mark.parametrize("at_once", [1 << 20, 10], ids=["at once", "in parts"])


@each_way
def test_a_whole_segment_is_taken_as_it_is(at_once: int) -> None:
    content = load(disk_with(BYTES, SEALED), SEALED, at_once)
    assert (content.size, content.sha256) == (len(BYTES), hashlib.sha256(BYTES).hexdigest())
    assert content.data == (BYTES if at_once > 10 else None)
    assert content.part(5, 7) == BYTES[5:12]


@each_way
def test_what_is_seen_but_not_durable_is_made_durable_first(at_once: int) -> None:
    # A power cut would undo the name, and the next start might seal the same events in other frames.
    disk = disk_with(BYTES, OPEN)
    disk.make_directory(SEALED.parent)
    disk.link(OPEN, SEALED)
    assert not disk.crash().exists(SEALED)
    load(disk, SEALED, at_once)
    assert disk.crash().read(SEALED) == BYTES


@each_way
def test_what_cannot_be_made_durable_is_not_taken(at_once: int) -> None:
    disk = disk_with(BYTES, SEALED)
    disk.fail("fsync")
    with pytest.raises(StorageError, match="fsync"):
        load(disk, SEALED, at_once)


@each_way
@pytest.mark.parametrize("at", range(0, len(BYTES), 7))
def test_one_changed_byte_anywhere_is_damage(at_once: int, at: int) -> None:
    disk = disk_with(BYTES[:at] + bytes([BYTES[at] ^ 1]) + BYTES[at + 1 :], SEALED)
    with pytest.raises(StorageError, match=r"is damaged: .*verify. tells more"):
        load(disk, SEALED, at_once)


@each_way
@pytest.mark.parametrize("size", [0, 1, len(BYTES) // 2, len(BYTES) - 1])
def test_one_that_is_cut_off_is_damaged(at_once: int, size: int) -> None:
    with pytest.raises(StorageError, match="is damaged"):
        load(disk_with(BYTES[:size], SEALED), SEALED, at_once)


@each_way
def test_one_that_is_gone_is_told_apart(at_once: int) -> None:
    disk = disk_with(BYTES, SEALED)
    disk.unlink(SEALED)
    with pytest.raises(Gone):
        load(disk, SEALED, at_once)
    disk.remove_directory(SEALED.parent)
    with pytest.raises(Gone):
        load(disk, SEALED, at_once)
    assert disk.is_directory(DATA)
