"""DATA/keys.toml on disk: read, changed in one step, and the first key of a new directory."""

from __future__ import annotations

import sys
from pathlib import Path

from ingestd import keys
from ingestd.errors import UsageError
from ingestd.keys import Key
from ingestd.storage.disk import Disk


def path(data_dir: Path) -> Path:
    """Where the keys of a data directory are."""
    return data_dir / keys.FILE_NAME


def load(disk: Disk, data_dir: Path) -> list[Key]:
    """The keys; none if there is no file yet. Raises UsageError for a bad file, StorageError."""
    if not disk.exists(path(data_dir)):
        return []
    return keys.parse(disk.read(path(data_dir)), str(path(data_dir)))


def add(disk: Disk, data_dir: Path, name: str) -> str:
    """Make a key of this name and return it, for the only time. Raises UsageError if it exists."""
    disk.make_directory(data_dir)
    with disk.alone(data_dir):
        known = load(disk, data_dir)
        if any(key.name == name for key in known):
            raise UsageError(f"a key named '{name}' exists; revoke it first, or choose another name")
        key, secret = keys.make(name)
        disk.replace_file(path(data_dir), keys.render([*known, key]))
    return secret


def revoke(disk: Disk, data_dir: Path, name: str) -> None:
    """Remove the key of this name; a running server follows within about a second. Raises UsageError."""
    if not disk.is_directory(data_dir):
        raise UsageError(f"{data_dir}: no such directory, so no key is named '{name}'")
    with disk.alone(data_dir):
        known = load(disk, data_dir)
        rest = [key for key in known if key.name != name]
        if len(rest) == len(known):
            names = ", ".join(key.name for key in known) or "none"
            raise UsageError(f"no key is named '{name}'; the keys are: {names}")
        disk.replace_file(path(data_dir), keys.render(rest))


def ensure_one(disk: Disk, data_dir: Path) -> str | None:
    """Make the key 'default' where there has never been one; returns it, or None."""
    return None if disk.exists(path(data_dir)) else add(disk, data_dir, "default")


def show_first(secret: str, listen: str) -> None:
    """Print the first key, once, with a line that can be pasted into a shell."""
    if listen.startswith("unix:"):
        target = f"--unix-socket {listen.removeprefix('unix:')} http://localhost/v1/track"
    else:
        host, _, port = listen.rpartition(":")
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
        target = f"http://{host}:{port}/v1/track"
    event = '{"event":"signup","properties":{"plan":"basic"},"timestamp":"2025-10-29T22:00:00.778Z"}'
    print(
        f"\nNo key yet, so one named 'default' was made. It is shown only now:\n\n    {secret}\n\n"
        f"Send a first event:\n\n    curl -H 'Authorization: Bearer {secret}' -d '{event}' {target}\n",
        file=sys.stderr,
        flush=True,
    )
