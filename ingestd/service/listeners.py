"""The sockets that clients connect to: made and kept by the supervisor, accepted from by the workers.

On TCP every worker has a socket of its own for each address (SO_REUSEPORT: the kernel spreads the
connections, and wakes one worker for each). The supervisor keeps them all open, so what connects
while a worker is away waits in its socket's queue for the next one. A unix socket is one that all
workers share.

What systemd hands over is parted among the workers by address, and shared where an address has fewer
sockets than there are workers. Sharing costs: all of them wake for each connection, and who is first takes
what there is. Of 64 connections that four workers shared, one got 47, one none.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ingestd.config import Settings
from ingestd.errors import UsageError
from ingestd.service import certificates

UNIX: Final = "unix:"
TLS: Final = "tls:"
BACKLOG: Final = 4096
"""Connections that wait to be accepted; the kernel may allow fewer (net.core.somaxconn)."""
_LISTEN: Final = "--listen"
_ADMIN: Final = "--admin"
_FIRST_FD: Final = 3
"""Where systemd's sockets begin (sd_listen_fds(3))."""
_TLS_NAME: Final = "https"
"""What the unit of a socket that speaks TLS says as its FileDescriptorName."""


@dataclass(slots=True)
class Listener:
    """One address and its sockets: some for each worker, or one for all."""

    address: str
    """As it is shown: HOST:PORT or unix:PATH."""
    sockets: list[socket.socket] = field(default_factory=list)
    is_ours: bool = True
    """False for a socket that systemd made."""
    is_tls: bool = False

    @property
    def url(self) -> str:
        """The same for people and curl."""
        if self.address.startswith(UNIX):
            return self.address
        return f"{'https' if self.is_tls else 'http'}://{self.address}"

    def of(self, worker: int, workers: int) -> list[int]:
        """The descriptors of this worker's part of the sockets, or of one that it shares."""
        own = self.sockets[worker::workers] or [self.sockets[worker % len(self.sockets)]]
        return [one.fileno() for one in own]

    def close(self) -> None:
        """Listen no more; a unix socket's name goes as well."""
        for one in self.sockets:
            one.close()
        if self.is_ours and self.address.startswith(UNIX):
            with suppress(OSError):
                os.unlink(self.address.removeprefix(UNIX))


def split(listen: str) -> list[str]:
    """The addresses of a setting, which commas part. Raises UsageError."""
    addresses = [address.strip() for address in listen.split(",")]
    for address in addresses:
        if not address.startswith(UNIX):
            parse(address)
        elif address == UNIX:
            raise _bad(address)
    return addresses


def parse(address: str, flag: str = _LISTEN) -> tuple[str, int]:
    """HOST:PORT, with brackets around an IPv6 host, perhaps after tls:. Raises UsageError."""
    host, colon, port = address.removeprefix(TLS).rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise _bad(address, flag)
    return host.strip("[]"), int(port)


def _bad(address: str, flag: str = _LISTEN) -> UsageError:
    return UsageError(
        f"{flag} {address}: say HOST:PORT, such as 127.0.0.1:8080, or tls:HOST:PORT, or unix:PATH"
    )


def open_all(settings: Settings, workers: int, environ: dict[str, str]) -> list[Listener]:
    """Listen where the setting says, or on what systemd hands over. Raises UsageError."""
    done = _handed_over(environ)
    if done:
        _check(done, settings)
        return done
    try:
        for address in split(settings.listen):
            if address.startswith(UNIX):
                done += _open_unix(address, int(settings.unix_socket_mode, 8))
            else:
                done += _open_tcp(address, workers)
        _check(done, settings)
    except BaseException:
        for listener in done:
            listener.close()
        raise
    return done


def _check(listeners: list[Listener], settings: Settings) -> None:
    """There is a certificate if and only if it is used. Raises UsageError."""
    if any(listener.is_tls for listener in listeners):
        certificates.context(settings)
    elif settings.tls_cert_file:
        raise UsageError(
            f"tls_cert_file {settings.tls_cert_file}: no address speaks TLS; say tls:HOST:PORT in listen"
        )


def open_admin(settings: Settings) -> list[Listener]:
    """One socket for each address of `admin`, which all workers share. Raises UsageError."""
    address = settings.admin
    if not address:
        return []
    if "," in address or address.startswith(TLS):
        raise UsageError(f"{_ADMIN} {address}: say one address, HOST:PORT or unix:PATH")
    if address.startswith(UNIX):
        return _open_unix(address, int(settings.unix_socket_mode, 8), _ADMIN)
    return _open_tcp(address, 1, _ADMIN)


def _handed_over(environ: dict[str, str]) -> list[Listener]:
    """The sockets of socket activation, if they are meant for this process."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    listeners: dict[tuple[str, bool], Listener] = {}
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    for i in range(int(environ.get("LISTEN_FDS", "0"))):
        one = socket.socket(fileno=_FIRST_FD + i)
        one.set_inheritable(False)
        address, is_tls = shown(one), names[i : i + 1] == [_TLS_NAME]
        listener = Listener(address, is_ours=False, is_tls=is_tls)
        listeners.setdefault((address, is_tls), listener).sockets.append(one)
    return list(listeners.values())


def shown(one: socket.socket) -> str:
    """The address of a listening socket."""
    name = one.getsockname()
    if one.family == socket.AF_UNIX:
        return UNIX + os.fsdecode(name)
    return f"{f'[{name[0]}]' if ':' in name[0] else name[0]}:{name[1]}"


def _open_tcp(address: str, workers: int, flag: str = _LISTEN) -> list[Listener]:
    host, port = parse(address, flag)
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as e:
        raise UsageError(f"{flag} {address}: not a host name: {e}") from e
    if not host:
        # All of IPv4, as the address is shown; [::]:PORT says all of IPv6.
        found = [info for info in found if info[0] == socket.AF_INET] or found
    listeners: list[Listener] = []
    for family, _, _, _, name in dict.fromkeys(found):
        try:
            # With SO_REUSEPORT alone a second server on this port would take half of the connections.
            _bind(family, name, shares=False).close()
            first = _bind(family, name, shares=workers > 1)
            listener = Listener("", [first], is_tls=address.startswith(TLS))
            listeners.append(listener)
            while len(listener.sockets) < workers:
                listener.sockets.append(_bind(family, first.getsockname(), shares=True))
            for one in listener.sockets:
                one.listen(BACKLOG)
        except OSError as e:
            for listener in listeners:
                listener.close()
            raise UsageError(f"{flag} {address}: {e.strerror or e}") from e
        listener.address = shown(first)
        if not port:
            # Any port: that of the first address found.
            break
    return listeners


def _bind(family: int, name: tuple[object, ...], *, shares: bool) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(name)
    except BaseException:
        one.close()
        raise
    return one


def _open_unix(address: str, mode: int, flag: str = _LISTEN) -> list[Listener]:
    path = address.removeprefix(UNIX)
    _remove_stale(path, flag)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        one.bind(path)
        # Until it listens nobody can connect, so nobody can before this.
        os.chmod(path, mode)
        one.listen(BACKLOG)
    except OSError as e:
        one.close()
        raise UsageError(f"{flag} {address}: {e.strerror or e}") from e
    return [Listener(address, [one])]


def _remove_stale(path: str, flag: str) -> None:
    """A socket that nobody listens on is left over from a crash; anything else at `path` stays."""
    if not os.path.exists(path):
        return
    if not stat.S_ISSOCK(Path(path).stat().st_mode):
        raise UsageError(f"{flag} unix:{path}: a file that is no socket is there")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            return
    raise UsageError(f"{flag} unix:{path}: another process listens there")
