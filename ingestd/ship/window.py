"""What is remembered of deliveries, after a start: the ids of the segments here that have a marker.

Nothing else is kept for it, so nothing else can be wrong. What retention has deleted is not known any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ingestd.errors import StorageError
from ingestd.storage import endings, footer
from ingestd.storage.disk import Disk
from ingestd.storage.reading import read, whole
from ingestd.storage.repeats import Seen
from ingestd.storage.segment import NAME, SUFFIX
from ingestd.storage.shipped import Markers, mark


class _Segment(NamedTuple):
    """One that is delivered."""

    path: Path
    size: int
    written: float
    """In seconds since 1970, and not in the future."""


def rebuild(
    disk: Disk,
    data_dir: Path,
    markers: Markers,
    seen: Seen,
    progress: Callable[[int, int], None],
    is_stopping: Callable[[], bool],
    wall: Callable[[], float] = time.time,
) -> int:
    """Record the ids of what is delivered, oldest first, until it `is_stopping`; returns the segments read.

    What a clock that was wrong has dated ahead of the `wall` counts as of now: nothing else is older for it.
    What is damaged or gone meanwhile is passed over. `progress` is told the bytes done and all bytes.
    Raises StorageError.
    """
    now_s = wall()
    wanted = _wanted(disk, _delivered(disk, data_dir, markers, now_s), seen)
    done_bytes, total_bytes = 0, sum(segment.size for segment in wanted)
    for segment in reversed(wanted):
        with suppress(StorageError):
            for commit, lines in whole(disk, segment.path):
                if is_stopping():
                    return 0
                seen.sift(lines, min(commit.last_ms, int(now_s * 1000)))
                seen.record()
        done_bytes += segment.size
        progress(done_bytes, total_bytes)
    return len(wanted)


def _delivered(disk: Disk, data_dir: Path, markers: Markers, now_s: float) -> list[_Segment]:
    """The newest first."""
    found = []
    for path in reversed(disk.list(data_dir / "segments", f"*{SUFFIX}", deep=True)):
        told = disk.size_and_time(path)
        if told and NAME.fullmatch(path.name.removesuffix(SUFFIX)) and markers.has(mark(path, *told)):
            size, written = told
            found.append(_Segment(path, size, min(written, now_s)))
    return sorted(found, key=lambda segment: segment.written, reverse=True)


def _wanted(disk: Disk, delivered: list[_Segment], seen: Seen) -> list[_Segment]:
    """Those that the window reaches, as many as it has room for."""
    newest = delivered[0].written if delivered else 0.0
    wanted: list[_Segment] = []
    events = 0
    for segment in delivered:
        # What is in a file was received before it was written.
        if segment.written < newest - seen.window_s:
            break
        with suppress(StorageError):
            payload = endings.read(partial(read, disk, segment.path), segment.size, footer.MARK)
            events += footer.totals_of(payload or b"")[1]
        if wanted and events > seen.ids_max:
            seen.missed(segment.written * 1000)
            break
        wanted.append(segment)
    return wanted
