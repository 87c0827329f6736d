"""Pages on other origins: who may send, and read the answers (CORS).

The words are those of https://fetch.spec.whatwg.org/#http-cors-protocol. It is the browser that asks
and obeys: who sends without one is held by nothing but its key and the key's limits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ingestd.errors import Rejection, UsageError

ANY: Final = "*"
MAX_AGE_S: Final = 86_400
"""How long a browser may keep the answer to a preflight; each has a lower limit of its own."""
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[A-Za-z0-9._~:\[\]-]+")
# These and Authorization are named, for the star means neither where credentials are sent, and
# never Authorization.
_READABLE: Final = b"Access-Control-Expose-Headers: *, Ingest-Ack, Ingest-Receipt, Retry-After\r\n"
_ALLOWED_HEADERS: Final = b"*, Authorization, Content-Type, Content-Encoding"


class Cors:
    """What is said to pages, made once for each origin that is named."""

    def __init__(self, origins: str) -> None:
        """Origins parted by commas, or `*`. Raises UsageError."""
        named = [origin for text in origins.split(",") if (origin := text.strip())]
        for origin in named:
            if origin != ANY and not _ORIGIN.fullmatch(origin):
                raise UsageError(
                    f"cors_origins: {origin!r} is no origin; say https://shop.example, "
                    "several parted by commas, or *"
                )
        self._for_any = b""
        if ANY in named:
            self._for_any = b"Access-Control-Allow-Origin: *\r\n" + _READABLE
        # Beacons are sent with credentials. Nothing here looks at cookies, so that gives nothing away;
        # but a page that nobody has named must not reach what a proxy in front would let it.
        self._lines = {
            origin.encode(): b"Access-Control-Allow-Origin: %b\r\nAccess-Control-Allow-Credentials: true\r\n"
            b"%bVary: Origin\r\n" % (origin.encode(), _READABLE)
            for origin in named
            if origin != ANY
        }

    def lines(self, origin: bytes) -> bytes:
        """The header lines that let a page of this origin read the answer; none if it may not."""
        return self._lines.get(origin, self._for_any)

    @property
    def is_on(self) -> bool:
        """True if some page may send."""
        return bool(self._lines or self._for_any)

    def preflight_lines(self, origin: bytes, methods: Sequence[bytes]) -> bytes:
        """The header lines that let it send. Raises Rejection (403)."""
        lines = self.lines(origin)
        if not lines:
            raise Rejection(403, "origin_refused", "Forbidden.", "cors_origins does not name this origin")
        return (
            b"%bAccess-Control-Allow-Methods: %b\r\nAccess-Control-Allow-Headers: %b\r\n"
            b"Access-Control-Max-Age: %d\r\n" % (lines, b", ".join(methods), _ALLOWED_HEADERS, MAX_AGE_S)
        )
