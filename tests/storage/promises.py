"""What was sent and what was promised in a run of the model, and the check that a directory keeps to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Final

import zstandard

from ingestd.config import AckLevel
from ingestd.errors import StorageError
from ingestd.events import Batch
from ingestd.storage.find import Search
from ingestd.storage.reader import cat
from ingestd.storage.receipts import Receipt
from ingestd.storage.segment import OPEN_SUFFIX, SUFFIX, content, walk
from ingestd.storage.verify import verify
from tests.storage.samples import DATA
from tests.support.disk import FaultyDisk

NOTHING: Final = 0
KILL: Final = 1
POWER: Final = 2
"""What a batch survives: nothing is promised, a kill of the process, a power cut as well."""


class Failure(AssertionError):
    """A promise is broken."""


@dataclass(eq=False, slots=True)
class Sent:
    """A batch that was pushed into the ring. `rotten`: the segment that held it when it was damaged."""

    connection: int
    number: int
    lines: list[bytes]
    level: int = NOTHING
    rotten: str = ""
    receipt: str = ""

    @property
    def lines_found(self) -> list[bytes]:
        """As `find` shows them."""
        return [line.removesuffix(b"\n") for line in self.lines]

    def __str__(self) -> str:
        return f"batch {self.number} of connection {self.connection} ({len(self.lines)} lines)"


@dataclass(frozen=True, slots=True)
class Shown:
    """A segment as a reader finds it: the lines of its good commits."""

    name: str
    path: Path
    is_sealed: bool
    has_twin: bool
    lines: bytes
    state: str


class Promises:
    """Every batch of a run, by its lines; each line of a run is another one."""

    def __init__(self, ack: AckLevel, data_dir: Path = DATA) -> None:
        self.rotten: set[str] = set()
        """Segments that were damaged on purpose."""
        self._silent: set[str] = set()
        """Those of them of which nothing can tell."""
        self._ack = ack
        self._data_dir = data_dir
        self._sent: list[Sent] = []
        self._by_line: dict[bytes, tuple[Sent, int]] = {}
        self._by_id: dict[str, Sent] = {}
        self._waiting: dict[str, int] = {}
        """The batches not yet acknowledged, each with the worker that has it."""
        self._has_lost_power = False

    # What happens

    def new_batch(self, connection: int, count: int, size: int, *, is_random: bool, at_ms: int) -> Batch:
        """A batch of so many lines of about this size, not yet sent."""
        number = len(self._by_id)
        lines = []
        for i in range(count):
            filling = (
                Random(number * 1000 + i).randbytes(size // 2).hex().encode() if is_random else b"x" * size
            )
            lines.append(b'{"c":%d,"messageId":"%d","i":%d,"p":"%b"}\n' % (connection, number, i, filling))
        sent = Sent(connection, number, lines)
        self._by_id[str(number)] = sent
        return Batch(b"".join(lines), [str(number)] * count, at_ms)

    def sent(self, batch: Batch, worker: int) -> None:
        """The ring of a worker has taken it."""
        sent = self._by_id[batch.message_ids[0]]
        self._sent.append(sent)
        self._waiting[batch.message_ids[0]] = worker
        for i, line in enumerate(sent.lines):
            self._by_line[line] = sent, i

    def answered(self, batches: list[Batch], error: StorageError | None, segment: str, receipt: str) -> None:
        """The flusher has acknowledged these, once each."""
        for batch in batches:
            del self._waiting[batch.message_ids[0]]
            sent = self._by_id[batch.message_ids[0]]
            if error is None:
                sent.receipt = receipt
                sent.level = POWER if self._ack == "fsync" else KILL
                sent.rotten = segment if segment in self.rotten else ""

    def ended(self, worker: int) -> None:
        """A process has ended: what waits for it is never answered."""
        self._waiting = {key: other for key, other in self._waiting.items() if other != worker}

    def lost_power(self) -> None:
        self._has_lost_power = True

    def rotted(self, shown: Shown, *, is_silent: bool) -> None:
        """A segment was damaged, perhaps so that nothing can tell."""
        self.rotten.add(shown.name)
        if is_silent:
            self._silent.add(shown.name)
        for sent in self._batches(shown.lines):
            sent.rotten = shown.name

    def expired(self, name: str, lines: bytes) -> None:
        """Retention deletes a segment."""
        for sent in self._batches(lines):
            sent.level, sent.rotten = NOTHING, ""
        for sent in self._sent:
            if sent.rotten == name:
                sent.level = NOTHING

    def settle(self, disk: FaultyDisk) -> None:
        """Take up what survives everything from now on: what is in a sealed file, and nowhere else."""
        for shown in look(disk, self._data_dir):
            if shown.is_sealed and shown.state == "sealed" and not shown.has_twin:
                for sent in self._batches(shown.lines):
                    sent.level, sent.rotten = POWER, ""

    def recovered(self, disk: FaultyDisk, survived: int) -> None:
        """After a checked recovery: what is not there is gone, what survived a power cut survives another."""
        # What is damaged as well, without hard syncs, will be put in quarantine.
        present = {
            id(sent): shown.state != "damaged"
            for shown in look(disk, self._data_dir)
            for sent in self._batches(shown.lines)
        }
        for sent in self._sent:
            if id(sent) not in present:
                sent.level, sent.rotten = NOTHING, ""
            elif survived == POWER and sent.level < POWER:
                sent.level = POWER if present[id(sent)] else NOTHING

    # What is checked

    @property
    def waiting(self) -> int:
        """Batches not yet acknowledged."""
        return len(self._waiting)

    def check(self, disk: FaultyDisk, survived: int, *, lost_power: bool = False) -> None:
        """Raise Failure unless the directory keeps what was promised to survive this."""
        files = look(disk, self._data_dir)
        problems: list[str] = []
        lines = b"".join(cat(disk, [self._data_dir], follow=False, problem=problems.append))
        if lines != b"".join(shown.lines for shown in files):
            raise Failure("cat shows something else than the segments hold")
        present = self._read(lines)
        said: list[str] = []
        verdict = verify(disk, self._data_dir, lambda finding: said.append(str(finding)))
        said += [f"{path.name}: kept aside" for path in disk.list(self._data_dir / "open", "*.torn*")]
        for sent in self._sent:
            if sent.level >= survived and id(sent) not in present:
                reported = any(sent.rotten in text for text in said)
                if not sent.rotten:
                    raise Failure(f"{sent}: acknowledged, and not there any more; {said}")
                if not reported and sent.rotten not in self._silent:
                    raise Failure(f"{sent}: lost with the damaged {sent.rotten}, and nothing says so")
        has_reason = bool(self.rotten) or ((self._has_lost_power or lost_power) and self._ack != "fsync")
        # Until recovery has come to it, an open file and its sealed copy may differ.
        has_reason = has_reason or any(shown.has_twin for shown in files)
        if (problems or not verdict.ok) and not has_reason:
            raise Failure(f"nothing was damaged, and yet: {problems or said}")
        if not has_reason:
            self._find(disk, [sent for sent in self._sent if id(sent) in present])

    def _find(self, disk: FaultyDisk, present: list[Sent]) -> None:
        """Some of those that are there are found where they should be."""
        wrong: list[str] = []
        search = Search(disk, [self._data_dir], wrong.append)
        # Not always the same ones.
        for sent in present[-1:] + present[len(disk.calls) % 7 :: 11][:2]:
            if [found.event for found in search.by_message_id(str(sent.number))] != sent.lines_found:
                raise Failure(f"{sent} is not found by its id")
            if sent.receipt:
                found = list(search.by_receipt(Receipt.parsed(sent.receipt)))
                if not set(sent.lines_found) <= {one.event for one in found}:
                    raise Failure(f"{sent} is not found by its receipt {sent.receipt}")
        if wrong or search.segments_unindexed:
            raise Failure(f"a search cannot read all: {wrong}, {search.segments_unindexed}")

    def _read(self, lines: bytes) -> set[int]:
        """The batches that are there: whole, once, those of a connection in order."""
        last: dict[int, int] = {}
        present = set()
        for sent in self._batches(lines):
            if id(sent) in present:
                raise Failure(f"{sent} is there twice")
            if sent.number < last.get(sent.connection, -1):
                raise Failure(f"{sent} stands after {last[sent.connection]} of the same connection")
            present.add(id(sent))
            last[sent.connection] = sent.number
        return present

    def _batches(self, lines: bytes) -> Iterator[Sent]:
        """The batches that these lines are. Raises Failure if they are anything else."""
        parts = lines.splitlines(keepends=True)
        at = 0
        while at < len(parts):
            sent, i = self._by_line.get(parts[at], (None, 0))
            if sent is None:
                raise Failure(f"a line that nobody has sent: {parts[at][:80]!r}")
            if i or parts[at : at + len(sent.lines)] != sent.lines:
                raise Failure(f"{sent} is there in part")
            yield sent
            at += len(sent.lines)


def check_recovered(
    disk: FaultyDisk, is_ours: Callable[[str], bool] = lambda _: True, data_dir: Path = DATA
) -> None:
    """After a recovery in which nothing failed: nothing is left over, and any zstd reader agrees."""
    there = [path.name for path in disk.list(data_dir / "open", "*") if is_ours(path.name)]
    left = [name for name in there if ".torn" not in name]
    if left:
        raise Failure(f"left over after recovery: {left}")
    for shown in look(disk, data_dir):
        if shown.state == "sealed" and _plain(disk.read(shown.path)) != shown.lines:
            raise Failure(f"{shown.path}: another zstd reader finds other lines")


def look(disk: FaultyDisk, data_dir: Path = DATA) -> list[Shown]:
    """Every segment, by name, each once: the sealed file if there is one."""
    opened = {segment_name(path): path for path in disk.list(data_dir / "open", f"*{OPEN_SUFFIX}")}
    sealed = {segment_name(path): path for path in disk.list(data_dir / "segments", f"*{SUFFIX}", deep=True)}
    found = []
    for name, path in sorted({**opened, **sealed}.items()):
        lines, state = _commits(disk.read(path))
        found.append(Shown(name, path, name in sealed, name in opened and name in sealed, lines, state))
    return found


def segment_name(path: Path) -> str:
    return path.name.removesuffix(".open").removesuffix(SUFFIX)


@lru_cache(maxsize=1000)
def _commits(data: bytes) -> tuple[bytes, str]:
    """The lines of the good commits, and the state."""
    found = walk(data)
    return b"".join(content(data, commit) for commit in found.chain.commits), found.state


@lru_cache(maxsize=1000)
def _plain(data: bytes) -> bytes:
    """What a reader finds that knows zstd and nothing of segments."""
    return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
