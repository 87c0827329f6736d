"""The two copies of all that is on a faulty disk: what a reader sees, and what is on stable storage."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

SECTOR = 512


@dataclass(eq=False)
class File:
    """`lies`: a failed sync has dropped its dirty pages; later ones report success and save nothing."""

    seen: bytes = b""
    durable: bytes = b""
    lies: bool = False
    written: float = 0.0
    """When it was last written."""

    def survivor(self, rng: Random | None) -> bytes:
        """Its bytes after a power cut: the durable ones, with some sectors and some length of the seen."""
        if rng is None or self.lies or self.seen == self.durable:
            return self.durable
        seen, durable = self.seen, self.durable
        kept = bytearray(durable.ljust(len(seen), b"\0"))
        for at in range(0, len(seen), SECTOR):
            if rng.random() < 0.5:
                sector = seen[at : at + SECTOR]
                kept[at : at + len(sector)] = sector
        low, high = sorted((len(durable), len(seen)))
        return bytes(kept[: rng.choice((low, high, rng.randint(low, high)))])


Entries = dict[Path, File | None]
"""None is a directory; in a change, that the entry is removed."""

DIRECTORY = File()
"""In a change, a directory that is made. One that is lost takes its files with it."""


class Copies:
    """Entries and files, seen and durable, and the changes of entries that are not durable in full."""

    def __init__(self, root: Path, *, is_journaled: bool) -> None:
        self.root = root
        self.is_journaled = is_journaled
        """A change of several entries becomes durable in one step, not entry by entry."""
        self.seen: Entries = {root: None}
        self.durable: Entries = {root: None}
        self.pending: list[Entries] = []

    def change(self, entries: Entries) -> None:
        """An operation on directories."""
        _apply(self.seen, entries)
        self.pending.append(dict(entries))

    def sync_directory(self, path: Path) -> None:
        """Make what was changed in a directory durable."""
        for entries in self.pending:
            done = {entry: file for entry, file in entries.items() if os.path.dirname(entry) == str(path)}
            if done and self.is_journaled:
                done = dict(entries)
            _apply(self.durable, done)
            for entry in done:
                del entries[entry]
        self.pending = [entries for entries in self.pending if entries]

    def after_power_cut(self, rng: Random | None) -> Copies:
        """What was durable and, with `rng`, any subset of the other changes and parts of files."""
        entries = dict(self.durable)
        if rng is not None:
            for change in self.pending:
                if rng.random() < 0.5:
                    _apply(entries, change)
        after = Copies(self.root, is_journaled=self.is_journaled)
        kept: dict[int, File] = {}
        for path, file in sorted(entries.items(), key=lambda entry: str(entry[0])):
            if path != self.root and path.parent not in after.seen:
                continue
            if file is not None and id(file) not in kept:
                data = file.survivor(rng)
                # Both names of one file hold the same.
                kept[id(file)] = File(data, data, written=file.written)
            after.seen[path] = after.durable[path] = None if file is None else kept[id(file)]
        return after

    def twin(self) -> Copies:
        """The same once more, which changes by itself from now on."""
        after = Copies(self.root, is_journaled=self.is_journaled)
        twins: dict[int, File] = {id(DIRECTORY): DIRECTORY}

        def copied(entries: Entries) -> Entries:
            for file in entries.values():
                if file is not None and id(file) not in twins:
                    twins[id(file)] = File(file.seen, file.durable, file.lies, file.written)
            return {path: None if file is None else twins[id(file)] for path, file in entries.items()}

        after.seen, after.durable = copied(self.seen), copied(self.durable)
        after.pending = [copied(entries) for entries in self.pending]
        return after

    def write_back(self, rng: Random, files: Sequence[File]) -> None:
        """Make any part of these files durable, and the first few of the changes."""
        for file in files:
            file.durable = file.survivor(rng)
        count = rng.randint(0, len(self.pending))
        for entries in self.pending[:count]:
            _apply(self.durable, entries)
        del self.pending[:count]


def _apply(entries: Entries, changes: Entries) -> None:
    for path, file in changes.items():
        if file is None:
            entries.pop(path, None)
        else:
            entries[path] = None if file is DIRECTORY else file
