"""API keys: made once, shown once, kept only as SHA-256 digests in DATA/keys.toml.

```toml
[[key]]
name = "default"
sha256 = "<64 hex digits>"
created = 2026-01-01T00:00:00Z
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
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from ingestd.errors import UsageError

FILE_NAME = "keys.toml"
KEY_PREFIX = "ing_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Key(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One API key as kept: never the key itself. `name` becomes an event's `source`."""

    name: Annotated[str, Meta(pattern=rf"^{_NAME.pattern}\Z")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    created: datetime


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

    def __len__(self) -> int:
        return len(self._by_digest)


def parse(text: bytes, where: str) -> list[Key]:
    """Read the text of keys.toml. Raises UsageError that names `where` and what is wrong."""
    try:
        keys = msgspec.convert(tomllib.loads(text.decode()), _File).key
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as e:
        raise UsageError(f"{where}: {e}") from None
    names = [key.name for key in keys]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{where}: two keys are named '{name}'; a name may stand once")
    return keys


def render(keys: Iterable[Key]) -> bytes:
    """The text of keys.toml. Names and digests have no character that TOML would need escaped."""
    parts = ["# Made by 'ingestd key'. Digests only: a key is shown once, when it is made.\n"]
    parts += [
        f'\n[[key]]\nname = "{key.name}"\nsha256 = "{key.sha256}"\n'
        f"created = {key.created.astimezone(UTC).isoformat(timespec='seconds')}\n"
        for key in keys
    ]
    return "".join(parts).encode()


def make(name: str) -> tuple[Key, str]:
    """A new key of this name and its secret, which is nowhere else. Raises UsageError for a bad name."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"key name {name!r}: use 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first"
        )
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return Key(name=name, sha256=digest, created=datetime.now(UTC)), secret
