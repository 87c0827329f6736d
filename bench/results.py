"""What a run leaves: one JSON file with the machine, the commands and every figure of every round.

Nothing in it is a mean of anything: `report` makes the medians.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

FORMAT = 1


class Machine(Struct, frozen=True):
    """Where it was measured. `file_system` is that of the folder the contenders write to."""

    cpu: str
    cores: int
    memory_bytes: int
    kernel: str
    file_system: str
    glibc: str


class Checked(Struct, frozen=True):
    """What was found by asking, before anything was measured."""

    refuses_unknown_keys: bool
    refuses_invalid_events: bool
    takes_gzip: bool
    keeps_gzip_inflated: bool
    keeps_events: bool


class Contender(Struct, frozen=True):
    """Who took part, in the order in which they are shown."""

    name: str
    kept: str
    """What has become of an event when it answers 200."""
    command: str
    versions: dict[str, str]
    cores: str
    checked: Checked | None = None
    """None for what speaks no HTTP."""


class Absent(Struct, frozen=True):
    """Who could have taken part, and what it takes."""

    name: str
    remedy: str


class Throughput(Struct, frozen=True):
    """One load on one contender, as much as it takes. CPU is of its whole process tree."""

    round: int
    contender: str
    load: str
    events_per_request: int
    connections: int
    seconds: float
    requests: int
    """Answered with 200."""
    refused: int
    """Answered with something else, as 429 by one whose queue is full."""
    cpu_s: float
    """While the load ran."""
    settling_cpu_s: float
    """Afterwards, until all of it was in its last form (sealed), for who has one."""
    peak_rss_bytes: int
    """Of its processes, each at its peak, added."""
    sent_bytes: int
    """Bodies, as they were sent, of the requests that are counted."""
    stored_bytes: int
    stored_events: int
    """Of which those are; 0 where they cannot be counted."""
    content_bytes: int = 0
    """Of what is stored, uncompressed; 0 where it is not sealed."""
    zstd3_bytes: int = 0
    """The same content as one file by `zstd -3`."""

    @property
    def events(self) -> int:
        return self.requests * self.events_per_request


class Latency(Struct, frozen=True):
    """Requests of one event at a fixed rate, each timed from when it was due."""

    round: int
    contender: str
    rate: float
    """Asked for, in requests a second."""
    is_half: bool
    """The rate is half of this contender's own throughput in this round."""
    connections: int
    seconds: float
    requests: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    late_p99_ms: float
    """How late the generator sent what was due and had a free connection: contained in the figures above."""


class DiskProbe(Struct, frozen=True):
    """write and fdatasync, one after the other, with nothing else to do."""

    round: int
    bytes: int
    syncs: int
    p50_ms: float
    p99_ms: float
    p999_ms: float


class Failure(Struct, frozen=True):
    """A measurement that could not be made."""

    round: int
    contender: str
    load: str
    error: str


class Results(Struct):
    """A whole run."""

    format: int
    started: str
    commit: str
    command: str
    rounds: int
    machine: Machine
    versions: dict[str, str]
    contenders: list[Contender] = []
    absent: list[Absent] = []
    throughput: list[Throughput] = []
    latency: list[Latency] = []
    disk: list[DiskProbe] = []
    failures: list[Failure] = []


def load(path: Path) -> Results:
    """Raises msgspec.DecodeError for what is not a file of results."""
    return msgspec.json.decode(path.read_bytes(), type=Results)


def save(results: Results, path: Path) -> None:
    """As JSON, a line for each figure, so that two files can be compared."""
    lines = []
    for name in results.__struct_fields__:
        value = getattr(results, name)
        if isinstance(value, list) and value:
            rows = b",\n".join([b"  " + msgspec.json.encode(one) for one in value])
            lines.append(b' "%b": [\n%b\n ]' % (name.encode(), rows))
        else:
            lines.append(b' "%b": %b' % (name.encode(), msgspec.json.encode(value)))
    path.write_bytes(b"{\n%b\n}\n" % b",\n".join(lines))
