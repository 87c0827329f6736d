"""The keys on disk: read, changed in one step, and the first key of a new directory.

They are in DATA/keys.toml, unless systemd hands them over as a credential (`LoadCredential=`): whoever
runs the server keeps that file, so it is only read here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from ingestd import keys
from ingestd.errors import UsageError
from ingestd.keys import Key
from ingestd.storage.disk import Disk

CREDENTIAL: Final = "ingestd-keys.toml"
"""The name of the credential."""

Limits = Mapping[str, float | None]
"""Limits by their names in keys.toml; None: no such limit."""
_NO_LIMITS: Final[Limits] = {}


def path(disk: Disk, data_dir: Path) -> Path:
    """Where the keys are: the credential if there is one, else in the data directory."""
    return _credential(disk) or data_dir / keys.FILE_NAME


def _credential(disk: Disk) -> Path | None:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    found = Path(directory, CREDENTIAL) if directory else None
    return found if found is not None and disk.exists(found) else None


def load(disk: Disk, data_dir: Path) -> list[Key]:
    """The keys; none if there is no file yet. Raises UsageError for a bad file, StorageError."""
    file = path(disk, data_dir)
    return keys.parse(disk.read(file), str(file)) if disk.exists(file) else []


def add(disk: Disk, data_dir: Path, name: str, limits: Limits = _NO_LIMITS, *, public: bool = False) -> str:
    """Make a key of this name and return it, for the only time. Raises UsageError if it exists."""
    _require_own(disk)
    disk.make_directory(data_dir)
    with disk.alone(data_dir):
        known = load(disk, data_dir)
        if any(key.name == name for key in known):
            raise UsageError(f"a key named '{name}' exists; revoke it first, or choose another name")
        key, secret = keys.make(name)
        _replace(disk, data_dir, [*known, msgspec.structs.replace(key, public=public, **limits)])
    return secret


def limit(disk: Disk, data_dir: Path, name: str, limits: Limits) -> None:
    """Change these limits of the key of this name, and leave the others. Raises UsageError."""
    _require_own(disk)
    with disk.alone(_existing(disk, data_dir, name)):
        known = load(disk, data_dir)
        at = known.index(_named(known, name))
        key = msgspec.structs.replace(known[at], **limits)
        if key.events_per_s is None and key.requests_per_s is None and "burst_s" not in limits:
            key = msgspec.structs.replace(key, burst_s=None)
        known[at] = key
        _replace(disk, data_dir, known)


def revoke(disk: Disk, data_dir: Path, name: str) -> None:
    """Remove the key of this name; a running server follows within about a second. Raises UsageError."""
    _require_own(disk)
    with disk.alone(_existing(disk, data_dir, name)):
        known = load(disk, data_dir)
        known.remove(_named(known, name))
        _replace(disk, data_dir, known)


def _require_own(disk: Disk) -> None:
    credential = _credential(disk)
    if credential is not None:
        raise UsageError(
            f"the keys come from {credential}, a systemd credential that ingestd only reads; "
            "change the file that LoadCredential= names in the unit"
        )


def _existing(disk: Disk, data_dir: Path, name: str) -> Path:
    if not disk.is_directory(data_dir):
        raise UsageError(f"{data_dir}: no such directory, so no key is named '{name}'")
    return data_dir


def _named(known: list[Key], name: str) -> Key:
    for key in known:
        if key.name == name:
            return key
    raise UsageError(
        f"no key is named '{name}'; the keys are: {', '.join(key.name for key in known) or 'none'}"
    )


def _replace(disk: Disk, data_dir: Path, known: list[Key]) -> None:
    file = path(disk, data_dir)
    for key in known:
        keys.check(key, str(file))
    disk.replace_file(file, keys.render(known))


def ensure_one(disk: Disk, data_dir: Path) -> str | None:
    """Make the key 'default' where there has never been one; returns it, or None."""
    return None if disk.exists(path(disk, data_dir)) else add(disk, data_dir, "default")


def show_first(secret: str, url: str) -> None:
    """Print the first key, once, with a line that can be pasted into a shell."""
    if url.startswith("unix:"):
        target = f"--unix-socket {url.removeprefix('unix:')} http://localhost/v1/track"
    else:
        scheme, _, address = url.partition("://")
        host, _, port = address.rpartition(":")
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
        target = f"{scheme}://{host}:{port}/v1/track"
    event = '{"event":"signup","properties":{"plan":"basic"},"timestamp":"2025-10-29T22:00:00.778Z"}'
    print(
        f"\nNo key yet, so one named 'default' was made. It is shown only now:\n\n    {secret}\n\n"
        f"Send a first event:\n\n    curl -H 'Authorization: Bearer {secret}' -d '{event}' {target}\n",
        file=sys.stderr,
        flush=True,
    )
