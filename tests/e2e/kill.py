"""Rounds of: start the real server, load it, kill -9 its process group at a random moment, read all back.

    python -m tests.e2e.kill --rounds 1000 --seed 7

All that is random comes from the seed and the number of the round; only the machine's timing does not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from ingestd.service import keyfile
from ingestd.storage.disk import Disk
from ingestd.storage.segment import OPEN_SUFFIX
from tests.e2e.kill_ledger import EXAMPLES_MAX, Counts, Ledger, Shelf
from tests.e2e.kill_load import Load
from tests.support import server as commands
from tests.support.server import DEADLINE_S, Server, wait_until

DIRECTORY_ROUNDS: Final = 20
"""Then a fresh data directory is begun; a multiple of it is where `--first` meets the same rounds again."""
_FAILURES_MAX: Final = 5
_FIRST_SIGHT_S: Final = 0.5
"""About twice what a start takes until it listens: the span in which a start is killed."""
_RECOVERY_S: Final = 0.01
_WRITE_S: Final = 0.2
_WRITE_BYTES: Final = 16 * 1024
_STOP_S: Final = 0.05
_LOAD_S: Final = (0.001, 2.0)
_KEY_NAME: Final = "load"
_COMPLAINT: Final = re.compile(r"Traceback|ERROR(?!.* was ended by SIGKILL)")


class _Victim(Server):
    def tune(self, **settings: str | int | float) -> None:
        """Settings for the next start."""
        self._settings.update({f"INGESTD_{name.upper()}": str(value) for name, value in settings.items()})

    @property
    def is_running(self) -> bool:
        """Not by poll(): the group keeps its number only until its leader is waited for."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def end(self) -> int:
        """kill -9 of what is left of the group; returns the exit status of its leader."""
        if self._process is None:
            return 0
        os.killpg(self.pid, signal.SIGKILL)
        status = self.wait()
        wait_until(self.is_free, "the last worker is gone")
        return status


class Ground:
    """One data directory, which goes on over many rounds."""

    def __init__(self, folder: Path, acks: Sequence[str], counts: Counts) -> None:
        self._acks = acks
        self._counts = counts
        self._server = _Victim(folder)
        self._data_dir = self._server.data_dir
        # Made beforehand: a first start that is killed may take the key that it would print with it.
        self._key = keyfile.add(Disk(), self._data_dir, _KEY_NAME).encode()
        self._ledger = Ledger(_KEY_NAME, counts)
        self._shelf = Shelf(self._data_dir)

    def round(self, dice: random.Random) -> list[str]:
        """A few starts that do not get far, one that is loaded, a kill each; returns what is wrong."""
        findings: list[str] = []
        self._counts.rounds += 1
        try:
            for _ in range(dice.choice((0, 0, 0, 1, 1, 2))):
                findings += self._kill_a_start(dice)
            findings += self._kill_under_load(dice)
        except AssertionError as e:
            findings.append(f"failed: {e}\n{self._server.log}")
        finally:
            self._server.end()
        return findings

    def finish(self) -> list[str]:
        """Start and stop in order, read all of it once more; returns what is wrong."""
        findings: list[str] = []
        try:
            self._server.start().stop()
        except AssertionError as e:
            findings.append(f"failed: {e}\n{self._server.log}")
        finally:
            self._server.end()
        findings += self._look(everything=True) + self._shelf.read_together() + self._verify()
        left = {path.name for path in (self._data_dir / "open").iterdir()}
        torn = {name for name in left if ".torn" in name}
        findings += [f"left behind: {name}" for name in sorted(left - torn)]
        self._counts.torn_tails += len(torn)
        self._counts.segments += len(self._shelf)
        return findings

    def _kill_a_start(self, dice: random.Random) -> list[str]:
        """Anywhere from the interpreter's own start on, or in the middle of recovery."""
        server, directory = self._server, self._data_dir / "open"
        before = _sizes(directory).keys()
        server.launch()
        if before and dice.random() < 0.7:
            end = time.monotonic() + DEADLINE_S
            while _sizes(directory).keys() == before and server.is_running and time.monotonic() < end:
                time.sleep(0.0005)
            time.sleep(_RECOVERY_S * dice.random() ** 2)
        else:
            time.sleep(dice.uniform(0, _FIRST_SIGHT_S))
        assert server.is_running, "the server ended by itself"
        server.kill()
        self._counts.kills += 1
        after = _sizes(directory).keys()
        # Begun, and not at its end: the last that it takes away is the original.
        if after != before and any(name.endswith(OPEN_SUFFIX) for name in before & after):
            self._counts.recoveries_interrupted += 1
        return self._look()

    def _kill_under_load(self, dice: random.Random) -> list[str]:
        server = self._server
        server.tune(
            ack=dice.choice(self._acks),
            segment_bytes_max=dice.choice((1024, 6000, 100_000, 64 * 1024 * 1024)),
            segment_age_max_s=dice.choice((0.01, 0.1, 0.5, 60)),
            commit_bytes_max=dice.choice((1024, 65536, 8 * 1024 * 1024)),
            workers=dice.choices((1, 2, 3), (6, 2, 1))[0],
        )
        server.start()
        load = Load((server.host, server.port), self._key, self._ledger, self._counts)
        asyncio.run(self._load_and_kill(load, dice))
        self._counts.kills += 1
        findings = load.surprises + self._look()
        # A process of its own each time, as an operator's; not after each kill, for it reads everything.
        return findings + self._verify() if dice.random() < 0.2 else findings

    async def _load_and_kill(self, load: Load, dice: random.Random) -> None:
        # Dice of its own: how far it has come by now must not change what is chosen here.
        running = asyncio.create_task(load.run(random.Random(dice.random())))
        await _let_run(load, dice)
        if dice.random() < 0.2:
            load.has_lost_worker = True
            os.kill(dice.choice(self._server.worker_pids), signal.SIGKILL)
            self._counts.worker_kills += 1
            await _let_run(load, dice)
        ways = self._kill_at_once, self._kill_in_a_write, self._kill_after_another
        await asyncio.to_thread(dice.choices(ways, (6, 3, 2))[0], load, dice)
        await running

    def _kill_at_once(self, load: Load, _: random.Random) -> None:
        load.is_ending = True
        self._server.kill()

    def _kill_in_a_write(self, load: Load, dice: random.Random) -> None:
        """A write of many pages can be cut between two of them, and then leaves a torn tail."""
        sizes = _sizes(self._data_dir / "open")

        def has_grown() -> bool:
            nonlocal sizes
            before, sizes = sizes, _sizes(self._data_dir / "open")
            return any(size - before.get(name, 0) >= _WRITE_BYTES for name, size in sizes.items())

        end = time.monotonic() + _WRITE_S
        interval_s = sys.getswitchinterval()
        # The load goes on in its own thread, and must not keep this one from the very moment.
        sys.setswitchinterval(0.0001)
        while not has_grown() and time.monotonic() < end:
            pass
        sys.setswitchinterval(interval_s)
        self._kill_at_once(load, dice)

    def _kill_after_another(self, load: Load, dice: random.Random) -> None:
        """Of a stop by an impatient operator, or of the supervisor alone: the workers are draining."""
        load.is_ending = True
        first = dice.choice((signal.SIGTERM, signal.SIGKILL))
        self._server.send(first)
        time.sleep(dice.uniform(0, _STOP_S))
        status = self._server.end()
        assert status in (-signal.SIGKILL, 0 if first == signal.SIGTERM else -signal.SIGKILL), status

    def _look(self, *, everything: bool = False) -> list[str]:
        """Read what is on disk, while no server runs; returns what is wrong."""
        findings = self._shelf.read(self._ledger, everything=everything)
        findings += self._ledger.settle()
        findings += [f"quarantined: {path.name}" for path in (self._data_dir / "quarantine").glob("*")]
        if _COMPLAINT.search(log := self._server.log):
            findings.append(f"the server complained:\n{log}")
        return findings

    def _verify(self) -> list[str]:
        done = commands.run("verify", self._data_dir, cwd=self._server.folder)
        return [f"verify: {done.stdout}{done.stderr}"] if done.returncode else []


async def _let_run(load: Load, dice: random.Random) -> None:
    """For a while, or until so many more events are acknowledged."""
    if dice.random() < 0.5:
        shortest, longest = _LOAD_S
        await asyncio.sleep(shortest * (longest / shortest) ** dice.random())
        return
    enough = load.events_acknowledged + round(2000 ** dice.random())
    end = time.monotonic() + DEADLINE_S
    while load.events_acknowledged < enough and not load.surprises and time.monotonic() < end:
        await asyncio.sleep(0.001)
    if load.events_acknowledged < enough:
        load.surprises.append(f"surprise: {load.events_acknowledged} of {enough} acknowledged")


def _sizes(directory: Path) -> dict[str, int]:
    sizes = {}
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            sizes[entry.name] = entry.stat().st_size
    return sizes


def run(
    rounds: int,
    seed: int,
    folder: Path,
    *,
    first: int = 0,
    acks: Sequence[str] = ("fsync", "write"),
    say: Callable[[str], None] = print,
) -> tuple[Counts, list[str]]:
    """Rounds `first` to `first + rounds - 1`; returns the counts and what was wrong.

    Directories without a finding are removed; the others stay below `folder`.
    """
    counts, findings, failures = Counts(), list[str](), 0
    begin, end = first, first + rounds
    while begin < end and failures < _FAILURES_MAX:
        place = folder / f"rounds-{begin}"
        place.mkdir()
        ground = Ground(place, acks, counts)
        stop = min(end, begin - begin % DIRECTORY_ROUNDS + DIRECTORY_ROUNDS)
        found: list[str] = []
        while begin < stop and not found:
            found = ground.round(random.Random(f"{seed}-{begin}"))
            begin += 1
        found = found or ground.finish()
        if found:
            failures += 1
            found = [f"seed {seed}, round {begin - 1}, {place.name}: {finding}" for finding in found]
            findings += found
            say("\n".join([*found[:EXAMPLES_MAX], f"({len(found)} findings)"]))
        else:
            shutil.rmtree(place)
        say(f"{counts}")
    return counts, findings


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0: nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.kill", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="0, the default: another one each time")
    parser.add_argument("--first", type=int, default=0, help="the number of the first round")
    parser.add_argument(
        "--ack", choices=("fsync", "write", "memory"), help="the only ack level; memory is expected to lose"
    )
    args = parser.parse_args(argv)
    seed = args.seed or random.SystemRandom().randrange(1, 1_000_000)
    acks = (args.ack,) if args.ack else ("fsync", "write")
    # So that a run that is stopped takes its server with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder = Path(tempfile.mkdtemp(prefix="ingestd-kill-"))
    started = time.monotonic()
    print(f"seed {seed}, in {folder}", flush=True)
    counts, findings = run(
        args.rounds, seed, folder, first=args.first, acks=acks, say=lambda text: print(text, flush=True)
    )
    verdict = f"{len(findings)} FINDINGS" if findings else "all is well"
    print(f"seed {seed}, {time.monotonic() - started:.0f} s: {verdict}: {counts}")
    if not findings:
        folder.rmdir()
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
