"""What `cat` and `verify` make of a disk, in a form that tests can compare."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import zstandard

from ingestd.storage.disk import Disk
from ingestd.storage.index import Index
from ingestd.storage.open_segment import OpenSegment
from ingestd.storage.reader import cat
from ingestd.storage.segment import Chain, publish, walk
from ingestd.storage.verify import Verdict, verify
from tests.storage.samples import DATA, NAME, lines, put
from tests.support.disk import FaultyDisk

COMMITS = [lines(2), lines(5, 2), lines(1, 7)]
NEXT = NAME.replace("000001", "000002")
"""The name of the segment after that of `samples`."""


def read(disk: Disk, *paths: Path) -> tuple[bytes, list[str]]:
    """All lines, and what was wrong."""
    wrong: list[str] = []
    return b"".join(cat(disk, list(paths) or [DATA], follow=False, problem=wrong.append)), wrong


def verified(disk: Disk, data_dir: Path = DATA) -> tuple[Verdict, list[str]]:
    """The verdict, and what was said."""
    said: list[str] = []
    verdict = verify(disk, data_dir, lambda finding: said.append(str(finding)))
    assert len(said) == len(verdict.problems) + len(verdict.notes)
    return verdict, said


def sums(verdict: Verdict) -> tuple[int, int, int, int]:
    """Segments, commits, events, problems."""
    return verdict.segments, verdict.commits, verdict.events, len(verdict.problems)


class Follower:
    """cat -f beside a writer on one thread: whenever it would sleep, the next step of the writer is done."""

    def __init__(self, disk: FaultyDisk, monkeypatch: pytest.MonkeyPatch) -> None:
        self.disk = disk
        self.wrong: list[str] = []
        self.shown = b""
        self._steps: Iterator[None] = iter(())
        monkeypatch.setattr(time, "sleep", self._sleep)

    def _sleep(self, _: float) -> None:
        next(self._steps)

    def follow(self, steps: Iterator[None]) -> bytes:
        """All that it prints until the writer has no more steps and everything has been read."""
        self._steps = steps
        try:
            for content in cat(self.disk, [DATA], follow=True, problem=self.wrong.append):
                self.shown += content
        except RuntimeError as e:
            # A StopIteration of the steps, as it leaves a generator.
            if not isinstance(e.__cause__, StopIteration):
                raise
        return self.shown


def packed(commits: Sequence[bytes]) -> bytes:
    """A sealed segment of these commits, made without a Segment."""
    return sealed(commits, [zstandard.ZstdCompressor(write_checksum=True).compress(c) for c in commits])


def sealed(commits: Sequence[bytes], frames: Sequence[bytes]) -> bytes:
    """A sealed segment of these frames, whose trailers tell of these commits."""
    chain, data = Chain(), b""
    for content, frame in zip(commits, frames, strict=True):
        trailer = chain.trailer(frame, len(content), content.count(b"\n"), 0, 0)
        chain.append(trailer)
        data += frame + trailer
    return data + chain.footer()


def indexed(commits: Sequence[bytes], index: Index) -> bytes:
    """A sealed segment of these commits with any index."""
    data = packed(commits)
    end = walk(data).chain.end
    return data[:end] + index.frame() + data[end:]


def lying_bytes(commits: Sequence[bytes], number: int) -> bytes:
    """A sealed segment whose checksums are all right, by a writer with a bug: one frame holds other lines."""
    frames = [zstandard.compress(content) for content in commits]
    frames[number] = zstandard.compress(commits[number] + lines(1))
    return sealed(commits, frames)


def publish_packed(disk: FaultyDisk, segment: OpenSegment, commits: Sequence[bytes]) -> None:
    """Finish a segment, and put one of the same lines and other frames in its place."""
    path = segment.finish()
    copy = path.with_name(f"{segment.name}.packing")
    put(disk, copy, packed(commits))
    publish(disk, DATA, copy, segment.name)
    disk.unlink(path)
