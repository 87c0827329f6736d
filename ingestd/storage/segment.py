"""A segment: a file of zstd frames that any zstd reader can read, and that proves itself.

File name: `<YYYYMMDDTHHMMSS.mmmZ>-<node>-w<worker>-<sequence>.ndjson.zst`, the time it was opened
first, so that names sort by time; `.open` is appended while it is written. All integers are
little-endian, all checksums are CRC-32 (ISO-HDLC, as in zlib), times are milliseconds since 1970.

    segment  = commit commit … [index] [footer]    a sealed segment has them
    commit   = frame trailer                       made durable together
    frame    = one whole zstd frame (RFC 8878 §3.1.1): content size and checksum on;
               its content is NDJSON, one event a line, each line ended by LF
    trailer  = skippable frame (§3.1.2), magic 0x184D2A5D, size 44:
        offset size field
             0    4 "IGT1"                         magic and version
             4    4 sequence                       of the commit in this segment, from 0
             8    4 events                         lines in the frame
            12    4 content bytes                  uncompressed size of the frame
            16    4 frame bytes                    compressed size of the frame
            20    8 first receivedAt
            28    4 last receivedAt                as milliseconds after the first
            32    4 checksum of the frame
            36    4 checksum of the trailer before  0 in the first: a lost or moved commit shows
            40    4 checksum of bytes 0 to 39
    index    = skippable frame, magic 0x184D2A5F:      absent before there were receipts
        head                                       events (4), acknowledged commits (4), bytes of these (4)
        acknowledged commits                       events of each (4), all in one zstd frame; none if
                                                   each frame is a commit that was acknowledged so
        fingerprint …                              one per event, in order, 3 bytes: fingerprints.py
        tail                                       "IGINDX1\\n", else as in the footer
    footer   = skippable frame, magic 0x184D2A5E:
        entry …                                    one per commit, 24 bytes: offset of the frame (8),
                                                   events (4), first receivedAt (8), last after it (4)
        totals                                     commits (4), events (8), content bytes (8),
                                                   frame bytes (8)
        digest                                     SHA-256 of all trailers' 44 bytes, in order (32)
        tail                                       checksum of the payload so far (4),
                                                   payload size (4), "IGFOOT1\\n" (8)

A receipt, `<name>:<number>`, names an acknowledged commit by its place in the segment, from 0.

A file must begin with a data frame: measured, Polars cannot read one that begins with a
skippable frame, while every reader tried passes over skippable frames after it.

While it is written, what comes next may have room: a skippable frame of zeros, magic 0x184D2A5C, to the
end of the file. The next commit goes over its beginning, with a new head for the room that is left.

Reading: walk from the start; a commit counts if its frame's and trailer's checksums, sequence and
chain are right. What follows the last good commit is a *torn tail* if no later commit or footer can
be recognised in it (a crash), else the file is *damaged* in the middle.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal
from zlib import crc32

import msgspec
import zstandard

from ingestd.errors import Damaged, StorageError
from ingestd.storage import endings, footer, index
from ingestd.storage.disk import Disk
from ingestd.storage.frames import decompress, frame_length, lines_in
from ingestd.storage.index import Index

SUFFIX: Final = ".ndjson.zst"
OPEN_SUFFIX: Final = SUFFIX + ".open"
TORN_SUFFIX: Final = SUFFIX + ".torn"

_SKIPPABLE: Final = struct.Struct("<II")
_TRAILER: Final = struct.Struct("<4sIIIIQIIII")
TRAILER_SIZE: Final = _SKIPPABLE.size + _TRAILER.size
_TRAILER_HEAD: Final = _SKIPPABLE.pack(0x184D2A5D, _TRAILER.size) + b"IGT1"
_ROOM_MAGIC: Final = 0x184D2A5C
_ROOM_START: Final = _ROOM_MAGIC.to_bytes(4, "little")
ROOM_HEAD_BYTES: Final = _SKIPPABLE.size
_ENDINGS: Final = tuple(magic.to_bytes(4, "little") for magic in (index.MAGIC, footer.MAGIC))
NAME: Final = re.compile(
    r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)T(?P<hour>\d\d)\d{4}\.\d{3}Z"
    r"-(?P<node>.+)-w(?P<worker>\d+)-\d+"
)
"""A segment's name without suffix."""
_WORKER: Final = re.compile(r"-w(\d+)(?=[-.])")


class Commit(msgspec.Struct, frozen=True, gc=False):
    """Where one commit stands in its segment, and what its trailer says of it."""

    offset: int
    frame_bytes: int
    content_bytes: int
    events: int
    first_ms: int
    last_ms: int

    @property
    def end(self) -> int:
        """The offset after its trailer."""
        return self.offset + self.frame_bytes + TRAILER_SIZE


@dataclass(slots=True)
class Chain:
    """What a segment is made of so far: enough to append the next trailer and to write the footer."""

    commits: list[Commit] = field(default_factory=list)
    checksum: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    end: int = 0
    """The offset after the last commit."""

    @property
    def events(self) -> int:
        """Events in all commits."""
        return sum(commit.events for commit in self.commits)

    def trailer(self, frame: bytes, content_bytes: int, events: int, first_ms: int, last_ms: int) -> bytes:
        """The trailer for the next commit; changes nothing, so that a failed write leaves no trace."""
        body = _TRAILER.pack(
            b"IGT1",
            len(self.commits),
            events,
            content_bytes,
            len(frame),
            first_ms,
            # The clock may have been set while the commit gathered.
            min(max(0, last_ms - first_ms), 0xFFFF_FFFF),
            crc32(frame),
            self.checksum,
            0,
        )[:-4]
        return _TRAILER_HEAD[:8] + body + crc32(body).to_bytes(4, "little")

    def append(self, trailer: bytes) -> Commit:
        """Take up a commit by its trailer (whole, with its skippable head), now that it counts."""
        body = trailer[_SKIPPABLE.size :]
        _, _, events, content_bytes, frame_bytes, first_ms, after_ms, _, _, checksum = _TRAILER.unpack(body)
        commit = Commit(self.end, frame_bytes, content_bytes, events, first_ms, first_ms + after_ms)
        self.commits.append(commit)
        self.end = commit.end
        self.checksum = checksum
        self.digest.update(body)
        return commit

    def footer(self) -> bytes:
        """The footer for these commits."""
        return footer.frame(self.commits, self.digest.digest())


State = Literal["sealed", "open", "torn", "damaged"]


@dataclass(slots=True)
class Walk:
    """What a walk over a segment's bytes found: its good commits, its state, and what is wrong."""

    chain: Chain
    state: State
    problem: str = ""
    index: Index | None = None
    """Of a sealed segment."""


def walk(data: bytes, chain: Chain | None = None) -> Walk:
    """Check every commit of a segment; with `chain`, `data` is what stands after it. Never raises."""
    chain = chain or Chain()
    base = chain.end
    while True:
        position = chain.end - base
        if _is_room(data, position):
            return Walk(chain, "open")
        if chain.commits and data[position : position + 4] in _ENDINGS:
            found, end, problem = _ending(data, position, chain)
            if not problem and end == len(data):
                return Walk(chain, "sealed", index=found)
            if not problem and _is_room(data, end):
                # The power failed before the room behind it was cut off.
                return Walk(chain, "open")
            problem = problem or f"more stands behind the footer at byte {base + end}"
            break
        problem = _next_commit(data, position, chain)
        if problem:
            break
    state: State = "damaged" if _goes_on(data, position, len(chain.commits)) else "torn"
    return Walk(chain, state, problem)


def room_head(size: int) -> bytes:
    """The beginning of room of `size` bytes, ROOM_HEAD_BYTES at least."""
    return _SKIPPABLE.pack(_ROOM_MAGIC, size - ROOM_HEAD_BYTES)


def _is_room(data: bytes, position: int) -> bool:
    """True if nothing but room stands from `position` on; a power cut may have cut it anywhere."""
    head = data[position : position + len(_ROOM_START)].rstrip(b"\0")
    if head and _ROOM_START.startswith(head):
        position += ROOM_HEAD_BYTES if head == _ROOM_START else len(head)
    size = len(data) - position
    return size <= 0 or (data[position] == 0 and data[position:] == bytes(size))


def _ending(data: bytes, position: int, chain: Chain) -> tuple[Index | None, int, str]:
    """The index at `position`, if there is one, before the footer, and its end; or what is wrong with it."""
    found, at = None, position
    if data[position : position + 4] == _ENDINGS[0]:
        payload = endings.first(data, position, index.MARK)
        found = None if payload is None else Index.parsed(payload)
        if payload is None or found is None or not found.fits([commit.events for commit in chain.commits]):
            return None, at, f"the index at byte {chain.end} does not fit the commits before it"
        at += len(payload) + endings.OVERHEAD
    whole = chain.footer()
    if not data.startswith(whole, at):
        return None, at, f"the footer at byte {chain.end + at - position} does not fit the commits before it"
    return found, at + len(whole), ""


def _next_commit(data: bytes, position: int, chain: Chain) -> str:
    """Append the commit at `position` to the chain, or say what is wrong with it."""
    frame_bytes = frame_length(data, position)
    if frame_bytes is None:
        return f"no whole zstd frame at byte {chain.end}"
    frame_end = position + frame_bytes
    trailer_at = chain.end + frame_bytes
    trailer = data[frame_end : frame_end + TRAILER_SIZE]
    if len(trailer) < TRAILER_SIZE or not trailer.startswith(_TRAILER_HEAD):
        return f"no whole trailer at byte {trailer_at}"
    body = trailer[_SKIPPABLE.size :]
    _, sequence, _, _, told_bytes, _, _, frame_crc, before, own = _TRAILER.unpack(body)
    if crc32(body[:-4]) != own:
        return f"the trailer at byte {trailer_at} has a wrong checksum"
    if (sequence, before) != (len(chain.commits), chain.checksum):
        return f"commit {sequence} at byte {chain.end} stands where {len(chain.commits)} should"
    if told_bytes != frame_bytes or crc32(memoryview(data)[position:frame_end]) != frame_crc:
        return f"the frame at byte {chain.end} has a wrong checksum"
    chain.append(trailer)
    return ""


def _goes_on(data: bytes, position: int, sequence: int) -> bool:
    """True if a whole trailer of a later commit, or a footer, stands after `position`.

    The trailer of commit `sequence` itself at the very end is no proof: of one torn write, the last
    sector may be on disk and an earlier one not. Nor is a footer that tells of no later commit.
    """
    for end, found, _ in trailers(data, position):
        if not (found == sequence and _is_room(data, end)):
            return True
    totals = footer_totals(data, position)
    return totals is not None and totals[0] > sequence


def trailers(data: bytes, position: int) -> Iterator[tuple[int, int, int]]:
    """The whole trailers from `position` on, wherever they stand: end, sequence and events of each."""
    found = data.find(_TRAILER_HEAD, position)
    while found >= 0:
        body = data[found + _SKIPPABLE.size : found + TRAILER_SIZE]
        if len(body) == _TRAILER.size and crc32(body[:-4]) == int.from_bytes(body[-4:], "little"):
            _, sequence, events, *_ = _TRAILER.unpack(body)
            yield found + TRAILER_SIZE, sequence, events
        found = data.find(_TRAILER_HEAD, found + 1)


def footer_totals(data: bytes, position: int) -> tuple[int, int] | None:
    """Commits and events that a whole footer at the end, after `position`, tells of; else None.

    A power cut may have left the room behind it.
    """
    payload = endings.unwrapped(memoryview(data.rstrip(b"\0"))[position:], footer.MARK)
    return None if payload is None else footer.totals_of(payload)


def content(
    data: bytes | memoryview,
    commit: Commit,
    base: int = 0,
    decompressor: zstandard.ZstdDecompressor | None = None,
) -> bytes:
    """The lines of one commit, as many bytes as its trailer says; `data` are the file's from `base` on.

    Raises StorageError.
    """
    start = commit.offset - base
    frame = memoryview(data)[start : start + commit.frame_bytes]
    lines = decompress(frame, commit.content_bytes, decompressor)
    if lines is None:
        raise _wrong(commit)
    return lines


def counted(commit: Commit, lines: bytes) -> bytes:
    """The same lines, if they are as many as the trailer says. Raises StorageError."""
    if lines_in(lines) != commit.events:
        raise _wrong(commit)
    return lines


def _wrong(commit: Commit) -> Damaged:
    return Damaged(f"frame at byte {commit.offset}: does not hold what its trailer says")


def sealed_path(data_dir: Path, name: str) -> Path:
    """Where the segment of this name (without suffix) belongs once it is sealed."""
    match = NAME.fullmatch(name)
    if match is None:
        raise StorageError(f"{name!r} is not the name of a segment")
    year, month, day, hour = match.group("year", "month", "day", "hour")
    return data_dir / "segments" / f"date={year}-{month}-{day}" / f"hour={hour}" / (name + SUFFIX)


def worker_of(name: str) -> int | None:
    """The number of the worker that a file's name tells of, if it does."""
    found = _WORKER.findall(name)
    return int(found[-1]) if found else None


def open_directory(data_dir: Path) -> Path:
    """Where segments are while they are written."""
    return data_dir / "open"


def invalid_directory(data_dir: Path) -> Path:
    """Where invalid events are set aside, in segments: within, it is like a data directory."""
    return data_dir / "invalid"


def publish(disk: Disk, data_dir: Path, path: Path, name: str) -> Path:
    """Move a file with a durable footer to its sealed place, durably; the last step of sealing.

    It appears there whole, in one step; for a moment the segment has both names.
    """
    target = sealed_path(data_dir, name)
    disk.make_directory(target.parent)
    disk.move(path, target)
    return target


def new_name(opened: datetime, node: str, worker: int, sequence: int) -> str:
    """A segment's name without suffix; `node` is cut to letters, digits and dots."""
    opened = opened.astimezone(UTC)
    node = re.sub(r"[^A-Za-z0-9.]+", "-", node).strip("-") or "node"
    stamp = f"{opened:%Y%m%dT%H%M%S}.{opened.microsecond // 1000:03d}Z"
    return f"{stamp}-{node}-w{worker}-{sequence:06d}"
