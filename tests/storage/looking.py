"""What the tests of find share: a search that notes what it could not read, and what is searched."""

from __future__ import annotations

from pathlib import Path

from ingestd.storage.find import Found, Search
from ingestd.storage.receipts import Receipt
from tests.storage.samples import (
    DATA,
    OPEN,
    lines,
)
from tests.support.disk import FaultyDisk

COMMITS = [lines(2), lines(3, 2), lines(1, 5)]
QUARANTINED = DATA / "quarantine" / OPEN.name


class Looked:
    """What a search has found, and what it could not read."""

    def __init__(self, disk: FaultyDisk, *data_dirs: Path) -> None:
        self.wrong: list[str] = []
        self.told: list[tuple[int, int]] = []
        progress = lambda done, total: self.told.append((done, total))  # noqa: E731
        self.search = Search(disk, list(data_dirs) or [DATA], self.wrong.append, progress)

    def by_id(self, message_id: str) -> list[Found]:
        return list(self.search.by_message_id(message_id))

    def by_receipt(self, text: str) -> list[Found]:
        return list(self.search.by_receipt(Receipt.parsed(text)))


def by_id(disk: FaultyDisk, message_id: str) -> list[Found]:
    """Where nothing is wrong."""
    looked = Looked(disk)
    found = looked.by_id(message_id)
    assert looked.wrong == []
    return found


def by_receipt(disk: FaultyDisk, text: str) -> list[Found]:
    looked = Looked(disk)
    found = looked.by_receipt(text)
    assert looked.wrong == []
    return found


def commit_of(disk: FaultyDisk, receipt: str) -> list[bytes]:
    return [found.event for found in by_receipt(disk, receipt)]


def rows(content: bytes) -> list[bytes]:
    return content.split(b"\n")[:-1]
