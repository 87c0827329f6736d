"""What the shipper asks of a destination, whatever it is: get a sealed segment there, and say when it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ingestd.storage.disk import Disk
from ingestd.storage.reading import Gone
from ingestd.storage.segment import SUFFIX
from ingestd.storage.shipped import mark


class DestinationError(Exception):
    """The destination has refused, or does not answer: the text says why. It may have done what was asked."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A sealed segment to deliver."""

    path: Path
    mark: str

    @property
    def name(self) -> str:
        """Without suffix."""
        return self.path.name.removesuffix(SUFFIX)

    def require(self, disk: Disk) -> None:
        """See that it is still the file that was found: another in its place has its turn. Raises Gone."""
        told = disk.size_and_time(self.path)
        if told is None or mark(self.path, *told) != self.mark:
            raise Gone(f"{self.path} is gone")


@dataclass(frozen=True, slots=True)
class Delivered:
    """The destination has confirmed that it has all of a segment."""

    size: int
    """Bytes of the segment's file."""
    is_new: bool
    """False if it was there already: after a lost answer, or by another shipper."""
    told: dict[str, object]
    """For whoever reads the marker."""
    events: int = 0
    """That were sent one by one."""
    dropped: int = 0
    """Events that were left out, for they are there already."""


class Delivery(Protocol):
    """One destination."""

    lanes: int
    """Segments that may be on their way at once. With 1 they arrive in the order of their names."""

    @property
    def underway(self) -> Sequence[str]:
        """Marks of segments that have their turn before any other, in this order, if they still wait."""
        ...

    async def deliver(self, segment: Segment) -> Delivered | None:
        """Get it there, durably; None if a stop came first.

        Raises DestinationError, and StorageError (Gone) if it is the segment that is to blame.
        """
        ...

    async def close(self) -> None:
        """Give up what is on its way; a call of `deliver` ends soon."""
        ...
