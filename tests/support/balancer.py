"""The real HAProxy and nginx, with the configurations of docs/fleet.md, before nodes of the tests."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from tests.support import certificates
from tests.support.server import wait_until
from tests.support.tools import ROOT, tool

PAGE: Final = (ROOT / "docs" / "fleet.md").read_text()
Kind = Literal["haproxy", "nginx"]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Balancer:
    """One of the two; with `with`, its process never outlives the block."""

    def __init__(self, kind: Kind, folder: Path, nodes: Sequence[int]) -> None:
        """`nodes` are the ports of the page's two nodes, `a` and `b`."""
        self.kind = kind
        self.folder = folder
        self.port = _free_port()
        self.pair = certificates.make(folder, "events")
        (folder / "events.pem").write_bytes(self.pair.cert.read_bytes() + self.pair.key.read_bytes())
        self.admin = folder / "admin.sock"
        """Where HAProxy is told what to do."""
        self._nodes = nodes
        self._config = folder / f"{kind}.conf"
        self._process: subprocess.Popen[bytes] | None = None
        self.write()

    @property
    def log(self) -> str:
        """What it has written to stderr."""
        return (self.folder / "balancer.txt").read_text()

    def write(self, down: str = "") -> None:
        """Write the page's configuration with the tests' own addresses; for nginx, a node may be down."""
        [text] = re.findall(rf"^```{self.kind}\n(.*?)^```$", PAGE, re.M | re.S)
        places = {
            "/run/haproxy/admin.sock": str(self.admin),
            "/etc/haproxy/events.pem": str(self.folder / "events.pem"),
            "/etc/nginx/events.crt": str(self.pair.cert),
            "/etc/nginx/events.key": str(self.pair.key),
            "bind :443 ": f"bind 127.0.0.1:{self.port} ",
            "listen 443 ": f"listen 127.0.0.1:{self.port} ",
        }
        for place, own in places.items():
            text = text.replace(place, own)
        for number, (name, port) in enumerate(zip("ab", self._nodes, strict=True), 1):
            address = f"127.0.0.1:{port}"
            assert text.count(f"10.0.0.{number}:8080") == 1
            text = text.replace(f"10.0.0.{number}:8080", f"{address} down" if name == down else address)
        self._config.write_text(text)

    @property
    def _command(self) -> list[str]:
        if self.kind == "haproxy":
            return [tool("haproxy"), "-f", str(self._config)]
        own = f"daemon off; pid {self.folder}/pid; error_log stderr;"
        return [tool("nginx"), "-e", "stderr", "-p", str(self.folder), "-c", str(self._config), "-g", own]

    def check(self) -> subprocess.CompletedProcess[str]:
        """What the program itself says of the configuration."""
        flag = {"haproxy": "-c", "nginx": "-t"}[self.kind]
        return subprocess.run([*self._command, flag], capture_output=True, text=True, timeout=30, check=False)

    @property
    def children(self) -> set[int]:
        """The ids of its worker processes."""
        assert self._process is not None
        pid = self._process.pid
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

    def reload(self) -> None:
        """Have nginx read its file again: new workers take what comes, the old ones end what they have."""
        done = subprocess.run([*self._command, "-s", "reload"], capture_output=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def __enter__(self) -> Self:
        command = [*self._command, "-db"] if self.kind == "haproxy" else self._command
        with (self.folder / "balancer.txt").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, f"{self.kind} listens")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        # Not kill: nginx's workers would outlive their master.
        self._process.terminate()
        self._process.wait(20)
