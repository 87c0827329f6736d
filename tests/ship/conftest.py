"""One store for all tests of shipping; each has a place of its own in it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestd.ship import pace
from tests.support.weed import BUCKET, Weed

_numbers = itertools.count()


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    """A real S3 store."""
    with Weed(tmp_path_factory.mktemp("weed")) as running:
        yield running


@pytest.fixture
def place() -> str:
    """A bucket and a prefix that no other test has."""
    return f"{BUCKET}/test-{next(_numbers)}"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shippers of this process try again at once."""
    monkeypatch.setattr(pace, "_FIRST_S", 0.01)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty folder to deliver to."""
    folder = tmp_path / "target"
    folder.mkdir()
    return folder
