"""What was sent and acknowledged, held against what a killed server has left on disk.

Each connection numbers its events, so the answer is exact: of each, the disk must hold the numbers from 0 on,
each once, in order, without a gap, whole requests only, and at least as many as were acknowledged.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from ingestd.storage import reader
from ingestd.storage.disk import Disk
from ingestd.storage.segment import OPEN_SUFFIX

EXAMPLES_MAX: Final = 5
"""Of one kind of finding; the first tell as much as thousands."""
_STAMPS: Final = ("receivedAt", "source")

_decode = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(slots=True)
class Counts:
    """Sums over all rounds."""

    rounds: int = 0
    kills: int = 0
    worker_kills: int = 0
    recoveries_interrupted: int = 0
    requests_acknowledged: int = 0
    events_acknowledged: int = 0
    events_unanswered: int = 0
    events_stored: int = 0
    lost: int = 0
    invented: int = 0
    segments: int = 0
    torn_tails: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{name.replace('_', ' ')} {getattr(self, name)}" for name in self.__slots__)


@dataclass(slots=True)
class Stream:
    """The events of one connection, by their running numbers."""

    connection: int
    events: list[bytes] = field(default_factory=list)
    """As sent, up to the first request that the server must refuse."""
    ends: set[int] = field(default_factory=lambda: {0})
    """The numbers at which a request ends: a request is stored whole or not at all."""
    numbered: int = 0
    """Numbers given away, to refused events too."""
    acknowledged: int = 0
    """Answers come in order, so this many from the first on."""
    stored: list[int] = field(default_factory=list)
    """In the order of segments and lines."""
    is_over: bool = False
    """A refused request has been sent: neither it nor what comes after it may be stored."""

    def sent(self, events: list[bytes], *, is_valid: bool) -> bool:
        """Take up a request before its first byte leaves; True if it is one to be stored."""
        self.numbered += len(events)
        self.is_over = self.is_over or not is_valid
        if not self.is_over:
            self.events += events
            self.ends.add(len(self.events))
        return not self.is_over


class Ledger:
    """Knows what the connections of one data directory have sent, and is told what is stored."""

    def __init__(self, source: str, counts: Counts) -> None:
        self._source = source
        self.counts = counts
        self._streams: dict[int, Stream] = {}
        self._connections = 0
        self._invented: list[str] = []

    def connect(self) -> Stream:
        """A connection begins."""
        self._connections += 1
        stream = self._streams[self._connections] = Stream(self._connections)
        return stream

    def read(self, line: bytes) -> None:
        """A line that is stored."""
        try:
            event = _decode(line)
            stamps = [event.pop(name) for name in _STAMPS]
            connection, number = event["properties"]["c"], event["properties"]["n"]
        except (msgspec.DecodeError, UnicodeDecodeError, LookupError, TypeError) as e:
            self._invent(f"not an event that was sent ({e!r}): {line[:200]!r}")
            return
        self.counts.events_stored += 1
        stream = self._streams.get(connection)
        if stream is None:
            self._invent(f"an event of connection {connection}, which ended before an earlier kill")
        elif not 0 <= number < len(stream.events):
            self._invent(f"event {number} of connection {connection}, which has {len(stream.events)} valid")
        elif event != _decode(stream.events[number]) or stamps[1] != self._source or not stamps[0]:
            self._invent(f"event {number} of connection {connection} was changed: {line[:200]!r}")
        else:
            stream.stored.append(number)

    def _invent(self, what: str) -> None:
        self.counts.invented += 1
        self._invented.append(f"invented: {what}")

    def settle(self) -> list[str]:
        """After a kill, when all that is stored has been read: what is wrong. The connections are over."""
        findings, self._invented = self._invented[:EXAMPLES_MAX], []
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            self.counts.events_acknowledged += stream.acknowledged
            self.counts.events_unanswered += len(stream.events) - stream.acknowledged
            if stream.stored != list(range(len(stream.stored))):
                findings += self._out_of_line(stream)
            elif len(stream.stored) < stream.acknowledged:
                findings += self._lost(stream, set(range(len(stream.stored), stream.acknowledged)))
            elif len(stream.stored) not in stream.ends:
                findings.append(
                    f"split: of a request of connection {stream.connection}, "
                    f"only the events before {len(stream.stored)} are stored"
                )
        return findings

    def _lost(self, stream: Stream, numbers: set[int]) -> list[str]:
        if not numbers:
            return []
        self.counts.lost += len(numbers)
        return [
            f"lost: {len(numbers)} acknowledged events of connection {stream.connection}, "
            f"{min(numbers)} to {max(numbers)} of {stream.acknowledged}"
        ]

    def _out_of_line(self, stream: Stream) -> list[str]:
        """What is wrong with numbers that are not 0, 1, 2, …"""
        stored = set(stream.stored)
        findings = self._lost(stream, set(range(stream.acknowledged)) - stored)
        if len(stored) < len(stream.stored):
            twice = len(stream.stored) - len(stored)
            findings.append(f"repeated: {twice} events of connection {stream.connection}")
        if stream.stored != sorted(stream.stored):
            findings.append(f"disordered: events of connection {stream.connection}")
        if stored and len(stored) <= max(stored):
            findings.append(f"gap: connection {stream.connection} lacks events before others that are stored")
        return findings


class Shelf:
    """Reads the segments of a data directory while no server runs: each once, and knows it again.

    Recovery and sealing may change a segment's place and bytes, but never its lines.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._disk = Disk()
        self._stamps: dict[str, object] = {}
        self._known: dict[str, tuple[bytes, int]] = {}
        """Digest and number of each segment's lines."""

    def __len__(self) -> int:
        return len(self._known)

    def read(self, ledger: Ledger, *, everything: bool = False) -> list[str]:
        """Hand new segments' lines to the ledger, see that the others are as they were; what is wrong.

        With `everything` also sealed segments that look untouched are read again.
        """
        findings: list[str] = []
        if everything:
            self._stamps.clear()
        # For a moment a segment may have both names; then the sealed one is read.
        paths = [*self._data_dir.glob("open/*.open"), *self._data_dir.glob("segments/*/*/*.zst")]
        found = {path.name.removesuffix(".open"): path for path in paths}
        for name, path in sorted(found.items()):
            is_open = path.name.endswith(OPEN_SUFFIX)
            stamp = None if is_open else self._disk.stamp(path)
            before = self._stamps.get(name)
            if before is not None:
                if stamp != before:
                    findings.append(f"changed: {name} after it was sealed")
                continue
            if stamp is not None:
                self._stamps[name] = stamp
            findings += self._read_one(name, path, ledger, is_open=is_open)
        for name in sorted(self._known.keys() - found.keys()):
            _, count = self._known.pop(name)
            ledger.counts.lost += count
            findings.append(f"gone: segment {name} with {count} events")
        return findings

    def read_together(self) -> list[str]:
        """What is wrong with all segments as one directory."""
        findings: list[str] = []
        shown = sum(
            lines.count(b"\n") for lines in reader.cat(self._disk, [self._data_dir], False, findings.append)
        )
        stored = sum(count for _, count in self._known.values())
        if shown != stored:
            findings.append(f"cat shows {shown} events of {stored}")
        return findings

    def _read_one(self, name: str, path: Path, ledger: Ledger, *, is_open: bool) -> list[str]:
        findings: list[str] = []
        lines = b"".join(reader.cat(self._disk, [path], False, findings.append))
        count = lines.count(b"\n")
        now = hashlib.sha256(lines).digest(), count
        before = self._known.get(name)
        if before is not None:
            if before != now:
                ledger.counts.lost += max(0, before[1] - count)
                findings.append(f"changed: {name} had {before[1]} events after an earlier kill, now {count}")
        elif lines:
            self._known[name] = now
            for line in lines.removesuffix(b"\n").split(b"\n"):
                ledger.read(line)
        elif not is_open:
            # An open one without a whole commit is what recovery removes.
            findings.append(f"empty: segment {name}")
        return findings
