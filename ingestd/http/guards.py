"""What a request must be before its body is read: RFC 9112 and RFC 9110 as a table of refusals.

httptools accepts much that must not pass (a missing or doubled Host, HTTP/0.9 and 2.0,
`Transfer-Encoding: x, chunked`, headers without end, `Upgrade`, which swallows the body), so
each rule stands here, with the status and the code that answer it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from ingestd.errors import Rejection

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
    )
)
_spelling: dict[bytes, bytes | None] = {}
_SPELLINGS_MAX: Final = 1024

# RFC 9110 §7.2: uri-host [ ":" port ]; the characters of a reg-name, an IP literal or nothing.
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(?::[0-9]{0,5})?")
_TARGET: Final = re.compile(rb"/[!-~]*")
_CONTENT_LENGTH: Final = re.compile(rb"[0-9]{1,18}")


class Head:
    """The request line and the known headers of one request, as the parser hands them over."""

    __slots__ = (
        "header_bytes",
        "header_count",
        "headers",
        "is_http10",
        "method",
        "repeated",
        "target",
        "version",
    )

    def __init__(self) -> None:
        self.target = b""
        self.method = b""
        self.version = ""
        self.is_http10 = False
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
            if known in self.headers:
                self.repeated = known
            self.headers[known] = value


def _learn(name: bytes) -> bytes | None:
    """The known header of this spelling; spellings are remembered, up to a limit."""
    lower = name.lower()
    known = lower if lower in KNOWN else None
    if len(_spelling) < _SPELLINGS_MAX:
        _spelling[name] = known
    return known


def _bad(code: str, detail: str) -> Rejection:
    return Rejection(400, code, "Bad request.", detail)


def header_too_large(detail: str) -> Rejection:
    """431 (RFC 6585 §5)."""
    return Rejection(431, "header_too_large", "Request header fields too large.", detail)


def target_too_long(limit_bytes: int) -> Rejection:
    """414."""
    return Rejection(
        414, "target_too_long", "URI too long.", f"the target may have {limit_bytes} bytes at most"
    )


_RULES: Final[tuple[tuple[Callable[[Head], object], Rejection], ...]] = (
    (
        lambda h: h.version not in ("1.1", "1.0"),
        Rejection(505, "version_not_supported", "HTTP version not supported.", "send HTTP/1.1 or HTTP/1.0"),
    ),
    (lambda h: h.repeated, _bad("repeated_header", "a header that may stand once stands twice")),
    (
        lambda h: h.method == b"CONNECT",
        Rejection(501, "method_not_implemented", "Not implemented.", "CONNECT is not implemented"),
    ),
    (lambda h: not _TARGET.fullmatch(h.target), _bad("bad_target", "send the target in origin form: /v1/…")),
    (
        lambda h: not h.is_http10 and b"host" not in h.headers,
        _bad("missing_host", "HTTP/1.1 needs a Host header"),
    ),
    (
        lambda h: not _HOST.fullmatch(h.headers.get(b"host", b"")),
        _bad("bad_host", "the Host header is not valid"),
    ),
    (
        lambda h: b"transfer-encoding" in h.headers and h.is_http10,
        _bad("bad_transfer_encoding", "HTTP/1.0 has no Transfer-Encoding"),
    ),
    (
        lambda h: b"transfer-encoding" in h.headers and b"content-length" in h.headers,
        _bad("ambiguous_length", "send Content-Length or Transfer-Encoding, not both"),
    ),
    (
        lambda h: h.headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked",
        Rejection(501, "bad_transfer_encoding", "Not implemented.", "the only Transfer-Encoding is chunked"),
    ),
    (
        lambda h: not _CONTENT_LENGTH.fullmatch(h.headers.get(b"content-length", b"0")),
        _bad("bad_content_length", "Content-Length is not a number"),
    ),
    (lambda h: b"upgrade" in h.headers, _bad("upgrade_refused", "this server does not change protocols")),
    (
        lambda h: h.headers.get(b"expect", b"100-continue").lower() != b"100-continue",
        Rejection(
            417, "expectation_failed", "Expectation failed.", "the only expectation known is 100-continue"
        ),
    ),
    (
        lambda h: (
            h.headers.get(b"content-encoding", b"gzip").lower() not in (b"gzip", b"x-gzip", b"identity", b"")
        ),
        Rejection(
            415,
            "unsupported_encoding",
            "Unsupported media type.",
            "send Content-Encoding gzip or identity, once",
            b"Accept-Encoding: gzip, identity\r\n",
        ),
    ),
)

# Requests repeat: what the rules have passed once is not asked again. Content-Length, which varies, is.
_passed: set[tuple[object, ...]] = set()
_PASSED_MAX: Final = 1024


def check(head: Head) -> None:
    """Raise the Rejection of the first rule that the request breaks."""
    get = head.headers.get
    length = get(b"content-length")
    decisive = (
        head.version,
        head.method,
        head.target,
        get(b"host"),
        get(b"content-encoding"),
        get(b"transfer-encoding"),
        get(b"expect"),
        get(b"upgrade"),
        length is None,
    )
    if decisive in _passed and not head.repeated and (length is None or _CONTENT_LENGTH.fullmatch(length)):
        return
    for breaks, rejection in _RULES:
        if breaks(head):
            raise rejection
    if len(_passed) < _PASSED_MAX:
        _passed.add(decisive)
