"""Reading segments back: `cat` for their lines, `verify` for the proof that they are whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

from ingestd.errors import StorageError
from ingestd.storage.disk import Disk
from ingestd.storage.segment import (
    OPEN_SUFFIX,
    SUFFIX,
    Chain,
    Commit,
    Walk,
    open_directory,
    sealed_path,
    walk,
)

_POLL_S = 0.2
Problem = Callable[[str], None]


def segments(disk: Disk, data_dir: Path) -> list[Path]:
    """The sealed and open segments of a data directory, oldest first, each once."""
    # Open ones first: one that is sealed in between is then found twice, not missed.
    found = disk.list(open_directory(data_dir), f"*{OPEN_SUFFIX}")
    found += disk.list(data_dir / "segments", f"*{SUFFIX}", deep=True)
    return sorted({_name(path): path for path in found}.values(), key=lambda path: path.name)


def cat(disk: Disk, paths: list[Path], follow: bool, problem: Problem) -> Iterator[bytes]:
    """The NDJSON of the segments, commit by commit; directories stand for all their segments.

    With `follow` it goes on for ever with what is added. `problem` is told of what cannot be read.
    """
    chains: dict[str, Chain] = {}
    ended: set[str] = set()
    while True:
        found = 0
        for path in _expand(disk, paths):
            name = _name(path)
            if name in ended:
                continue
            chain = chains.setdefault(name, Chain())
            before = len(chain.commits)
            try:
                data, base, result = _walk_on(disk, path, chain)
                for commit in chain.commits[before:]:
                    yield _content(data, commit, base)
            except _Gone:
                result = Walk(chain, "sealed")
            except StorageError as e:
                result = Walk(chain, "damaged", str(e))
            found += len(chain.commits) - before
            if path.name.endswith(OPEN_SUFFIX) and result.state in ("open", "torn"):
                # What follows the last commit of an open segment may be a commit on its way.
                continue
            ended.add(name)
            del chains[name]
            if result.state in ("torn", "damaged"):
                problem(f"{path}: {result.problem}; what follows is not shown")
        if not follow:
            return
        if not found:
            time.sleep(_POLL_S)


class _Gone(StorageError):
    """Removed since it was listed: by a consumer, or because it had no whole commit."""


def _walk_on(disk: Disk, path: Path, chain: Chain) -> tuple[bytes, int, Walk]:
    """Walk what was added after `chain`: its bytes, their offset in the file, and the result."""
    base = chain.end
    places = [path]
    if path.name.endswith(OPEN_SUFFIX):
        # It may have been sealed since it was listed.
        places.append(sealed_path(path.parent.parent, _name(path)))
    for place in places:
        try:
            data = disk.read(place, base)
        except StorageError:
            if disk.exists(place):
                raise
        else:
            return data, base, walk(data, chain)
    raise _Gone(f"{path} is gone")


def _content(data: bytes, commit: Commit, base: int = 0) -> bytes:
    """The lines of one commit. Raises StorageError if the frame does not decompress to them."""
    start = commit.offset - base
    frame = memoryview(data)[start : start + commit.frame_bytes]
    try:
        content = zstandard.ZstdDecompressor().decompress(frame, max_output_size=commit.content_bytes)
    except zstandard.ZstdError as e:
        raise StorageError(f"frame at byte {commit.offset}: {e}") from e
    if len(content) != commit.content_bytes or content.count(b"\n") != commit.events:
        raise StorageError(f"frame at byte {commit.offset}: does not hold what its trailer says")
    return content


def _expand(disk: Disk, paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if disk.is_directory(path):
            yield from segments(disk, path)
        else:
            yield path


def _name(path: Path) -> str:
    return path.name.removesuffix(".open").removesuffix(SUFFIX)


@dataclass(slots=True)
class Verdict:
    """What `verify` found in a data directory."""

    segments: int = 0
    commits: int = 0
    events: int = 0
    problems: int = 0


def verify(disk: Disk, data_dir: Path, say: Problem) -> Verdict:
    """Check every frame, trailer, chain and footer below `data_dir`; `say` is told what is wrong."""
    verdict = Verdict()
    for path in segments(disk, data_dir):
        try:
            _verify_one(disk, path, verdict, say)
        except _Gone:
            continue
        except StorageError as e:
            verdict.problems += 1
            say(f"{path}: {e}")
    for path in disk.list(data_dir / "quarantine", "*"):
        verdict.problems += 1
        say(f"{path}: quarantined, its damage was found earlier")
    return verdict


def _verify_one(disk: Disk, path: Path, verdict: Verdict, say: Problem) -> None:
    data, _, result = _walk_on(disk, path, Chain())
    verdict.segments += 1
    for commit in result.chain.commits:
        _content(data, commit)
        verdict.commits += 1
        verdict.events += commit.events
    is_open = path.name.endswith(OPEN_SUFFIX)
    if is_open and result.state == "torn":
        tail = len(data) - result.chain.end
        say(f"{path}: note: {tail} bytes after the last commit, on their way or torn by a crash")
    elif result.state in ("torn", "damaged"):
        verdict.problems += 1
        say(f"{path}: {result.state}: {result.problem}")
    elif not is_open and result.state != "sealed":
        verdict.problems += 1
        say(f"{path}: the footer is missing")
