"""Every number that /metrics shows: its name, what it means, and where in the shared memory it stands.

A worker writes its numbers to its row of the scoreboard under the columns named here; whoever is
asked for /metrics sums the rows. What has labels that are known only as it runs (routes, keys) stands
in `tallies`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from ingestd import metrics
from ingestd.storage.recovery import ACTIONS

_NS_PER_S: Final = 1_000_000_000
PARTS: Final = 1_000_000
"""Of a ratio, which stands in the memory as a whole number."""


class Family(NamedTuple):
    """A counter or a gauge of the workers."""

    name: str
    """Without `ingestd_` and `_total`."""
    text: str
    column: str
    kind: Literal["counter", "gauge"] = "counter"
    label: tuple[str, str] | None = None
    over: Literal["sum", "max", "min"] = "sum"
    """How the numbers of several workers become one."""
    divisor: int = 1
    """Units of the column that make one of what is shown."""


class Distribution(NamedTuple):
    """A histogram; its columns are one for each bound, one for what is above all of them, and the sum."""

    name: str
    text: str
    bounds: Sequence[int]
    divisor: int = 1

    @property
    def columns(self) -> list[str]:
        return [f"{self.name}_{bound}" for bound in (*self.bounds, "above", "sum")]


def _counter(name: str, text: str) -> Family:
    return Family(name, text, name)


def _recovered(action: str) -> Family:
    text = "Files that a process has left open, by what recovery has done with them."
    word = action.replace(" ", "_")
    return Family("recovery_files", text, f"recovery_files_{word}", label=("action", word))


FAMILIES: Final = (
    _counter("connections_accepted", "Connections that were accepted."),
    _counter("received_bytes", "Bytes that clients have sent, heads and bodies, as they came (out of TLS)."),
    _counter("events_received", "Events that were read and found valid."),
    _counter("events_refused", "Of the valid events: those that were answered 429."),
    _counter("events_stored", "Of the valid events: those that were committed."),
    _counter("events_failed", "Of the valid events: those whose commit has failed, answered 500."),
    _counter("events_fallen_back", "Events whose commits went without the log (ack = replicated)."),
    _counter("replications_failed", "Commits that the log has not acknowledged in time."),
    _counter("events_quarantined", "Invalid events that were set aside (on_invalid), beside the valid ones."),
    _counter("stored_bytes", "Bytes of commits as they were written, compressed."),
    _counter("commits_failed", "Commits that the disk has refused."),
    _counter("segments_sealed", "Segments that were sealed."),
    _counter("segments_packed", "Of these: segments whose small frames were packed into large ones."),
    _counter("segments_expired", "Sealed segments that were deleted, as retention says."),
    _counter("seal_refusals", "Times that the disk has refused to let a file be sealed; it is tried again."),
    *[_recovered(action) for action in ACTIONS],
    _counter("recovery_events", "Events in the files that were recovered; most had been counted as stored."),
    _counter("recovery_in_doubt_bytes", "Bytes that recovery has put aside, for they were no whole commits."),
    Family("connections", "Open connections.", "connections", "gauge"),
    Family("inflight_bytes", "Bytes of bodies that are being received, inflated.", "inflight_bytes", "gauge"),
    Family("ring_batches", "Batches that wait for their commit.", "ring_batches", "gauge"),
    Family("ring_bytes", "Bytes of lines that wait for their commit.", "ring_bytes", "gauge"),
    Family(
        "ring_fill_ratio", "How full the fullest worker's ring is, in batches or in bytes; 1 is full.",
        "ring_fill_parts", "gauge", None, "max", PARTS,
    ),
    Family(
        "log_away", "1 while the log of a worker does not acknowledge (ack = replicated).",
        "log_away", "gauge", None, "max",
    ),
    Family("sealing_waiting_files", "Files that are to be sealed.", "sealing_waiting_files", "gauge"),
    Family(
        "sealing_refused_files", "Of these: files that the disk has refused to let be sealed.",
        "sealing_refused_files", "gauge",
    ),
    Family(
        "disk_free_bytes", "Bytes that are free on the file system of the data.",
        "disk_free_bytes", "gauge", None, "min",
    ),
)  # fmt: skip

DISTRIBUTIONS: Final = (
    Distribution("commit_events", "Events of one commit.", metrics.COMMIT_EVENTS),
    Distribution("commit_bytes", "Bytes of lines of one commit, uncompressed.", metrics.COMMIT_BYTES),
    Distribution(
        "commit_seconds", "Seconds that one commit took: compressing, writing, making it durable.",
        metrics.LATENCIES_NS, _NS_PER_S,
    ),
    Distribution(
        "fsync_seconds", "Of these: what the disk took until one commit was on stable storage (ack = fsync).",
        metrics.LATENCIES_NS, _NS_PER_S,
    ),
    Distribution(
        "replication_seconds", "Seconds until the log had acknowledged one commit (ack = replicated).",
        metrics.LATENCIES_NS, _NS_PER_S,
    ),
)  # fmt: skip

COUNTED: Final = (
    *[family.column for family in FAMILIES if family.kind == "counter"],
    *[column for distribution in DISTRIBUTIONS for column in distribution.columns],
)
"""The columns that only ever grow: a worker that is started again goes on from them."""
MOMENTARY: Final = tuple(family.column for family in FAMILIES if family.kind == "gauge")
"""The columns that tell of now: of a worker that is not there they mean nothing."""
