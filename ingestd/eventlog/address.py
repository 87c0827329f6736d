"""Where a log is: `kafka://HOST:PORT[,HOST:PORT]/TOPIC`, `nats://HOST:PORT[,HOST:PORT]/SUBJECT`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ingestd.errors import UsageError

_PORTS: Final = {"kafka": 9092, "nats": 4222}
SCHEMES: Final = tuple(_PORTS)
CREDENTIALS: Final = {
    "kafka": "the file that kafka_config_file names",
    "nats": "NATS_CREDS, NATS_NKEY, NATS_USER and NATS_PASSWORD, or NATS_TOKEN",
}
_EXAMPLES: Final = {
    "kafka": "kafka://broker-1:9092,broker-2:9092/events",
    "nats": "nats://node-1:4222/events",
}
_SERVER: Final = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?")
_NAMES: Final = {
    # Apache Kafka, Topic.java: legal characters, and 249 of them at most.
    "kafka": re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}"),
    # NATS, subject names: tokens parted by dots; wildcards are for those who listen.
    "nats": re.compile(r"(?!\$)[^\s.*>/?#@]+(?:\.[^\s.*>/?#@]+)*"),
}


@dataclass(frozen=True, slots=True)
class Address:
    """A topic or a subject, and the servers to ask first; they tell of the others."""

    scheme: str
    servers: tuple[str, ...]
    """HOST:PORT each."""
    name: str

    def __str__(self) -> str:
        return f"{self.scheme}://{','.join(self.servers)}/{self.name}"


def is_log(url: str) -> bool:
    """True if it is meant for here."""
    return url.partition("://")[0] in _PORTS


def address(url: str, setting: str) -> Address:
    """The address that a setting or a flag gives.

    Raises UsageError, which quotes nothing that could be a secret.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in _PORTS:
        raise UsageError(f"{setting}: say {' or '.join(_EXAMPLES.values())}")
    example = _EXAMPLES[scheme]
    servers, _, name = rest.partition("/")
    # argv is for every user of the machine to see, and the URL is logged.
    if "@" in servers or "?" in name or "#" in name:
        raise UsageError(
            f"{setting}: nothing but the place belongs in a URL, such as {example}; credentials come from "
            f"{CREDENTIALS[scheme]}"
        )
    found = [_SERVER.fullmatch(server) for server in servers.split(",")]
    hosts = [f"{one['host']}:{one['port'] or _PORTS[scheme]}" for one in found if one is not None]
    if len(hosts) < len(found) or any(int(host.rpartition(":")[2]) > 65535 for host in hosts):
        raise UsageError(f"{setting}: say HOST:PORT, several parted by commas, such as {example}")
    if not _NAMES[scheme].fullmatch(name):
        word = "topic" if scheme == "kafka" else "subject"
        raise UsageError(f"{setting}: name a {word} after the servers, such as {example}")
    return Address(scheme, tuple(hosts), name)
