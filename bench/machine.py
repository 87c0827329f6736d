"""What the figures depend on besides the code: the machine, the versions, the commit."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.contenders import ROOT
from bench.results import Machine

_MEASURED: Final = ("ingestd", "bench/*.py", "bench/apps")
_MOUNTS: Final = Path("/proc/self/mounts")


def look(folder: Path) -> Machine:
    """This one; `folder` is where contenders write."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return Machine(
        cpu=model[1] if model else platform.machine(),
        cores=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=f"{platform.system()} {platform.release()}",
        file_system=file_system(folder),
        glibc=" ".join(platform.libc_ver()),
    )


def file_system(folder: Path) -> str:
    """The type of the one that holds the folder."""
    path, best, found = str(folder.resolve()), "", "unknown"
    for line in _MOUNTS.read_text().splitlines():
        _, mounted, kind, *_ = line.split()
        if (path == mounted or path.startswith(mounted.rstrip("/") + "/")) and len(mounted) >= len(best):
            best, found = mounted, kind
    return found


def tools() -> dict[str, str]:
    """Of what measures."""
    said = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout
    wrk = re.match(r"wrk (?:debian/)?(\S+)", said)
    return {
        "Python": f"{platform.python_version()} ({' '.join(platform.python_compiler().split())})",
        "wrk": wrk[1] if wrk else "unknown",
    }


def commit() -> str:
    """What is measured, and whether it is as it was committed."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return "unknown"
    revision = _git(git, "rev-parse", "--short=12", "HEAD")
    return f"{revision}, with changes" if _git(git, "status", "--porcelain", "--", *_MEASURED) else revision


def _git(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT).stdout.strip()


def probe_disk(folder: Path, size: int, seconds: float) -> list[float]:
    """Milliseconds of appending `size` bytes and fdatasync, again and again, in order of length."""
    path, data, took = folder / "probe", os.urandom(size), []
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            start = time.perf_counter()
            os.write(fd, data)
            os.fdatasync(fd)
            took.append((time.perf_counter() - start) * 1e3)
    finally:
        os.close(fd)
        path.unlink()
    return sorted(took)


def shown(command: Sequence[str], folder: Path) -> str:
    """A command as anybody could type it, without the places of this machine."""
    text = " ".join(command).replace(str(folder), "FOLDER").replace(str(ROOT), ".")
    return re.sub(r"^\S*/(?=python[\d.]*\b|node\b|nginx\b|fluent-bit\b|vector\b)", "", text)
