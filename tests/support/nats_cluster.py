"""A real NATS cluster with JetStream: a `nats-server` for each node, on free ports, its store in a folder."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

from tests.support.certificates import Pair
from tests.support.server import wait_until
from tests.support.tools import tool

if TYPE_CHECKING:
    from nats.js import JetStreamContext
    from nats.js.api import StreamInfo

_START_S: Final = 30.0
_ANSWER_S: Final = 30.0
"""How long a helper asks again while nodes elect a leader."""
UNAVAILABLE: Final = 10008
"""The code of JetStream's refusal while it has no leader; other refusals are answers."""
_FETCH: Final = 1000
"""Messages that are asked for at once."""

Message = tuple[str, dict[str, str], bytes]
"""Its subject, headers and payload."""
_T = TypeVar("_T")


class NatsCluster:
    """So many nodes, which know each other; with `with`, no process outlives the block."""

    def __init__(
        self,
        folder: Path,
        nodes: int = 3,
        *,
        user: str = "",
        password: str = "",
        payload_bytes_max: int = 1 << 20,
        tls: Pair | None = None,
    ) -> None:
        """Without `user` anybody may do anything. `payload_bytes_max` is the server's own default."""
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.user = user
        self.password = password
        self.payload_bytes_max = payload_bytes_max
        self.tls = tls
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * nodes
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3 * nodes)]
            free = [int(one.getsockname()[1]) for one in sockets]
        self.ports = free[:nodes]
        """Where clients are heard."""
        self._routes, self._monitors = free[nodes : 2 * nodes], free[2 * nodes :]

    @property
    def address(self) -> str:
        """HOST:PORT of every node, with commas between."""
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def pid(self, node: int) -> int:
        """The id of a running node's process."""
        process = self._processes[node]
        assert process is not None, f"node {node} does not run"
        return process.pid

    def start(self, node: int, *, wait: bool = True) -> None:
        """Start a node, again on its ports and store; wait until it has caught up, which takes a quorum."""
        assert self._processes[node] is None, f"node {node} runs already"
        config = self.folder / f"n{node}.conf"
        config.write_text(self._config(node))
        with self._log(node).open("ab") as log:
            self._processes[node] = subprocess.Popen(
                [tool("nats-server", "dev-ship"), "-c", str(config)],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            self._wait(node)

    def kill(self, node: int) -> None:
        """kill -9."""
        process = self._processes[node]
        assert process is not None, f"node {node} does not run"
        process.kill()
        process.wait()
        self._processes[node] = None

    def freeze(self, node: int) -> None:
        """Stop it where it is (SIGSTOP): its connections stay, and nobody answers."""
        os.kill(self.pid(node), signal.SIGSTOP)

    def thaw(self, node: int) -> None:
        """Let it go on (SIGCONT)."""
        os.kill(self.pid(node), signal.SIGCONT)

    def stop_all(self) -> None:
        """kill -9 of all that run."""
        for node, process in enumerate(self._processes):
            if process is not None:
                self.kill(node)

    def restore(self) -> None:
        """Let all nodes run, and wait until they have caught up."""
        for node, process in enumerate(self._processes):
            if process is None:
                self.start(node, wait=False)
            else:
                self.thaw(node)
        for node in range(len(self._processes)):
            self._wait(node)

    def make_stream(
        self,
        name: str,
        subjects: Sequence[str],
        replicas: int | None = None,
        *,
        duplicate_window_s: float = 120,
        max_bytes: int | None = None,
    ) -> None:
        """Make a stream, on all nodes if `replicas` does not say how many; a full one refuses what is new."""
        from nats.js.api import DiscardPolicy, StorageType, StreamConfig

        async def make(jetstream: JetStreamContext) -> None:
            await jetstream.add_stream(
                StreamConfig(
                    name=name,
                    subjects=list(subjects),
                    num_replicas=replicas or len(self.ports),
                    duplicate_window=duplicate_window_s,
                    max_bytes=max_bytes,
                    discard=DiscardPolicy.NEW,
                    storage=StorageType.FILE,
                )
            )

        self._ask(make)

    def delete_stream(self, name: str) -> None:
        """Delete a stream and what is in it."""

        async def delete(jetstream: JetStreamContext) -> None:
            await jetstream.delete_stream(name)

        self._ask(delete)

    def messages(self, stream: str) -> list[Message]:
        """All that a stream holds, in its order."""

        async def read(jetstream: JetStreamContext) -> list[Message]:
            state = (await jetstream.stream_info(stream)).state
            return await _read(jetstream, stream, state.messages) if state.messages else []

        return self._ask(read)

    def leader(self, stream: str) -> int:
        """Which node leads the stream: the one that clients wait for."""

        async def look(jetstream: JetStreamContext) -> StreamInfo:
            info = await jetstream.stream_info(stream)
            if info.cluster is None or not info.cluster.leader:
                raise TimeoutError(f"{stream} has no leader")
            return info

        info = self._ask(look)
        assert info.cluster is not None
        assert info.cluster.leader is not None
        return int(info.cluster.leader.removeprefix("n"))

    def _log(self, node: int) -> Path:
        return self.folder / f"n{node}.log"

    def _config(self, node: int) -> str:
        lines = [
            f'server_name: "n{node}"',
            f'listen: "127.0.0.1:{self.ports[node]}"',
            f'http: "127.0.0.1:{self._monitors[node]}"',
            f"max_payload: {self.payload_bytes_max}",
            f'jetstream {{ store_dir: "{self.folder}/n{node}" }}',
        ]
        if len(self.ports) > 1:
            routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in self._routes)
            lines.append(
                f'cluster {{ name: tests, listen: "127.0.0.1:{self._routes[node]}", routes: [{routes}] }}'
            )
        if self.user:
            lines.append(f'authorization {{ user: "{self.user}", password: "{self.password}" }}')
        if self.tls is not None:
            lines.append(f'tls {{ cert_file: "{self.tls.cert}", key_file: "{self.tls.key}" }}')
        return "\n".join(lines) + "\n"

    def _wait(self, node: int) -> None:
        wait_until(lambda: self._is_ready(node), f"node {node} is ready: {self._log(node)}", _START_S)

    def _is_ready(self, node: int) -> bool:
        """True if the node has caught up, and knows who leads all nodes."""
        process = self._processes[node]
        assert process is not None
        assert process.poll() is None, self._log(node).read_text()[-3000:]
        place = f"http://127.0.0.1:{self._monitors[node]}"
        try:
            with urllib.request.urlopen(f"{place}/healthz", timeout=1):
                pass
            with urllib.request.urlopen(f"{place}/jsz", timeout=1) as answer:
                cluster = json.load(answer).get("meta_cluster", {})
        except OSError:
            return False
        if len(self.ports) == 1:
            return True
        return bool(cluster.get("leader")) and int(cluster.get("cluster_size", 0)) == len(self.ports)

    def _ask(self, work: Callable[[JetStreamContext], Awaitable[_T]]) -> _T:
        """What `work` gives, on a loop of its own; asked again while nodes are silent or without a leader."""
        # A test may have a loop already, and a thread has one at most.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, self._again(work)).result()

    async def _again(self, work: Callable[[JetStreamContext], Awaitable[_T]]) -> _T:
        from nats.errors import Error
        from nats.js.errors import APIError

        end = time.monotonic() + _ANSWER_S
        while True:
            try:
                return await self._connected(work)
            except (Error, OSError, TimeoutError) as error:
                refused = isinstance(error, APIError) and error.err_code != UNAVAILABLE
                if refused or time.monotonic() > end:
                    raise
                await asyncio.sleep(0.05)

    async def _connected(self, work: Callable[[JetStreamContext], Awaitable[_T]]) -> _T:
        import nats

        async def silent(_: Exception) -> None:
            """A node that is down is no news."""

        client = await nats.connect(
            [f"nats://127.0.0.1:{port}" for port in self.ports],
            user=self.user or None,
            password=self.password or None,
            tls=ssl.create_default_context(cafile=self.tls.cert) if self.tls else None,
            connect_timeout=1,
            max_reconnect_attempts=1,
            error_cb=silent,
        )
        try:
            return await work(client.jetstream(timeout=2))
        finally:
            await client.close()

    def __enter__(self) -> Self:
        try:
            for node, process in enumerate(self._processes):
                if process is None:
                    self.start(node, wait=False)
            for node in range(len(self._processes)):
                self._wait(node)
        except BaseException:
            self.stop_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()


async def _read(jetstream: JetStreamContext, stream: str, count: int) -> list[Message]:
    """So many messages, by a consumer that is gone with its connection."""
    from nats.js.api import AckPolicy, ConsumerConfig

    config = ConsumerConfig(ack_policy=AckPolicy.NONE, mem_storage=True, num_replicas=1, inactive_threshold=5)
    subscription = await jetstream.pull_subscribe("", stream=stream, config=config)
    found: list[Message] = []
    while len(found) < count:
        for message in await subscription.fetch(min(_FETCH, count - len(found)), timeout=5):
            found.append((message.subject, dict(message.headers or {}), message.data))
    await subscription.unsubscribe()
    return found
