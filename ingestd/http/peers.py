"""Who is at the other end, as the log tells it; nothing else depends on it.

A proxy says whom it speaks for in X-Forwarded-For or Forwarded (RFC 7239). Anybody can send these,
so they count only as far as those who added to them are trusted: read from the right, the first
address that is not a trusted proxy's is the client's.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from ingestd.errors import UsageError

UNIX: Final = "unix"
_HOPS_MAX: Final = 10
"""Proxies behind proxies; a chain that is longer was made up."""

_Address = IPv4Address | IPv6Address


class Peers:
    """Knows which proxies are trusted."""

    def __init__(self, trusted: str) -> None:
        """Networks and addresses parted by commas, and `unix` for unix sockets. Raises UsageError."""
        self._trusts_unix = False
        self._networks: list[IPv4Network | IPv6Network] = []
        for text in filter(None, map(str.strip, trusted.split(","))):
            if text == UNIX:
                self._trusts_unix = True
                continue
            try:
                self._networks.append(ip_network(text))
            except ValueError as e:
                raise UsageError(
                    f"trusted_proxies: {e}; say networks such as 10.0.0.0/8, or unix, parted by commas"
                ) from None

    def shown(self, peername: object, forwarded: bytes) -> str | None:
        """The client's address and port, or what a trusted proxy says of it; None if nobody knows."""
        if not isinstance(peername, tuple):
            # A unix socket's clients have no name.
            said = self._told(forwarded) if self._trusts_unix and forwarded else None
            return str(said) if said is not None else UNIX if peername is not None else None
        host, port = peername[:2]
        if forwarded and self._networks and (peer := _parsed(host)) is not None and self._trusts(peer):
            said = self._told(forwarded)
            if said is not None:
                return str(said)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _told(self, forwarded: bytes) -> _Address | None:
        """The last address that somebody trusted has added."""
        told = None
        hops = [hop for hop in forwarded.decode("latin-1").split(",") if hop.strip()]
        for hop in reversed(hops[-_HOPS_MAX:]):
            address = _of_hop(hop)
            if address is None:
                break
            told = address
            if not self._trusts(address):
                break
        return told

    def _trusts(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def _of_hop(hop: str) -> _Address | None:
    """The address in an element of X-Forwarded-For or of Forwarded, with a port or without."""
    if "=" in hop:
        pairs = [pair.partition("=") for pair in hop.split(";")]
        found = [value for name, _, value in pairs if name.strip().lower() == "for"]
        hop = found[0].strip().strip('"') if found else ""
    hop = hop.strip()
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    return _parsed(hop)


def _parsed(text: str) -> _Address | None:
    # After a % anything may stand.
    if "%" in text:
        text = text.partition("%")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
