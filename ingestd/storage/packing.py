"""Packing: a finished segment of tiny frames becomes one of large frames with the same content.

A frame per commit costs compression where commits are small: measured on tracking events, 1.22 : 1
at one event a commit, 4.5 at 16, 5.6 at 64, and 6.1 at 256 or more. So a segment is packed if its
frames hold few bytes and there are several to be put together, and the result is kept if it is
smaller by a tenth. The packed segment has the same name, the same lines in the same order, and a
trailer a frame as ever; where one commit ended is told by its index, for receipts name commits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import zstandard

from ingestd.errors import StorageError
from ingestd.storage.disk import Disk
from ingestd.storage.index import Index
from ingestd.storage.segment import OPEN_SUFFIX, Chain, Walk, content, counted, walk

PACKING_SUFFIX: Final = ".packing"

_TINY_BYTES: Final = 32 * 1024
"""Frames that hold this much on average are large enough."""
_PACKED_BYTES: Final = 1024 * 1024
"""What a packed frame holds: enough for zstd, and for a reader in bounded memory."""
_KEPT_PERCENT: Final = 90


def pays(commits: int, content_bytes: int) -> bool:
    """True if packing a segment of so many commits and bytes of lines is worth a try."""
    return commits > 1 and content_bytes < commits * _TINY_BYTES


def pack(disk: Disk, path: Path, zstd_level: int) -> Path | None:
    """Write the packed form beside a finished segment, durably; None if that saves too little.

    Raises StorageError, also if the segment does not read back as it was written.
    """
    data = disk.read(path)
    found = walk(data)
    if found.state != "sealed":
        raise StorageError(f"{path} does not read back: {found.problem or 'its footer is missing'}")
    packed = path.with_name(path.name.removesuffix(OPEN_SUFFIX) + PACKING_SUFFIX)
    with disk.making(packed) as fd:
        size = _write_packed(disk, fd, data, found, zstd_level)
        if size * 100 <= len(data) * _KEPT_PERCENT:
            disk.fdatasync(fd)
            return packed
    disk.unlink(packed)
    return None


@dataclass(slots=True)
class _Gathered:
    """Commits that will be one frame."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    events: int = 0
    first_ms: int = 0
    last_ms: int = 0


def _write_packed(disk: Disk, fd: int, data: bytes, found: Walk, zstd_level: int) -> int:
    """Write the frames, trailers, index and footer; returns their size."""
    commits = found.chain.commits
    compressor = zstandard.ZstdCompressor(level=zstd_level, write_checksum=True, write_content_size=True)
    packed = Chain()

    def write(gathered: _Gathered) -> None:
        lines = b"".join(gathered.parts)
        frame = compressor.compress(lines)
        trailer = packed.trailer(frame, len(lines), gathered.events, gathered.first_ms, gathered.last_ms)
        disk.write(fd, frame + trailer)
        packed.append(trailer)

    gathered = _Gathered()
    for commit in commits:
        if gathered.parts and gathered.size + commit.content_bytes > _PACKED_BYTES:
            write(gathered)
            gathered = _Gathered()
        if not gathered.parts:
            gathered.first_ms, gathered.last_ms = commit.first_ms, commit.last_ms
        gathered.parts.append(counted(commit, content(data, commit)))
        gathered.size += commit.content_bytes
        gathered.events += commit.events
        # The clock may have been set back between two commits.
        gathered.first_ms = min(gathered.first_ms, commit.first_ms)
        gathered.last_ms = max(gathered.last_ms, commit.last_ms)
    write(gathered)
    index = b""
    if found.index is not None:
        acknowledged = found.index.commits or tuple(commit.events for commit in commits)
        index = Index(found.index.fingerprints, acknowledged).frame()
    ending = index + packed.footer()
    disk.write(fd, ending)
    return packed.end + len(ending)
