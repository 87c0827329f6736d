"""For the tests of `ingestd ship --dedup`: segments of known messageIds, a shipper, a full disk."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ingestd.errors import StorageError
from ingestd.ship.destination import destination
from ingestd.ship.distinct import DistinctObjects
from ingestd.ship.pace import Pace
from ingestd.ship.shipper import Shipper
from ingestd.ship.store import Store
from ingestd.ship.window import rebuild
from ingestd.storage.disk import Disk
from ingestd.storage.repeats import Seen
from ingestd.storage.segment import open_directory
from ingestd.storage.shipped import Markers
from tests.storage.samples import write
from tests.support.server import run
from tests.support.shipping import (
    TEMPLATE,
    message_ids,
)

DAY_S = 86400.0


def name_of(number: int, worker: int = 0) -> str:
    """Of the segment of this number: a second each."""
    return (
        f"20260101T{number // 3600:02}{number // 60 % 60:02}{number % 60:02}.678Z-node-w{worker}-{number:06d}"
    )


def seal(data_dir: Path, number: int, *commits: Sequence[str], worker: int = 0, more: str = "") -> str:
    """Seal a segment of these commits of messageIds; returns its name."""
    disk = Disk()
    disk.make_directory(open_directory(data_dir))
    contents = [
        b"".join(b'{"messageId":"%b","x":"%b"}\n' % (one.encode(), more.encode()) for one in commit)
        for commit in commits
    ]
    name = name_of(number, worker)
    write(disk, data_dir, contents, name).seal()
    return name


def marker_of(data_dir: Path, name: str) -> dict[str, object]:
    """What the marker of this segment says."""
    [path] = data_dir.glob(f"shipped/*/{name}-*.json")
    told: dict[str, object] = json.loads(path.read_text())
    return told


def started(place: str, data_dir: Path, *, at_once: int = 1 << 30, ids_max: int = 1_000_000) -> Shipper:
    """A shipper of this process, as it is after a start."""
    there = destination(place, os.environ)
    kept = Markers(Disk(), data_dir, there.label)
    seen = Seen(DAY_S, ids_max)
    store = Store(there, Pace(0, lambda: 0.0), 20)
    stopping = asyncio.Event()
    delivery = DistinctObjects(Disk(), store, TEMPLATE, at_once, kept, seen, stopping)
    shipper = Shipper(Disk(), data_dir, delivery, kept, stopping=stopping)
    shipper.begin(str(there))
    rebuild(Disk(), data_dir, kept, seen, lambda *_: None, lambda: False)
    shipper.seen = seen
    return shipper


def assert_once(objects: Mapping[str, bytes], expected: Sequence[str] | set[str]) -> None:
    """Each of these is in the store, once, and nothing else is."""
    assert Counter(message_ids(objects)) == Counter(set(expected))


def run_cat(path: Path) -> bytes:
    """What `ingestd cat` prints of a file."""
    done = run("cat", path, cwd=path.parent)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.encode()


def run_cat_ids(data: Path) -> list[str]:
    """The messageIds that it prints of a directory."""
    done = run("cat", data, cwd=data.parent)
    return [json.loads(line)["messageId"] for line in done.stdout.splitlines()]


class FullDisk(Disk):
    """Cannot make or replace some files."""

    def __init__(self) -> None:
        self.refused = ""

    def replace_file(self, path: Path, data: bytes) -> None:
        if self.refused and path.name.endswith(self.refused):
            raise StorageError("write: No space left on device")
        super().replace_file(path, data)

    @contextmanager
    def making(self, path: Path) -> Iterator[int]:
        with super().making(path) as fd:
            yield fd
            if self.refused and self.refused in path.name:
                raise StorageError("write: No space left on device")
