"""API keys: made once, shown once, kept only as SHA-256 digests in DATA/keys.toml, with their limits.

```toml
[[key]]
name = "default"
sha256 = "<64 hex digits>"
created = 2026-01-01T00:00:00Z
events_per_s = 1000             # optional, as are the next two; without a limit there is none
requests_per_s = 50
burst_s = 2                     # how many seconds' worth of either may be taken at once; 1 if not given
public = true                   # it may stand in a page: taken from a query as well; false if not given
```

A key has 256 random bits, so a plain SHA-256 cannot be searched backwards and needs no salt.
A lookup hashes what the client sent and asks a dict for the digest: how long that takes can
tell a guesser something about digests, never about keys.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import tomllib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from ingestd.errors import UsageError

FILE_NAME = "keys.toml"
KEY_PREFIX = "ing_"
BURST_S: Final = 1.0
"""A limit without `burst_s`: who sends each second's events in one request stays within it."""
LIMITS: Final = ("events_per_s", "requests_per_s", "burst_s")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEADER: Final = """\
# Made by 'ingestd key'. Digests only: a key is shown once, when it is made.
# Each change by 'ingestd key' writes this file anew, without comments of your own.
"""

PerS = Annotated[float, Meta(gt=0, le=1e9)]
BurstS = Annotated[float, Meta(ge=0.001, le=86400)]


class Key(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One API key as kept: never the key itself. `name` becomes an event's `source`."""

    name: Annotated[str, Meta(pattern=rf"^{_NAME.pattern}\Z")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    created: datetime
    events_per_s: PerS | None = None
    requests_per_s: PerS | None = None
    """Both count what all workers take together; None: no limit."""
    burst_s: BurstS | None = None
    public: bool = False
    """Anybody may read it in a page, so it is also taken from the query, and must have both limits."""


class _File(Struct, forbid_unknown_fields=True):
    key: list[Key] = []


class Keyring:
    """The keys by digest. `generation` changes with every load: what was looked up before is stale."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self.generation = 0
        self._by_digest: dict[bytes, Key] = {}
        self.replace(keys)

    def replace(self, keys: Iterable[Key]) -> None:
        """Take these keys instead; a key that is not among them stops at once."""
        self._by_digest = {bytes.fromhex(key.sha256): key for key in keys}
        self.generation += 1

    def find(self, secret: bytes) -> Key | None:
        """The key whose secret this is, or None."""
        return self._by_digest.get(hashlib.sha256(secret).digest())

    def __contains__(self, key: Key) -> bool:
        """True for a key that is known with this name and these limits."""
        return self._by_digest.get(bytes.fromhex(key.sha256)) == key

    def __len__(self) -> int:
        return len(self._by_digest)


def parse(text: bytes, where: str) -> list[Key]:
    """Read the text of keys.toml. Raises UsageError that names `where`, the key and what is wrong."""
    table: dict[str, Any] = {}
    try:
        table = tomllib.loads(text.decode())
        keys = msgspec.convert(table, _File).key
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as e:
        raise UsageError(f"{where}: {_whose(table, str(e))}{e}") from None
    names: set[str] = set()
    for key in keys:
        if key.name in names:
            raise UsageError(f"{where}: two keys are named '{key.name}'; a name may stand once")
        names.add(key.name)
        check(key, where)
    return keys


def check(key: Key, where: str) -> None:
    """Raises UsageError if the key is public without limits, or has a burst of nothing."""
    if key.public and (key.events_per_s is None or key.requests_per_s is None):
        raise UsageError(
            f"{where}: key '{key.name}': a public key needs events_per_s and requests_per_s, "
            "for anybody can send with it"
        )
    if key.burst_s is not None and key.events_per_s is None and key.requests_per_s is None:
        raise UsageError(
            f"{where}: key '{key.name}': burst_s limits nothing without events_per_s or requests_per_s"
        )


def _whose(table: dict[str, Any], problem: str) -> str:
    """The name of the key that msgspec's `$.key[3]` means, if it has one."""
    place = re.search(r"\$\.key\[(\d+)\]", problem)
    keys = table.get("key")
    key = keys[int(place[1])] if place and isinstance(keys, list) else None
    name = key.get("name") if isinstance(key, dict) else None
    return f"key {name!r}: " if isinstance(name, str) and name else ""


def render(keys: Iterable[Key]) -> bytes:
    """The text of keys.toml. Names and digests have no character that TOML would need escaped."""
    parts = [_HEADER]
    for key in keys:
        parts.append(
            f'\n[[key]]\nname = "{key.name}"\nsha256 = "{key.sha256}"\n'
            f"created = {key.created.astimezone(UTC).isoformat(timespec='seconds')}\n"
        )
        limits = {name: getattr(key, name) for name in LIMITS}
        parts += [f"{name} = {number(value)}\n" for name, value in limits.items() if value is not None]
        if key.public:
            parts.append("public = true\n")
    return "".join(parts).encode()


def limit_of(text: str, name: str, where: str) -> float | None:
    """The value of the limit `name` as a person writes it; 'none': no limit. Raises UsageError."""
    if text == "none":
        return None
    try:
        return msgspec.convert(text, BurstS if name == "burst_s" else PerS, strict=False)
    except msgspec.ValidationError as e:
        raise UsageError(f"{where}: {text!r} is not right: {e}, or 'none'") from None


def number(value: float) -> str:
    """A rate or a time as a person writes it, in TOML and elsewhere: 1000, 0.5."""
    return str(int(value)) if value == int(value) else repr(value)


def limits_line(key: Key) -> str:
    """What the key may do, in a line for people."""
    given = [(name, getattr(key, name)) for name in ("events_per_s", "requests_per_s")]
    shown = ["public"] if key.public else []
    shown += [f"{name} {number(value)}" for name, value in given if value is not None]
    return ", ".join([*shown, f"burst_s {number(key.burst_s or BURST_S)}"]) if shown else "no limits"


def make(name: str) -> tuple[Key, str]:
    """A new key of this name and its secret, which is nowhere else. Raises UsageError for a bad name."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"key name {name!r}: use 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first"
        )
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return Key(name=name, sha256=digest, created=datetime.now(UTC)), secret
