"""Rounds of: start the real server, load it, kill -9 its process group at a random moment, read all back.

    python -m tests.e2e.kill --rounds 1000 --seed 7

All that is random comes from the seed and the number of the round; only the machine's timing does not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
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
from ingestd.storage import reader
from ingestd.storage.disk import Disk
from tests.e2e.kill_ledger import EXAMPLES_MAX, Counts, Ledger, Shelf
from tests.e2e.kill_load import Load
from tests.support import server as commands
from tests.support.server import DEADLINE_S, Server

DIRECTORY_ROUNDS: Final = 20
"""Then a fresh data directory is begun; a multiple of it is where `--first` meets the same rounds again."""
_FAILURES_MAX: Final = 5
_FIRST_SIGHT_S: Final = 0.3
"""About twice what a start takes until it listens: the span in which a start is killed."""
_RECOVERY_S: Final = 0.01
_WRITE_S: Final = 0.2
_WRITE_BYTES: Final = 16 * 1024
_STOP_S: Final = 0.05
_LOAD_S: Final = (0.001, 2.0)
_KEY_NAME: Final = "load"


class _Victim(Server):
    def tune(self, **settings: str | int | float) -> None:
        """Settings for the next start."""
        self._settings.update({f"INGESTD_{name.upper()}": str(value) for name, value in settings.items()})

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def owns_directory(self) -> bool:
        """True from the moment before recovery begins."""
        lock = self.data_dir / "lock"
        return lock.exists() and lock.read_text().strip() == str(self.pid)

    def end(self) -> int:
        """kill -9 of the group unless it has ended by itself; returns its exit status."""
        if self._process is None:
            return 0
        if self.is_running:
            os.killpg(self.pid, signal.SIGKILL)
        return self.wait()


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
        findings += self._look(everything=True)
        verified = commands.run("verify", self._data_dir, cwd=self._server.folder)
        if verified.returncode:
            findings.append(f"verify: {verified.stdout}{verified.stderr}")
        left = {path.name for path in (self._data_dir / "open").iterdir()}
        torn = {name for name in left if ".torn" in name}
        findings += [f"left behind: {name}" for name in sorted(left - torn)]
        self._counts.torn_tails += len(torn)
        self._counts.segments += len(self._shelf)
        return findings

    def _kill_a_start(self, dice: random.Random) -> list[str]:
        """Anywhere from the interpreter's own start on, or in the middle of recovery."""
        server = self._server
        before = self._open_segments()
        server.launch()
        if dice.random() < 0.7:
            _spin(lambda: server.owns_directory or not server.is_running, DEADLINE_S)
            time.sleep(_RECOVERY_S * dice.random() ** 2)
        else:
            time.sleep(dice.uniform(0, _FIRST_SIGHT_S))
        assert server.is_running, f"the server ended by itself:\n{server.log}"
        owned = server.owns_directory
        server.kill()
        self._counts.kills += 1
        # The original is the last that recovery takes away.
        if owned and before & self._open_segments():
            self._counts.recoveries_interrupted += 1
        return self._look()

    def _kill_under_load(self, dice: random.Random) -> list[str]:
        server = self._server
        server.tune(
            ack=dice.choice(self._acks),
            segment_bytes_max=dice.choice((1024, 6000, 100_000, 64 * 1024 * 1024)),
            segment_age_max_s=dice.choice((0.01, 0.1, 0.5, 60)),
            commit_bytes_max=dice.choice((1024, 65536, 8 * 1024 * 1024)),
        )
        server.start()
        load = Load((server.host, server.port), self._key, self._ledger, self._counts)
        asyncio.run(self._load_and_kill(load, dice))
        self._counts.kills += 1
        return load.surprises + self._look() + self._verify()

    async def _load_and_kill(self, load: Load, dice: random.Random) -> None:
        running = asyncio.create_task(load.run(dice))
        shortest, longest = _LOAD_S
        if dice.random() < 0.5:
            enough = round(2000 ** dice.random())
            end = time.monotonic() + DEADLINE_S
            while load.events_acknowledged < enough and not load.surprises and time.monotonic() < end:
                await asyncio.sleep(0.001)
            if load.events_acknowledged < enough:
                load.surprises.append(f"surprise: {load.events_acknowledged} of {enough} acknowledged")
        else:
            await asyncio.sleep(shortest * (longest / shortest) ** dice.random())
        way = dice.choices((self._kill_at_once, self._kill_in_a_write, self._kill_after_a_stop), (6, 3, 1))[0]
        await asyncio.to_thread(way, load, dice)
        await running

    def _kill_at_once(self, load: Load, _dice: random.Random) -> None:
        load.is_ending = True
        self._server.kill()

    def _kill_in_a_write(self, load: Load, _dice: random.Random) -> None:
        """A write of many pages can be cut between two of them, and then leaves a torn tail."""
        sizes = _sizes(self._data_dir / "open")

        def has_grown() -> bool:
            nonlocal sizes
            before, sizes = sizes, _sizes(self._data_dir / "open")
            return any(size - before.get(name, 0) >= _WRITE_BYTES for name, size in sizes.items())

        _spin(has_grown, _WRITE_S)
        self._kill_at_once(load, _dice)

    def _kill_after_a_stop(self, load: Load, dice: random.Random) -> None:
        """What an impatient supervisor does: it falls into the drain, the last commit or the seal."""
        load.is_ending = True
        self._server.send(signal.SIGTERM)
        time.sleep(dice.uniform(0, _STOP_S))
        assert self._server.end() in (0, -signal.SIGKILL), self._server.log

    def _look(self, *, everything: bool = False) -> list[str]:
        """Read what is on disk, while no server runs; returns what is wrong."""
        findings = self._shelf.read(self._ledger, everything=everything)
        findings += self._ledger.settle()
        log = self._server.log
        if "ERROR" in log or "Traceback" in log:
            findings.append(f"the server complained:\n{log}")
        return findings

    def _verify(self) -> list[str]:
        notes: list[str] = []
        verdict = reader.verify(Disk(), self._data_dir, notes.append)
        return [f"verify: {note}" for note in notes] if verdict.problems else []

    def _open_segments(self) -> set[str]:
        return {path.name for path in (self._data_dir / "open").glob("*.open")}


def _sizes(directory: Path) -> dict[str, int]:
    sizes = {}
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            sizes[entry.name] = entry.stat().st_size
    return sizes


def _spin(condition: Callable[[], bool], most_s: float) -> None:
    """Wait until `condition` is true, at the price of a core, to meet the very moment."""
    end = time.monotonic() + most_s
    interval_s = sys.getswitchinterval()
    # The load goes on in its own thread, and must not hold the interpreter for long.
    sys.setswitchinterval(0.0001)
    while not condition() and time.monotonic() < end:
        pass
    sys.setswitchinterval(interval_s)


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
