"""Where to, as the settings say it: the URL, what it is called on disk, and the names of the objects."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Final
from urllib.parse import urlsplit

from ingestd.errors import StorageError, UsageError
from ingestd.eventlog.address import SCHEMES, Address, address, is_log
from ingestd.storage.segment import NAME

STAGING: Final = "_shipping"
"""Below the prefix: large objects until they are whole. Readers of Hive-like folders skip a leading _."""

_FIELDS: Final = ("date", "hour", "node", "name", "sha256")
_MUST: Final = ("name", "sha256")
_KEY_BYTES_MAX: Final = 900
"""S3 allows 1,024 for prefix and name together."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A scheme of URLs: what the store is told by."""

    is_remote: bool
    credentials: str
    """The variables to look at when it refuses."""
    endpoint: str
    """The variable that says where the store listens, if it is not that of the cloud."""


KINDS: Final = {
    "s3": Kind(True, "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"),
    "gs": Kind(True, "GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS", ""),
    "az": Kind(True, "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ENDPOINT"),
    "file": Kind(False, "", ""),
}


@dataclass(frozen=True, slots=True)
class Destination:
    """A store and a prefix in it, or a log."""

    scheme: str
    url: str
    """Without a slash at its end."""
    endpoint: str
    label: str
    """What its directory in DATA/shipped is called: the same URL at another endpoint is another place."""
    log: Address | None = None
    """If it is a log."""

    @property
    def kind(self) -> Kind:
        """Of a store."""
        return KINDS[self.scheme]

    def __str__(self) -> str:
        return f"{self.url} at {self.endpoint}" if self.endpoint else self.url


def destination(url: str, environ: Mapping[str, str]) -> Destination:
    """The destination of a URL. Raises UsageError, which quotes nothing that could be a secret."""
    if not url:
        raise UsageError("where to? Say --to URL, or ship_to in the settings, such as s3://BUCKET/PREFIX")
    if is_log(url):
        place = address(url, "--to")
        # In any order they are the same cluster.
        sorted_servers = ",".join(sorted(place.servers))
        label = _label(f"{place.scheme}://{sorted_servers}/{place.name}", "")
        return Destination(place.scheme, str(place), "", label, place)
    parts = urlsplit(url)
    if parts.scheme not in KINDS:
        raise UsageError(f"--to: say one of {', '.join(f'{scheme}://…' for scheme in (*KINDS, *SCHEMES))}")
    kind = KINDS[parts.scheme]
    # argv is for every user of the machine to see, and the URL is logged.
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise UsageError(
            f"--to: nothing but the place belongs in a URL; credentials come from {kind.credentials}"
            if kind.is_remote
            else "--to: say file:///FOLDER, without a host, '?' and '#'"
        )
    if kind.is_remote and not parts.netloc:
        raise UsageError(f"--to: name a bucket, such as {parts.scheme}://BUCKET/PREFIX")
    if not kind.is_remote and (parts.netloc or not parts.path.strip("/")):
        raise UsageError("--to: name a folder by its whole path, such as file:///srv/events")
    if any(part in (".", "..") for part in parts.path.split("/")):
        raise UsageError("--to: '.' and '..' have no place in the path")
    path = re.sub("/+", "/", parts.path).rstrip("/")
    clean = f"{parts.scheme}://{parts.netloc}{path}"
    endpoint = environ.get(kind.endpoint, "").rstrip("/") if kind.endpoint else ""
    if "@" in endpoint:
        raise UsageError(
            f"{kind.endpoint}: credentials have no place in it; they come from {kind.credentials}"
        )
    return Destination(parts.scheme, clean, endpoint, _label(clean, endpoint))


def _label(url: str, endpoint: str) -> str:
    words = re.sub(r"[^A-Za-z0-9.]+", "-", url).strip("-")
    digest = hashlib.sha256(f"{url} {endpoint}".encode()).hexdigest()
    return f"{words[:80]}-{digest[:8]}"


class Template:
    """Makes the names of objects: one for each segment and content, below its date and hour."""

    def __init__(self, text: str) -> None:
        """`text` is the setting ship_key. Raises UsageError."""
        try:
            fields = [(name, spec, how) for _, name, spec, how in Formatter().parse(text) if name is not None]
        except ValueError as e:
            raise UsageError(f"ship_key: {text!r}: {e}") from None
        known = ", ".join(f"{{{name}}}" for name in _FIELDS)
        for name, spec, how in fields:
            if name not in _FIELDS or spec or how:
                raise UsageError(f"ship_key: {text!r}: the words are {known}, as they are")
        missing = [name for name in _MUST if name not in [field for field, _, _ in fields]]
        if missing:
            raise UsageError(f"ship_key: {text!r}: {{{missing[0]}}} must be in it")
        made = text.format_map(dict.fromkeys(_FIELDS, "x"))
        if any(part in ("", ".", "..") for part in made.split("/")) or not made.isprintable() or "#" in made:
            raise UsageError(
                f"ship_key: {text!r}: say folders and a name, parted by single slashes, without '#'"
            )
        if made.startswith(f"{STAGING}/"):
            raise UsageError(f"ship_key: {text!r}: {STAGING} is where large objects are while they are sent")
        self._text = text

    def key(self, name: str, sha256: str) -> str:
        """The object of the segment of this name (without suffix) and content. Raises StorageError."""
        match = NAME.fullmatch(name)
        assert match is not None, "the shipper looks at nothing else"
        year, month, day, hour, node = match.group("year", "month", "day", "hour", "node")
        made = self._text.format(date=f"{year}-{month}-{day}", hour=hour, node=node, name=name, sha256=sha256)
        if len(made.encode()) > _KEY_BYTES_MAX:
            raise StorageError(f"ship_key: the name of {name} would have more than {_KEY_BYTES_MAX} bytes")
        return made
