"""Counts whose names are found as the server runs: by route, status and error, and by key.

They stand in the shared memory, a block for each worker: how many entries there are, then the
entries, each a number and its name as a JSON array. A block has a single writer, which puts a name
in its place before it counts the entry in; so a reader needs no lock, and a worker that is started
again goes on from what it finds.
"""

from __future__ import annotations

import json
from typing import Final

ENTRIES_MAX: Final = 512
"""Of one worker. The routes and the errors are some hundred; the keys may have the rest."""
_ENTRY_BYTES: Final = 128
_NUMBER_BYTES: Final = 8
_NAME_BYTES_MAX: Final = _ENTRY_BYTES - _NUMBER_BYTES
BLOCK_BYTES: Final = _ENTRY_BYTES * (1 + ENTRIES_MAX)
REGION: Final = "tallies"

Name = tuple[str | int, ...]


class Tallies:
    """The block of one worker."""

    def __init__(self, region: memoryview, number: int) -> None:
        """The block of this number; `region` has one for each worker."""
        self._block = region[BLOCK_BYTES * number : BLOCK_BYTES * (number + 1)]
        self._numbers = self._block.cast("q")
        self._places = {name: place for place, name in enumerate(self._names(), 1)}

    def read(self) -> dict[Name, int]:
        """All that is counted so far."""
        return {name: self._number(place) for place, name in enumerate(self._names(), 1)}

    def put(self, name: Name, number: int) -> bool:
        """Write the number of this name; False if there is no room for another name."""
        place = self._places.get(name)
        if place is None:
            place = self._claim(name)
            if place is None:
                return False
        self._numbers[place * _ENTRY_BYTES // _NUMBER_BYTES] = number
        return True

    def _claim(self, name: Name) -> int | None:
        place = len(self._places) + 1
        data = json.dumps(name).encode()
        if place > ENTRIES_MAX or len(data) > _NAME_BYTES_MAX:
            return None
        at = place * _ENTRY_BYTES + _NUMBER_BYTES
        # Whole, for somebody may have been killed in the middle of this.
        self._block[at : at + _NAME_BYTES_MAX] = data.ljust(_NAME_BYTES_MAX, b"\0")
        self._numbers[0] = place
        self._places[name] = place
        return place

    def _names(self) -> list[Name]:
        starts = [place * _ENTRY_BYTES + _NUMBER_BYTES for place in range(1, self._numbers[0] + 1)]
        names = [bytes(self._block[at : at + _NAME_BYTES_MAX]).rstrip(b"\0") for at in starts]
        return [tuple(json.loads(name)) for name in names]

    def _number(self, place: int) -> int:
        return int(self._numbers[place * _ENTRY_BYTES // _NUMBER_BYTES])
