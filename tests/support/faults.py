"""Which calls of a faulty disk fail, fall short or are the last, and what it has been asked for."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from random import Random

from ingestd.errors import StorageError


class PowerCut(BaseException):
    """The process ends here: nothing may catch this but the test."""


@dataclass
class Fault:
    """What is to go wrong; `error` 0 is a write that falls short."""

    call: str
    skip: int
    error: int
    once: bool
    lies: bool
    name: str
    rng: Random | None

    def part(self, size: int) -> int:
        """How much of a write of this size is done all the same."""
        done = part(size, self.rng)
        # The kernel never writes nothing without an error.
        return done if self.error else max(1, done)


def part(size: int, rng: Random | None) -> int:
    """Half of it, or any part."""
    return size // 2 if rng is None else rng.randint(0, size)


class Faults:
    """Every call passes `_due` before it takes effect."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        """Every call with the name of its file or directory, in order."""
        self.on_call: Callable[[str, str], None] | None = None
        """Called before each call takes effect, on the caller's thread."""
        self.cut_after: int | None = None
        """How many calls still work; the next raises PowerCut. None: all."""
        self.cut_rng: Random | None = None
        """If it is a write that is cut, any part of it is done; None: nothing of it."""
        self.failed: Counter[str] = Counter()
        """How often each kind of call has failed."""
        self._faults: list[Fault] = []

    def fail(
        self,
        call: str,
        *,
        nth: int = 1,
        error: int = errno.EIO,
        once: bool = True,
        lies: bool = False,
        name: str = "*",
        rng: Random | None = None,
    ) -> None:
        """Let the nth call of this name from now on fail, and unless `once` all after it.

        A failed write leaves half of its bytes, with `rng` any part. With `rng` a failed fdatasync has
        saved any of the sectors. With `lies` it drops what is still dirty, and later ones on that file
        report success. `name` is a pattern for the file's name.
        """
        self._faults.append(Fault(call, nth - 1, error, once, lies, name, rng))

    def shorten(self, *, nth: int = 1, once: bool = True, name: str = "*", rng: Random | None = None) -> None:
        """Let the nth write from now on take half of its bytes, or with `rng` any part, and report that."""
        self._faults.append(Fault("write", nth - 1, 0, once, False, name, rng))

    def mend(self) -> None:
        """No call fails any more."""
        self._faults.clear()

    def inherit(self, other: Faults) -> None:
        """Go on failing as the other was going to."""
        self._faults = other._faults

    @property
    def is_sound(self) -> bool:
        """True if nothing is going to fail."""
        return not self._faults

    def _due(self, call: str, path: Path) -> Fault | None:
        """The beginning of every call: note it, cut the power, or say what goes wrong."""
        if self.on_call is not None:
            self.on_call(call, path.name)
        if self.cut_after is not None:
            if self.cut_after <= 0:
                raise PowerCut
            self.cut_after -= 1
        self.calls.append((call, path.name))
        for fault in self._faults:
            if fault.call != call or not fnmatchcase(path.name, fault.name):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            if fault.once:
                self._faults.remove(fault)
            self.failed[call if fault.error else "short write"] += 1
            return fault
        return None

    def _enter(self, call: str, path: Path) -> None:
        """The same for calls that either work or do nothing."""
        fault = self._due(call, path)
        if fault is not None:
            raise storage_error(call, path, fault.error)


def storage_error(call: str, what: object, number: int) -> StorageError:
    """As the real Disk says it, with the operating system's error as its cause."""
    error = StorageError(f"{call} {what}: {os.strerror(number)}")
    error.__cause__ = OSError(number, os.strerror(number))
    return error
