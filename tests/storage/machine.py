"""What can be done to the processes of a run: an action is a tuple of a word and numbers.

It does the same each time, so that a list of actions is a test.
"""

from __future__ import annotations

import errno
from random import Random
from typing import Final

from ingestd.storage.segment import walk
from tests.storage.both import check_both_recovered, recover_both
from tests.storage.processes import Processes, Shape
from tests.storage.promises import POWER, Failure, look
from tests.support.disk import PowerCut

Action = tuple[str | int, ...]

CALLS: Final = (
    "write", "fdatasync", "create", "truncate", "close", "link", "rename", "unlink", "mkdir", "rmdir",
    "fsync", "read", "list", "stat", "statvfs",
)  # fmt: skip
NAMES: Final = ("*", "*.open", "*.packing", "*.recovering", "hour=*", "open")
"""Of the files and directories that a fault may be about."""
ERRORS: Final = (errno.EIO, errno.ENOSPC)
FULL: Final = ("write", "create", "mkdir", "link")
"""What a full disk refuses."""
MEANWHILE: Final = ("switch", "look", "fork_power", "fork_kill", "write_back", "evict")
"""What can happen in the middle of a call's way."""


class Machine(Processes):
    """Does one action after the other, and checks after each end of a process."""

    def __init__(self, shape: Shape) -> None:
        self._hooks: list[tuple[int, str, int]] = []
        self._sweep, self._sweep_rng = 0, Random(0)
        super().__init__(shape)

    def run(self, actions: list[Action]) -> None:
        """Do all this, then end well and look at everything once more. Raises Failure."""
        self._boot()
        for action in actions:
            self._act(action)
        self._act(("mend",))
        self._act(("stop", 1, 0))

    def _act(self, action: Action) -> None:
        if self._shape.has_clock:
            self._clock.now_s += 0.0037
        name, *arguments = action
        self.counts[str(name)] += 1
        try:
            getattr(self, f"_do_{name}")(*arguments)
        except PowerCut:
            self._fall(*self._cut)
            self._boot()
        if len(self._disk.open_files) > 2 * self._shape.workers:
            raise Failure(f"descriptors are left open: {self._disk.open_files}")

    # The actions

    def _do_post(self, connection: int, count: int, size: int, is_random: int, invalid: int = 0) -> None:
        number = connection % self._shape.workers
        worker = self._workers[number]
        batch = self._promises.new_batch(
            worker.connections + connection,
            count,
            size,
            is_random=bool(is_random),
            at_ms=int(self._clock.now_s * 1000),
            invalid=invalid,
        )
        if worker.ring.push(batch):
            self._promises.sent(batch, number)

    def _do_commit(self, worker: int = 0) -> None:
        number = worker % self._shape.workers
        self._workers[number].ring.publish()
        self._turn(number, "flusher")

    def _do_seal(self, worker: int = 0) -> None:
        self._turn(worker % self._shape.workers, "sealer")
        if self._shape.has_links:
            self._promises.settle(self._disk.copy())

    def _do_wait(self, ms: int) -> None:
        self._clock.now_s += ms / 1000

    def _do_fail(self, call: int, name: int, nth: int, error: int, once: int, lies: int, seed: int) -> None:
        self._disk.fail(
            CALLS[call],
            name=NAMES[name],
            nth=nth,
            error=ERRORS[error],
            once=bool(once),
            lies=bool(lies) and CALLS[call] == "fdatasync",
            rng=Random(seed),
        )

    def _do_full(self) -> None:
        for call in FULL:
            self._disk.fail(call, error=errno.ENOSPC, once=False, rng=Random(0))

    def _do_short(self, nth: int, once: int, seed: int) -> None:
        self._disk.shorten(nth=nth, once=bool(once), rng=Random(seed))

    def _do_mend(self) -> None:
        self._disk.mend()
        self._disk.cut_after = None

    def _do_at(self, nth: int, what: int, seed: int) -> None:
        """At the nth call from now on, before it takes effect, something else happens."""
        self._hooks.append((nth, MEANWHILE[what], seed))

    def _do_sweep(self, calls: int, seed: int) -> None:
        """At each of the next calls, see what would be if the power went, or the process were killed."""
        self._sweep, self._sweep_rng = calls, Random(seed)

    def _do_cut(self, calls: int, is_power: int, seed: int) -> None:
        """After so many calls the power goes, or the process is killed."""
        self._cut_after(calls, bool(is_power), seed)

    def _do_cut_start(self, calls: int, is_power: int, seed: int) -> None:
        """The same, of the next start."""
        self._start_cuts.append((calls, bool(is_power), seed))

    def _do_crash(self, seed: int) -> None:
        self._fall(True, seed)
        self._boot()

    def _do_kill(self, worker: int = 0) -> None:
        self._fall(False, 0, [worker % self._shape.workers])
        self._boot()

    def _do_kill_all(self) -> None:
        self._fall(False, 0, range(self._shape.workers))
        self._boot()

    def _do_stop(self, is_power: int, seed: int) -> None:
        """End well; then perhaps the power goes too; then start again."""
        self._end_well()
        self._fall(bool(is_power), seed, range(self._shape.workers))
        self._boot()

    def _do_rot(self, which: int, how: int, where: int) -> None:
        """Flip a bit of a segment, cut it off, or take out a commit."""
        files = look(self._disk.copy())
        if not files:
            return
        shown = files[which % len(files)]
        data = self._disk.copy().read(shown.path)
        commits = walk(data).chain.commits
        at = where % max(1, len(data))
        match how:
            case 0:
                self._disk.rot(shown.path, lambda data: flipped(data, at, where % 8))
            case 1:
                self._disk.rot(shown.path, lambda data: data[:at])
            case _ if commits:
                commit = commits[where % len(commits)]
                self._disk.rot(shown.path, lambda data: data[: commit.offset] + data[commit.end :])
        # An open file that ends where a commit ended, or has but room from there on, is as good as any,
        # now or when the power has gone.
        found = [disk for disk in (self._disk.copy(), self._disk.crash()) if disk.exists(shown.path)]
        left = [disk.read(shown.path) for disk in found]
        is_silent = any(walk(one).state == "open" for one in left)
        self._promises.rotted(shown, is_silent=is_silent and not shown.is_sealed)

    # Meanwhile

    def _on_call(self, _call: str, _name: str) -> None:
        if self._sweep:
            self._sweep -= 1
            self.counts["swept"] += 1
            if self._sweep_rng.random() < 0.8:
                self._meanwhile_fork_power(self._sweep_rng.getrandbits(32))
            else:
                self._meanwhile_fork_kill(0)
        due = [(what, seed) for left, what, seed in self._hooks if left <= 1]
        self._hooks = [(left - 1, what, seed) for left, what, seed in self._hooks if left > 1]
        for what, seed in due:
            self.counts[what] += 1
            getattr(self, f"_meanwhile_{what}")(seed)

    def _meanwhile_switch(self, seed: int) -> None:
        """Another thread takes its turn."""
        others = self._others()
        if others and 0 < len(self._running) < 3:
            self._turn(*others[seed % len(others)])

    def _meanwhile_look(self, _: int) -> None:
        """Somebody reads the directory."""
        self._promises.check(self._disk.copy(), self._level)

    def _meanwhile_fork_power(self, seed: int) -> None:
        """What would be if the power went now."""
        after = self._disk.crash(Random(seed) if seed % 4 else None)
        recover_both(after)
        check_both_recovered(after)
        self._promises.check(after, POWER, lost_power=True)

    def _meanwhile_fork_kill(self, _: int) -> None:
        """What would be if the process were killed now."""
        after = self._disk.copy()
        recover_both(after)
        check_both_recovered(after)
        self._promises.check(after, self._level)

    def _meanwhile_write_back(self, seed: int) -> None:
        self._disk.write_back(Random(seed))

    def _meanwhile_evict(self, _: int) -> None:
        # At other levels what a failed sync loses was promised to survive a kill only, not the disk.
        if self._shape.ack == "fsync":
            self._disk.evict()


def flipped(data: bytes, at: int, bit: int) -> bytes:
    """With one bit changed, if there is such a byte."""
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] if at < len(data) else data
