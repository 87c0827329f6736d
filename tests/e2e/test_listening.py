"""Where the real process listens, who may connect, and whom it takes for the peer."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import stat
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.messages import head, post
from tests.support import certificates
from tests.support.server import DEADLINE_S, EVENT, Answer, Client, Server, run

FORWARDED: Final = {"X-Forwarded-For": "203.0.113.9, 198.51.100.7"}


class Activated(Server):
    """A server that gets its sockets as from systemd, with these names."""

    def __init__(self, folder: Path, sockets: dict[str, socket.socket], **settings: str) -> None:
        super().__init__(folder, **settings)
        fds = [one.fileno() for one in sockets.values()]
        self.inherited = tuple(fds)
        # Out of the way first: one may have a number that another one is to get.
        moves = [f"exec {50 + i}<&{fd}" for i, fd in enumerate(fds)]
        moves += [f"exec {3 + i}<&{50 + i} {50 + i}<&-" for i in range(len(fds))]
        names = shlex.quote(":".join(sockets))
        self.BEFORE = (
            "bash",
            "-c",
            f"{'; '.join(moves)}; export LISTEN_PID=$$ LISTEN_FDS={len(fds)} LISTEN_FDNAMES={names}; "
            'exec "$@"',
            "bash",
        )


def post_over(path: Path, body: bytes, key: str, **headers: str) -> bytes:
    """The answer to an event on a unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE_S)
        client.connect(str(path))
        lines = [f"{name}: {value}" for name, value in headers.items()]
        client.sendall(
            head("POST /v1/track HTTP/1.1", f"Content-Length: {len(body)}", *lines, key=key) + body
        )
        return client.recv(10_000)


def test_listen_may_stand_several_times(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    run("key", "add", "web", cwd=tmp_path)
    server = Server(tmp_path, "--listen", "127.0.0.1:0", "--listen", f"[::1]:0,unix:{path}")
    with server:
        assert re.search(
            rf"listens on http://127\.0\.0\.1:\d+, http://\[::1\]:\d+, unix:{path}, ", server.log
        )


@pytest.mark.parametrize(("mode", "bits"), [(None, 0o660), ("0600", 0o600), ("666", 0o666)])
def test_who_may_connect_to_a_unix_socket_is_a_setting(tmp_path: Path, mode: str | None, bits: int) -> None:
    path = tmp_path / "socket"
    settings = {} if mode is None else {"unix_socket_mode": mode}
    before = os.umask(0o077)
    try:
        with Server(tmp_path, listen=f"unix:{path}", **settings) as server:
            assert stat.S_IMODE(path.stat().st_mode) == bits
            assert post_over(path, json.dumps(EVENT).encode(), server.key).startswith(b"HTTP/1.1 200")
    finally:
        os.umask(before)


def test_a_socket_of_systemd_speaks_tls_if_it_is_named_https(tmp_path: Path) -> None:
    pair = certificates.make(tmp_path)
    sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in ("http", "https")}
    ports = {name: one.getsockname()[1] for name, one in sockets.items()}
    server = Activated(tmp_path, sockets, **pair.settings)
    server.launch()
    for one in sockets.values():
        one.close()
    with server:
        server.wait_for_log(
            f"listens on http://127.0.0.1:{ports['http']}, https://127.0.0.1:{ports['https']}, "
        )
        raw = socket.create_connection(("127.0.0.1", ports["https"]), timeout=DEADLINE_S)
        with pair.client().wrap_socket(raw, server_hostname="localhost") as client:
            client.sendall(post(json.dumps(EVENT).encode(), server.key))
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
        with Client("127.0.0.1", ports["http"], server.key) as plain:
            assert plain.post("/v1/track", EVENT).status == 200


def refused(server: Server) -> Answer:
    """What is logged is an error."""
    with server.client() as client:
        return client.post("/v1/track", b"{}", headers=FORWARDED)


@pytest.mark.parametrize(
    ("trusted", "shown"),
    [
        ("", r"127\.0\.0\.1:\d+"),
        ("10.0.0.0/8", r"127\.0\.0\.1:\d+"),
        ("127.0.0.0/8", r"198\.51\.100\.7"),
        ("127.0.0.1, 198.51.100.0/24", r"203\.0\.113\.9"),
    ],
)
def test_a_proxy_names_its_clients_only_if_it_is_trusted(tmp_path: Path, trusted: str, shown: str) -> None:
    with Server(tmp_path, trusted_proxies=trusted) as server:
        assert refused(server).status == 400
        server.wait_for_log("status=400")
        assert re.search(rf"status=400 .* peer={shown}$", server.log, re.MULTILINE)


@pytest.mark.parametrize(("trusted", "shown"), [("", "unix"), ("unix", "198.51.100.7")])
def test_a_proxy_on_a_unix_socket_is_trusted_by_that_name(tmp_path: Path, trusted: str, shown: str) -> None:
    path = tmp_path / "socket"
    with Server(tmp_path, listen=f"unix:{path}", trusted_proxies=trusted) as server:
        post_over(path, b"{}", server.key, **FORWARDED)
        server.wait_for_log(f"peer={shown}\n")


def test_a_proxy_that_is_none_ends_the_start(tmp_path: Path) -> None:
    server = Server(tmp_path, trusted_proxies="proxy.example")
    server.launch()
    assert server.wait() == 2
    assert "trusted_proxies: 'proxy.example' does not appear to be an IPv4 or IPv6 network" in server.log
