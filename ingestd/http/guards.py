"""What a request must be before its body is read: RFC 9112 and RFC 9110 as a table of refusals.

httptools accepts much that must not pass (a missing or doubled Host, HTTP/0.9 and 2.0,
`Transfer-Encoding: x, chunked`, headers without end, `Upgrade`, which swallows the body), so
each rule stands here, with the status and the code that answer it. The first one broken counts.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from ingestd.errors import Rejection, internal
from ingestd.http.codings import CODINGS, NAMES

log = logging.getLogger("ingestd.http")

# The headers that decide something; others are counted and dropped.
KNOWN: Final = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"content-encoding",
        b"content-type",
        b"authorization",
        b"expect",
        b"upgrade",
        b"connection",
        b"origin",
        b"access-control-request-method",
    )
)
# These decide nothing, but the log may ask for them.
_FORWARDED: Final = (b"x-forwarded-for", b"forwarded")
_PREFLIGHT: Final = {b"origin", b"access-control-request-method"}
# Lines of a list: together they are one value (RFC 9110 §5.3).
_LISTS: Final = frozenset((b"connection", *_FORWARDED))
_spelling: dict[bytes, bytes | None] = {}
_SPELLINGS_MAX: Final = 1024
_SPELLING_BYTES_MAX: Final = 64

# RFC 9110 §7.2: uri-host [ ":" port ]; the characters of a reg-name, an IP literal or nothing.
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(?::[0-9]{0,5})?")
_TARGET: Final = re.compile(rb"/[!-~]*")
_CONTENT_LENGTH: Final = re.compile(rb"[0-9]{1,18}")


class Head:
    """The request line and the known headers of one request, as the parser hands them over."""

    __slots__ = ("header_bytes", "header_count", "headers", "method", "repeated", "target", "version")

    def __init__(self) -> None:
        self.target = b""
        self.method = b""
        self.version = ""
        self.headers: dict[bytes, bytes] = {}
        self.header_count = 0
        self.header_bytes = 0
        self.repeated = b""

    def add(self, name: bytes, value: bytes) -> None:
        """Count a header; keep it if it is known."""
        self.header_count += 1
        self.header_bytes += len(name) + len(value) + 4
        try:
            known = _spelling[name]
        except KeyError:
            known = _learn(name)
        if known is not None:
            if known in _LISTS:
                value = self.headers.get(known, b"") + b"," + value
            elif known in self.headers:
                self.repeated = known
            # The parser leaves the white space after a value (RFC 9112 §5.1: it is not part of it).
            self.headers[known] = value.rstrip(b" \t")

    def add_trailer(self, name: bytes, value: bytes) -> None:
        """Count a field that came after the body; it must not change the request (RFC 9110 §6.5.1)."""
        self.header_count += 1
        self.header_bytes += len(name) + len(value) + 4

    @property
    def is_http10(self) -> bool:
        """True for HTTP/1.0."""
        return self.version == "1.0"

    @property
    def says_close(self) -> bool:
        """True if `close` stands in Connection: it wins over keep-alive (RFC 9112 §9.3)."""
        options = self.headers.get(b"connection", b"").lower().split(b",")
        return b"close" in [option.strip(b" \t") for option in options]

    @property
    def length(self) -> int | None:
        """Content-Length, once it is known to be a number; None where there is none."""
        value = self.headers.get(b"content-length")
        return None if value is None else int(value)

    @property
    def encoding(self) -> bytes:
        """The Content-Encoding in lower case; empty where there is none."""
        return self.headers.get(b"content-encoding", b"").lower()

    @property
    def query(self) -> bytes:
        """What stands after the first question mark of the target."""
        return self.target.partition(b"?")[2]

    @property
    def origin(self) -> bytes:
        """Of the page that sends it; empty where no browser says so."""
        return self.headers.get(b"origin", b"")

    @property
    def is_preflight(self) -> bool:
        """True if a browser asks what it may send."""
        return self.method == b"OPTIONS" and self.headers.keys() >= _PREFLIGHT

    @property
    def content_type(self) -> bytes:
        """The media type in lower case, without its parameters; empty where there is none."""
        return self.headers.get(b"content-type", b"").partition(b";")[0].rstrip(b" \t").lower()

    @property
    def forwarded(self) -> bytes:
        """Whom a proxy says it speaks for, as it stands; empty where nothing is said."""
        headers = self.headers
        return headers.get(_FORWARDED[0]) or headers.get(_FORWARDED[1], b"")


def _learn(name: bytes) -> bytes | None:
    """The known header of this spelling; spellings are remembered, up to a limit."""
    lower = name.lower()
    known = lower if lower in KNOWN or lower in _FORWARDED else None
    if len(_spelling) < _SPELLINGS_MAX and len(name) <= _SPELLING_BYTES_MAX:
        _spelling[name] = known
    return known


class Rule(NamedTuple):
    """One refusal: when a head is refused, and how."""

    breaks: Callable[[Head], object]
    status: int
    code: str
    error: str
    detail: str
    headers: bytes = b""


_BAD: Final = "Bad request."
_NOT_IMPLEMENTED: Final = "Not implemented."

RULES: Final = (
    Rule(
        lambda h: h.version not in ("1.1", "1.0"),
        505, "version_not_supported", "HTTP version not supported.", "send HTTP/1.1 or HTTP/1.0",
    ),
    Rule(
        lambda h: h.repeated,
        400, "repeated_header", _BAD, "a header that may stand once stands twice",
    ),
    Rule(
        lambda h: h.method == b"CONNECT",
        501, "method_not_implemented", _NOT_IMPLEMENTED, "CONNECT is not implemented",
    ),
    Rule(
        lambda h: not _TARGET.fullmatch(h.target),
        400, "bad_target", _BAD, "send the target in origin form: /v1/…",
    ),
    Rule(
        lambda h: not h.is_http10 and b"host" not in h.headers,
        400, "missing_host", _BAD, "HTTP/1.1 needs a Host header",
    ),
    Rule(
        lambda h: not _HOST.fullmatch(h.headers.get(b"host", b"")),
        400, "bad_host", _BAD, "the Host header is not valid",
    ),
    Rule(
        lambda h: b"transfer-encoding" in h.headers and h.is_http10,
        400, "bad_transfer_encoding", _BAD, "HTTP/1.0 has no Transfer-Encoding",
    ),
    Rule(
        lambda h: b"transfer-encoding" in h.headers and b"content-length" in h.headers,
        400, "ambiguous_length", _BAD, "send Content-Length or Transfer-Encoding, not both",
    ),
    Rule(
        lambda h: h.headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked",
        501, "bad_transfer_encoding", _NOT_IMPLEMENTED, "the only Transfer-Encoding is chunked",
    ),
    Rule(
        lambda h: not _CONTENT_LENGTH.fullmatch(h.headers.get(b"content-length", b"0")),
        400, "bad_content_length", _BAD, "Content-Length is not a number",
    ),
    Rule(
        lambda h: b"upgrade" in h.headers,
        400, "upgrade_refused", _BAD, "this server does not change protocols",
    ),
    Rule(
        lambda h: h.headers.get(b"expect", b"100-continue").lower() != b"100-continue",
        417, "expectation_failed", "Expectation failed.", "the only expectation known is 100-continue",
    ),
    Rule(
        lambda h: h.encoding not in CODINGS,
        415, "unsupported_encoding", "Unsupported media type.",
        f"send one Content-Encoding of {', '.join(NAMES)}",
        b"Accept-Encoding: %b\r\n" % ", ".join(NAMES).encode(),
    ),
)  # fmt: skip


def check(head: Head) -> None:
    """Raise the Rejection of the first rule that the head breaks."""
    for rule in RULES:
        if rule.breaks(head):
            raise Rejection(*rule[1:])


def header_too_large(bytes_max: int, count_max: int) -> Rejection:
    """431 (RFC 6585 §5)."""
    detail = f"{bytes_max} bytes in {count_max} lines at most"
    return Rejection(431, "header_too_large", "Request header fields too large.", detail)


def target_too_long(bytes_max: int) -> Rejection:
    """414."""
    return Rejection(
        414, "target_too_long", "URI too long.", f"the target may have {bytes_max} bytes at most"
    )


def bad_request_line() -> Rejection:
    """400: the parser takes other protocols, and white space in other places, for HTTP."""
    return Rejection(400, "bad_request_line", _BAD, "send METHOD SP target SP HTTP/1.1")


def after_close() -> Rejection:
    """400 for bytes after the last request; the connection has its last answer, so nobody sees it."""
    return Rejection(400, "after_close", _BAD, "bytes after the last request")


def unreadable(reason: object) -> Rejection:
    """400 for what the parser refuses."""
    return Rejection(400, "bad_request", _BAD, f"not HTTP as it should be: {reason}")


def chunks_too_small(overhead_bytes_max: int) -> Rejection:
    """400: the framing of a chunked body weighs more than what it carries."""
    return Rejection(
        400, "chunks_too_small", _BAD,
        f"chunk headers may outweigh the body by {overhead_bytes_max} bytes at most; send larger chunks",
    )  # fmt: skip


def cause(error: Exception) -> Rejection:
    """What a callback of the parser has raised, out of the parser's own error; for a bug, 500.

    Without its traceback, which would hold on to the body until the garbage collector comes.
    """
    raised = error.__context__
    if isinstance(raised, Rejection):
        return raised.with_traceback(None)
    log.error("bug while reading a request", exc_info=raised)
    return internal("bug")
