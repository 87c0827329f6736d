"""A real S3 store, SeaweedFS: master, volume server, filer and S3 gateway in one process on free ports."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.support.server import wait_until
from tests.support.tools import tool

ACCESS_KEY: Final = "AKIDTESTS"
SECRET_KEY: Final = "a-secret-of-the-tests-7b1f"
_PORTS: Final = (
    "master.port", "master.port.grpc", "volume.port", "volume.port.grpc",
    "filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc",
)  # fmt: skip
BUCKET: Final = "events"
"""The only one: each takes volumes of its own."""
_START_S: Final = 60.0


class Weed:
    """One store in a folder; with `with`, its process never outlives the block."""

    def __init__(self, folder: Path, *, volumes: int = 50, volume_mb: int = 64, port: int = 0) -> None:
        """`port` is that of S3, if it must be a certain one. `volumes` of so many MB are all its room."""
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.volumes = volumes
        self._volume_mb = volume_mb
        self._process: subprocess.Popen[bytes] | None = None
        with ExitStack() as stack:
            free = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in _PORTS]
            self._ports = dict(zip(_PORTS, [int(one.getsockname()[1]) for one in free], strict=True))
        if port:
            self._ports["s3.port"] = port
        self.keys: dict[str, str] = {ACCESS_KEY: SECRET_KEY}
        """Those that it knows from its next start on."""

    @property
    def port(self) -> int:
        """Where S3 is spoken."""
        return self._ports["s3.port"]

    @property
    def pid(self) -> int:
        """The id of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start it and wait until it takes objects."""
        identities = [
            {
                "name": name,
                "credentials": [{"accessKey": name, "secretKey": secret}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            }
            for name, secret in self.keys.items()
        ]
        config = self.folder / "s3.json"
        config.write_text(json.dumps({"identities": identities}))
        data = self.folder / "store"
        data.mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(
                        tool("weed", "dev-ship"),
                        "server",
                        f"-dir={data}",
                        "-ip=127.0.0.1",
                        "-ip.bind=127.0.0.1",
                    ),
                    *("-filer", "-s3", f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
                    *("-s3.iam=false", "-master.telemetry=false", "-volume.minFreeSpacePercent=0"),
                    *(
                        "-master.volumePreallocate=false",
                        "-master.electionTimeout=1s",
                        "-master.heartbeatInterval=100ms",
                        *(f"-volume.max={self.volumes}", f"-master.volumeSizeLimitMB={self._volume_mb}"),
                    ),
                    *(f"-{name}={port}" for name, port in self._ports.items()),
                ],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._takes_objects, f"the store works: {self.folder / 'log'}", _START_S)
        return self

    def _takes_objects(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()[-3000:]
        import obstore

        try:
            obstore.put(self.store(BUCKET), "ready", b"1")
        except Exception:
            return False
        return True

    def stop(self) -> None:
        """End it, by its id."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def environ(self, port: int | None = None) -> dict[str, str]:
        """What the usual variables say; `port` is that of somebody in between."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port or self.port}",
            "AWS_REGION": "us-east-1",
        }

    def store(self, place: str) -> Any:
        """A bucket and prefix of it, as obstore sees it; a bucket is made by the first object."""
        return store(place, self.environ())

    def objects(self, place: str) -> dict[str, bytes]:
        """All objects below a bucket and prefix, and their bytes."""
        import obstore

        there = self.store(place)
        paths = [str(found["path"]) for page in obstore.list(there) for found in page]
        assert len(set(paths)) == len(paths)
        return {path: bytes(obstore.get(there, path).bytes()) for path in paths}

    def __enter__(self) -> Self:
        return self.start() if self._process is None else self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def store(place: str, environ: Mapping[str, str]) -> Any:
    """The same for the variables of any store."""
    from obstore.store import S3Store

    bucket, _, prefix = place.partition("/")
    return S3Store(
        bucket,
        prefix=prefix or None,
        endpoint=environ["AWS_ENDPOINT_URL"],
        access_key_id=environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
        region=environ["AWS_REGION"],
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
