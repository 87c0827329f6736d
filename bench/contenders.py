"""Who is measured: how each is started, and what it takes.

Each has a folder of its own, a port and a key. What is missing on this machine takes no part, and
says what to install.
"""

from __future__ import annotations

import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

from bench.processes import BOTH_CORES, SERVER_CORE, Process

ROOT: Final = Path(__file__).parents[1]
APPS: Final = Path(__file__).parent / "apps"
KERNELS: Final = "bare kernels"
NOOP: Final = "no-op server"
FSYNC: Final = "ingestd, ack fsync"
WRITE: Final = "ingestd, ack write"
MEMORY: Final = "ingestd, ack memory"
TWO: Final = "ingestd, ack fsync, 2 workers"
FASTAPI: Final = "FastAPI + Uvicorn"
FLUENT_BIT: Final = "Fluent Bit"
_KEY: Final = "bench-key-0123456789"
_SEAL_S: Final = 60.0
_SEAL_AGAIN_S: Final = 1.0
_PIP: Final = "pip install -e '.[bench]'"


class Site(NamedTuple):
    """Where one contender runs, once."""

    folder: Path
    port: int
    key: str

    @property
    def file(self) -> Path:
        """Where those keep events that keep them in one file."""
        return self.folder / "events"


def _one_file(site: Site) -> list[Path]:
    return [site.file] if site.file.exists() else []


@dataclass(frozen=True)
class Contender:
    """One who can be measured."""

    name: str
    kept: str
    command: Callable[[Site], list[str]]
    needs: Callable[[], str | None]
    """What to install; None if all is there."""
    versions: Callable[[], dict[str, str]]
    cores: str = SERVER_CORE
    prepare: Callable[[Site], Site] = lambda site: site
    settle: Callable[[Site, Process], None] | None = None
    """Wait until what was taken is in its last form."""
    files: Callable[[Site], list[Path]] = _one_file
    """Where it has kept the events of the load before."""
    is_sealed: bool = False
    """Its files are segments, sealed."""
    keeps_bodies: bool = False
    """A line of its file is a body as it came, not an event."""
    cwd: Path = ROOT
    environ: Mapping[str, str] = field(default_factory=dict)


def python_packages(*names: str) -> dict[str, str]:
    """Their versions. Raises PackageNotFoundError."""
    return {"Python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def _packages_needed(*names: str) -> Callable[[], str | None]:
    def needs() -> str | None:
        try:
            python_packages(*names)
        except metadata.PackageNotFoundError:
            return _PIP
        return None

    return needs


def _nothing() -> str | None:
    return None


def _output(*command: str) -> str:
    """Standard output and error, in one line."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return " ".join(f"{done.stdout}{done.stderr}".split())


# -- ingestd ------------------------------------------------------------------------------------


def _with_key(checkout: Path) -> Callable[[Site], Site]:
    def prepare(site: Site) -> Site:
        added = [
            sys.executable,
            "-m",
            "ingestd",
            "key",
            "add",
            "bench",
            "--data-dir",
            str(site.folder / "data"),
        ]
        done = subprocess.run(added, capture_output=True, text=True, check=True, cwd=checkout)
        return site._replace(key=next(word for word in done.stdout.split() if word.startswith("ing_")))

    return prepare


def _segments(site: Site) -> list[Path]:
    return sorted((site.folder / "data" / "segments").rglob("*.zst"))


def _sealed(site: Site, process: Process) -> None:
    """Have all of it sealed, packed where that pays. Raises RuntimeError if that does not come about."""
    end = time.monotonic() + _SEAL_S
    while True:
        # Again and again, for requests that were on their way open another segment.
        process.signal(signal.SIGUSR1)
        asked = time.monotonic()
        while time.monotonic() < asked + _SEAL_AGAIN_S:
            if not list((site.folder / "data" / "open").iterdir()):
                return
            time.sleep(0.02)
        if time.monotonic() > end or process.has_ended:
            raise RuntimeError("segments are not sealed")


def ingestd(name: str, ack: str, kept: str, *, workers: int = 1, checkout: Path = ROOT) -> Contender:
    """ingestd; `checkout` names the tree whose code is run."""

    def command(site: Site) -> list[str]:
        return [
            *(sys.executable, "-m", "ingestd", "serve", "--listen", f"127.0.0.1:{site.port}"),
            *("--data-dir", str(site.folder / "data"), "--ack", ack, "--workers", str(workers)),
        ]

    return Contender(
        name, kept, command, _nothing,
        lambda: python_packages("ingestd", "uvloop", "httptools", "msgspec", "zstandard", "isal"),
        cores=SERVER_CORE if workers == 1 else BOTH_CORES,
        prepare=_with_key(checkout), settle=_sealed, files=_segments, is_sealed=True,
        # From that checkout's folder, or `-m` would find the package of this one first.
        cwd=checkout,
        # A segment that grew old or large amid a load would be sealed then; all are sealed after it.
        environ={"INGESTD_SEGMENT_AGE_MAX_S": "600", "INGESTD_SEGMENT_BYTES_MAX": str(4 << 30)},
    )  # fmt: skip


# -- others -------------------------------------------------------------------------------------


def _module(name: str) -> Callable[[Site], list[str]]:
    return lambda _site: [sys.executable, "-m", name]


def _fastify_needs() -> str | None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "apt-get install nodejs npm (Node 20 or newer), then `npm ci` in bench/apps/fastify"
    return (
        None if (APPS / "fastify" / "node_modules" / "fastify").is_dir() else "`npm ci` in bench/apps/fastify"
    )


def _fastify_versions() -> dict[str, str]:
    package = (APPS / "fastify" / "node_modules" / "fastify" / "package.json").read_text()
    version = package.partition('"version": "')[2].partition('"')[0]
    return {"node": _output("node", "--version"), "fastify": version}


def _configured(template: str, argv: Callable[[Path], list[str]]) -> Callable[[Site], list[str]]:
    """A command whose configuration is a file with places to fill in."""

    def command(site: Site) -> list[str]:
        text = (APPS / template).read_text()
        places = {"FOLDER": site.folder, "PORT": site.port, "KEY": site.key, "FILE": site.file}
        for name, value in places.items():
            text = text.replace(f"@{name}@", str(value))
        path = site.folder / template
        path.write_text(text)
        return argv(path)

    return command


def _nginx() -> str:
    # Debian puts it where not everybody looks.
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin") or "nginx"


def _binary_needs(path: Path | None, option: str) -> Callable[[], str | None]:
    return lambda: None if path is not None and path.is_file() else f"name its binary with {option}"


def every(fluent_bit: Path | None = None, vector: Path | None = None) -> list[Contender]:
    """All who may take part, but the bare kernels."""
    on_disk, in_kernel = "on stable storage (fdatasync)", "written to a file, not synced"
    noop = _module("bench.noop")
    return [
        Contender(NOOP, "nothing", noop, _nothing, lambda: python_packages("uvloop", "httptools")),
        ingestd(FSYNC, "fsync", on_disk),
        ingestd(WRITE, "write", in_kernel),
        ingestd(MEMORY, "memory", "in memory, about to be written"),
        ingestd(TWO, "fsync", on_disk, workers=2),
        Contender(
            FASTAPI, in_kernel, _module("bench.apps.fastapi_app"),
            _packages_needed("fastapi", "uvicorn", "pydantic"),
            lambda: python_packages("fastapi", "pydantic", "uvicorn", "uvloop", "httptools"),
        ),
        Contender(
            "Litestar + Granian", in_kernel, _module("bench.apps.litestar_app"),
            _packages_needed("litestar", "granian"),
            lambda: python_packages("litestar", "granian", "msgspec", "uvloop"),
        ),
        Contender(
            "Robyn", in_kernel, _module("bench.apps.robyn_app"), _packages_needed("robyn"),
            lambda: python_packages("robyn", "msgspec"),
            environ={"ROBYN_MAX_PAYLOAD_SIZE": str(16 << 20)},
        ),
        Contender(
            "Fastify", in_kernel, lambda _site: ["node", str(APPS / "fastify" / "server.js")],
            _fastify_needs, _fastify_versions,
        ),
        Contender(
            "nginx, bodies logged", "in a buffer of 64 KiB, unlooked at",
            _configured("nginx.conf", lambda path: [_nginx(), "-c", str(path)]),
            lambda: None if shutil.which(_nginx()) else "apt-get install nginx-light",
            lambda: {"nginx": _output(_nginx(), "-v").rpartition("/")[2]},
            keeps_bodies=True,
        ),
        Contender(
            FLUENT_BIT, "in memory, on its way to a file",
            _configured("fluent-bit.conf", lambda path: [str(fluent_bit), "-c", str(path)]),
            _binary_needs(fluent_bit, "--fluent-bit PATH"),
            lambda: {"fluent-bit": _output(str(fluent_bit), "--version")},
        ),
        Contender(
            "Vector", in_kernel,
            _configured("vector.yaml", lambda path: [str(vector), "--quiet", "--config", str(path)]),
            _binary_needs(vector, "--vector PATH"),
            lambda: {"vector": _output(str(vector), "--version")},
            prepare=_with_data,
        ),
    ]  # fmt: skip


def _with_data(site: Site) -> Site:
    (site.folder / "data").mkdir()
    return site


def environ(contender: Contender, site: Site) -> dict[str, str]:
    """What its process is told."""
    told = {"BENCH_KEY": site.key, "BENCH_FILE": str(site.file), "BENCH_PORT": str(site.port)}
    # Our own modules are found whatever the folder is.
    return {**told, **contender.environ}


def new_site(folder: Path, port: int) -> Site:
    """With a key that `prepare` may change."""
    return Site(folder, port, _KEY)
