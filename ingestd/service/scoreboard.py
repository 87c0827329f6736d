"""Memory that all processes of a server share: made by the supervisor, inherited by every worker.

`SharedMemory` is cut into named regions, and whoever knows one lays it out. `Table` is such a layout:
rows of whole numbers under named columns, each row with one writer at a time, so that nobody waits for
anybody. An aligned number of 8 bytes is written and read in one step, and of several numbers a reader
may see some older than others: enough for counting, and for seeing that somebody lives.

What stands in a row stays when its writer ends. A worker that is started again goes on from there,
and what it counts never falls.

After an upgrade a worker may be newer than the supervisor that has made the memory. So regions and
columns are found by the names that stand in the memory itself, and one that is not there is the
worker's own: it is written for nobody.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Self

from ingestd import ratelimit
from ingestd.service import families, tallies

_ALIGNMENT: Final = 64
"""Of regions and rows: two writers never share a line of the processor's cache."""
_LENGTH: Final = struct.Struct("<q")
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW

WORKERS: Final = "workers"
"""The region of what workers tell, a row for each."""
LOOP_BEAT_MS: Final = "loop_beat_ms"
"""When the worker's loop has last gone round, by `monotonic_ms`."""
FLUSHER_BEAT_MS: Final = "flusher_beat_ms"
"""The same of its flusher thread, which does not go round while it is stuck in a commit."""
NOT_READY: Final = "not_ready"
"""One of the numbers of `readiness`."""
MOMENTARY: Final = (LOOP_BEAT_MS, FLUSHER_BEAT_MS, NOT_READY, *families.MOMENTARY)
"""What means nothing of a worker that is not there; a row without a beat is of one that is not."""
WORKER_FIELDS: Final = (*MOMENTARY, *families.COUNTED)

PLACES: Final = "places"
"""The region of what the supervisor tells, a row for the place of each worker."""
IS_UP: Final = "is_up"
"""1 while there is a process."""
IS_READY: Final = "is_ready"
"""1 from when it has said that it serves until it is to end."""
RESTARTS: Final = "restarts"
"""How often one has ended without being asked to."""
PLACE_FIELDS: Final = (IS_UP, IS_READY, RESTARTS)


def monotonic_ms() -> int:
    """The time of heartbeats; all processes of a machine have the same."""
    return time.monotonic_ns() // 1_000_000


def make(workers: int) -> SharedMemory:
    """The memory of a server: every region that there is, laid out."""
    memory = SharedMemory.make(
        {
            WORKERS: Table.bytes_for(WORKER_FIELDS, workers),
            PLACES: Table.bytes_for(PLACE_FIELDS, workers),
            tallies.REGION: tallies.BLOCK_BYTES * workers,
            ratelimit.REGION: ratelimit.memory_bytes(workers),
        }
    )
    Table.lay_out(memory.region(WORKERS, 0), WORKER_FIELDS)
    Table.lay_out(memory.region(PLACES, 0), PLACE_FIELDS)
    return memory


class SharedMemory:
    """Named regions of one piece of memory; it begins as zeros."""

    def __init__(self, fd: int) -> None:
        """Take part in what the supervisor has made; `fd` is kept."""
        self.fd = fd
        self._memory = memoryview(mmap.mmap(fd, os.fstat(fd).st_size))
        places: dict[str, tuple[int, int]] = json.loads(_read_text(self._memory))
        self._regions = {name: self._memory[at : at + size] for name, (at, size) in places.items()}

    @classmethod
    def make(cls, sizes: Mapping[str, int]) -> Self:
        """New memory with regions of these names and at least these sizes, in bytes."""
        places: dict[str, tuple[int, int]] = {}
        # The numbers in the text are no longer than these.
        at = _aligned(_LENGTH.size + len(json.dumps(dict.fromkeys(sizes, (1 << 62, 1 << 62)))))
        for name, size in sizes.items():
            places[name] = at, _aligned(size)
            at += _aligned(size)
        fd = os.memfd_create("ingestd", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, at)
        # A process that cut it would end all others by SIGBUS.
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        with mmap.mmap(fd, at) as memory, memoryview(memory) as view:
            _write_text(view, json.dumps(places))
        return cls(fd)

    def region(self, name: str, size: int) -> memoryview:
        """The region of this name, of at least so many bytes.

        If the memory has none such, for an older supervisor has made it, then memory of this process.
        """
        found = self._regions.get(name)
        return found if found is not None and len(found) >= size else memoryview(bytearray(size))

    def table(self, name: str) -> Table:
        """The table in the region of this name; one without columns if the memory has none such."""
        return Table(self.region(name, 0))


class Table:
    """Rows of int64 under named columns, laid out in a region."""

    def __init__(self, region: memoryview) -> None:
        """A table that `lay_out` has made."""
        fields: list[str] = json.loads(_read_text(region)) if any(region[: _LENGTH.size]) else []
        self._columns = {name: column for column, name in enumerate(fields)}
        self._rows = region[_rows_at(fields) :]
        self._row_bytes = _aligned(8 * len(fields))

    @staticmethod
    def bytes_for(fields: Sequence[str], rows: int) -> int:
        """The size of region that this takes."""
        return _rows_at(fields) + _aligned(8 * len(fields)) * rows

    @classmethod
    def lay_out(cls, region: memoryview, fields: Sequence[str]) -> Self:
        """Make a table of these columns; for the one who has made the memory."""
        _write_text(region, json.dumps(fields))
        return cls(region)

    def row(self, number: int) -> Row:
        """The row of this number, from 0. One process writes to it, others read."""
        at = self._row_bytes * number
        return Row(self._columns, self._rows[at : at + 8 * len(self._columns)].cast("q"))


class Row:
    """The numbers of one writer. A column that the memory lacks is 0, and what is written to it is lost."""

    __slots__ = ("_columns", "_numbers")

    def __init__(self, columns: Mapping[str, int], numbers: memoryview) -> None:
        self._columns = columns
        self._numbers = numbers

    def __getitem__(self, name: str) -> int:
        column = self._columns.get(name)
        return 0 if column is None else int(self._numbers[column])

    def __setitem__(self, name: str, value: int) -> None:
        column = self._columns.get(name)
        if column is not None:
            self._numbers[column] = value

    def clear(self, names: Iterable[str]) -> None:
        """Set these to 0."""
        for name in names:
            self[name] = 0


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _rows_at(fields: Sequence[str]) -> int:
    return _aligned(_LENGTH.size + len(json.dumps(fields)))


def _write_text(region: memoryview, text: str) -> None:
    """Put a text at the front of a region, after its length."""
    data = text.encode()
    region[_LENGTH.size : _LENGTH.size + len(data)] = data
    _LENGTH.pack_into(region, 0, len(data))


def _read_text(region: memoryview) -> str:
    (length,) = _LENGTH.unpack_from(region)
    return bytes(region[_LENGTH.size : _LENGTH.size + length]).decode()
