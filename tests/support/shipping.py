"""`ingestd ship` as a child process, segments for it, and the proof that each arrived once and as it was."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Final, Self

import zstandard

from ingestd.config import Settings
from ingestd.ship.destination import Template
from ingestd.storage.disk import Disk
from ingestd.storage.segment import SUFFIX, open_directory
from tests.storage.samples import write
from tests.support.server import clean_environ, wait_until

TEMPLATE: Final = Template(Settings().ship_key)
_KEY: Final = re.compile(r"date=([\d-]{10})/hour=(\d\d)/(.+)-([0-9a-f]{64})\.ndjson\.zst")


def stock(
    data_dir: Path, count: int, *, seed: int = 1, event_bytes: int = 40, first: int = 0, commits: int = 2
) -> dict[str, bytes]:
    """Seal so many segments of a few events; returns their bytes by their names."""
    disk, rng = Disk(), Random(seed)
    disk.make_directory(open_directory(data_dir))
    made = {}
    for number in range(first, first + count):
        name = f"2026010{1 + number % 3}T0{number % 4}0405.678Z-node-w0-{number:06d}"
        lines = [
            b"".join(
                b'{"messageId":"%d-%d-%d","x":"%s"}\n'
                % (number, commit, event, rng.randbytes(event_bytes // 2).hex().encode())
                for event in range(3)
            )
            for commit in range(commits)
        ]
        made[name] = write(disk, data_dir, lines, name).seal().read_bytes()
    return made


def sealed(data_dir: Path) -> dict[str, bytes]:
    """The sealed segments that are there, by their names."""
    found = data_dir.glob(f"segments/date=*/hour=*/*{SUFFIX}")
    return {path.name.removesuffix(SUFFIX): path.read_bytes() for path in found}


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by their paths, as objects are named."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def markers(data_dir: Path) -> set[str]:
    """The names of the segments that are marked as delivered."""
    return {path.name.rsplit("-", 2)[0] for path in data_dir.glob("shipped/*/*.json")}


def assert_delivered(objects: Mapping[str, bytes], segments: Mapping[str, bytes]) -> None:
    """Each segment is one object, byte for byte, and there is nothing else."""
    found = {}
    for key, data in objects.items():
        match = _KEY.fullmatch(key)
        assert match is not None, key
        date, hour, name, digest = match.groups()
        assert name not in found, f"{name} is there twice"
        assert name.startswith(f"{date.replace('-', '')}T{hour}")
        assert hashlib.sha256(data).hexdigest() == digest
        found[name] = data
    assert found.keys() == segments.keys()
    for name, data in segments.items():
        assert found[name] == data, name


def values(data: bytes) -> list[bytes]:
    """The lines of a segment."""
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        return reader.read().splitlines()


def message_ids(objects: Mapping[str, bytes]) -> list[str]:
    """The messageId of every line of all objects."""
    return [str(json.loads(line)["messageId"]) for data in objects.values() for line in values(data)]


def ask(folder: Path, path: str) -> str:
    """What a shipper with `--admin unix:FOLDER/admin` answers."""
    command = ["curl", "--silent", "--unix-socket", f"{folder}/admin", f"http://x{path}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


class Shipping:
    """One `ingestd ship`; with `with`, its process never outlives the block."""

    def __init__(
        self, folder: Path, to: str, *flags: str, environ: Mapping[str, str] | None = None, **settings: object
    ) -> None:
        """`settings` go through the environment: `ship_timeout_s=1` is INGESTD_SHIP_TIMEOUT_S."""
        self.folder = folder
        self.data_dir = folder / "data"
        self.environ = {**(environ or {})}
        self._settings = {f"INGESTD_{name.upper()}": str(value) for name, value in settings.items()}
        self._command = [
            sys.executable,
            "-m",
            "ingestd",
            "ship",
            "--data-dir",
            str(self.data_dir),
            "--to",
            to,
        ]
        self._command += flags
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start the process."""
        assert self._process is None
        self._starts += 1
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                env=clean_environ({**self._settings, **self.environ}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        return self

    @property
    def _log_path(self) -> Path:
        return self.folder / f"ship-{id(self)}-{self._starts}.txt"

    @property
    def log(self) -> str:
        """What the last start has written to stderr so far."""
        return self._log_path.read_text()

    @property
    def pid(self) -> int:
        """The id of the running process."""
        assert self._process is not None
        return self._process.pid

    def wait_for_log(self, text: str) -> None:
        """Wait until `text` is in the log."""
        wait_until(lambda: text in self.log or self.has_ended, f"the log says {text!r}", 40)
        assert text in self.log, self.log

    @property
    def has_ended(self) -> bool:
        """True if the process is no more."""
        return self._process is None or self._process.poll() is not None

    def wait_for_markers(self, names: Mapping[str, object]) -> None:
        """Wait until all of these segments are marked as delivered."""
        wait_until(lambda: markers(self.data_dir) >= names.keys() or self.has_ended, "all is delivered", 60)
        assert markers(self.data_dir) >= names.keys(), self.log

    def wait(self) -> int:
        """Wait for the process to end; returns its exit status."""
        assert self._process is not None
        status = self._process.wait(60)
        self._process = None
        return status

    def once(self) -> int:
        """Run it to its end; returns its exit status."""
        return self.start().wait()

    def stop(self) -> None:
        """Stop it as an operator would, once it hears signals; it must exit with status 0."""
        assert self._process is not None
        self.wait_for_log("delivers what is sealed")
        self._process.send_signal(signal.SIGTERM)
        assert self.wait() == 0, self.log

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        return self.start() if self._process is None else self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            if kind is None:
                self.stop()
            else:
                self.kill()
