"""Certificates that a test makes for itself, with the `openssl` command."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.support.tools import tool


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate that vouches for itself, and its key."""

    cert: Path
    key: Path

    def client(self) -> ssl.SSLContext:
        """What a client uses that trusts this certificate and no other."""
        context = ssl.create_default_context(cafile=self.cert)
        context.set_alpn_protocols(["http/1.1"])
        return context

    @property
    def settings(self) -> dict[str, str]:
        """For a server."""
        return {"tls_cert_file": str(self.cert), "tls_key_file": str(self.key)}


def openssl(*arguments: str | Path) -> None:
    """Run the command; it must succeed."""
    done = subprocess.run(
        [tool("openssl"), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def make(folder: Path, name: str = "server", kind: Literal["ec", "rsa"] = "ec", days: int = 1) -> Pair:
    """A new certificate for localhost."""
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    algorithm = ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1") if kind == "ec" else ("rsa:2048",)
    openssl(
        "req", "-x509", "-newkey", *algorithm, "-nodes", "-days", str(days), "-subj", f"/CN={name}",
        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1", "-keyout", pair.key, "-out", pair.cert,
    )  # fmt: skip
    return pair
