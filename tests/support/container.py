"""A Debian of the tests' own, booted by systemd-nspawn: its own systemd, journal and network, no way out.

It takes root, mmdebstrap and Debian's packages. The tree is made anew each time, and goes with the test.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.support.server import Raw, clean_environ, wait_until
from tests.support.tools import tool

SOURCES: Final = "/root/ingestd"
"""Where the container sees the clone."""
_WHEELS: Final = "/wheels"
_CLONE_NEWNET: Final = 0x40000000
_BOOT_S: Final = 60.0
_libc: Final = ctypes.CDLL(None, use_errno=True)


def _checked(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=clean_environ(), capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def make_tree(target: Path, packages: Sequence[str]) -> None:
    """A Debian of this machine's release, with these packages, systemd and nothing that can be spared."""
    release = _checked("sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME").strip()
    included = ",".join(["systemd", "systemd-sysv", *packages])
    # Nobody will miss it after a power cut.
    fast = "--dpkgopt=force-unsafe-io"
    _checked(
        tool("mmdebstrap"), "--quiet", "--variant=essential", fast, f"--include={included}", release, target
    )


def make_wheels(target: Path, clone: Path) -> None:
    """All that pip will ask for in the container. Its Python must be of the version that runs the tests."""
    wheel = (sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", target)
    _checked(*wheel, f"{clone}[ship]", "setuptools>=68", "wheel")
    # It is to build this one itself.
    for built in target.glob("ingestd-*"):
        built.unlink()


class Container:
    """A booted tree; with `with`, nothing of it outlives the block."""

    def __init__(self, tree: Path, clone: Path, wheels: Path) -> None:
        self._tree = tree
        self._mounts = (f"--bind={clone}:{SOURCES}", f"--bind-ro={wheels}:{_WHEELS}")
        self._console = tree.with_name("console.txt")
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self.key = ""
        """What `Senders` send with."""

    def __enter__(self) -> Self:
        # Without a systemd on this machine there is nobody to ask for a unit of its own.
        unit = [] if Path("/run/systemd/system").is_dir() else ["--keep-unit"]
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                [
                    # Should the tests be killed, it ends as well.
                    *(tool("setpriv"), "--pdeathsig", "TERM", tool("systemd-nspawn"), "--quiet"),
                    *("--register=no", *unit, "--private-network", "--boot"),
                    *(f"--machine=ingestd-{os.getpid()}", f"--directory={self._tree}", *self._mounts),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        try:
            wait_until(self._has_booted, f"the container has booted: {self._console}", _BOOT_S)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _has_booted(self) -> bool:
        process = self._process
        assert process is not None
        assert process.poll() is None, self._console.read_text(errors="replace")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if not children:
            return False
        leader = int(children[0])
        ids = re.search(r"NSpid:.*", Path(f"/proc/{leader}/status").read_text())
        # Before that it is a helper that still stands in this machine's name spaces.
        if ids is None or not ids[0].endswith("\t1"):
            return False
        self._leader = leader
        return self.run("systemctl is-system-running", check=False).strip() in ("running", "degraded")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            # The first process of its name space: all others end with it.
            if self._leader:
                with suppress(ProcessLookupError):
                    os.kill(self._leader, 9)
            process.kill()
            process.wait()

    def run(self, script: str, environ: Mapping[str, str] | None = None, *, check: bool = True) -> str:
        """Run a script as root in the container; returns what it has printed."""
        settings = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "SYSTEMD_PAGER": "cat",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": _WHEELS,
            **(environ or {}),
        }
        done = subprocess.run(
            [
                *(tool("nsenter"), f"--target={self._leader}", "--all", f"--wdns={SOURCES}", "env", "-i"),
                *(f"{name}={value}" for name, value in settings.items()),
                *("bash", "-euo", "pipefail", "-c", script),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert not check or done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def property(self, name: str, unit: str = "ingestd.service") -> str:
        """A property of a unit, as systemd has it."""
        return self.run(f"systemctl show --property={name} --value {unit}").strip()

    def raw(self) -> Raw:
        """A connection from within to the port on which ingestd listens."""
        with self._network():
            return Raw("127.0.0.1", 8080)

    @contextmanager
    def _network(self) -> Iterator[None]:
        """This thread, and no other, is in the container's network for so long."""
        with (
            Path("/proc/thread-self/ns/net").open() as home,
            Path(f"/proc/{self._leader}/ns/net").open() as there,
        ):
            _set_network(there.fileno())
            try:
                yield
            finally:
                _set_network(home.fileno())


def _set_network(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
