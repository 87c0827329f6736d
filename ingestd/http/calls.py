"""What a checked head asks for: which of the calls, with whose key, in which form.

A client says nearly the same head again and again. `Repeat` knows a head that has passed every
check and recognises it by its bytes: a head that differs from it in nothing but the digits of
Content-Length means the same, so it need not be parsed, checked and authorized again. It is the
one place where a request is read without httptools (measured, without the kernel: 2.8 µs for
a 1-event request, 12.1 with httptools).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pkgutil import get_data
from sys import intern
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

from ingestd import ndjson
from ingestd.config import OnInvalid
from ingestd.errors import Rejection
from ingestd.events import Stamper
from ingestd.forms import ANALYTICS, LINES, MANY, ONE, Form
from ingestd.http.codings import CODINGS
from ingestd.http.cors import Cors
from ingestd.http.guards import Head
from ingestd.http.responses import CLOSE, connection_line
from ingestd.metrics import OTHER_ROUTE
from ingestd.ratelimit import Bucket


class Page(NamedTuple):
    """What a GET shows."""

    body: bytes
    content_type: bytes = b"application/json"


class Route(NamedTuple):
    """What is asked for at one path: events in a form, or a page."""

    methods: tuple[bytes, ...]
    form: Form | None = None
    show: Callable[[], Page] | None = None
    """Raises Rejection."""


Routes = Mapping[bytes, Route]

EVENT_ROUTES: Final[Routes] = {
    b"/v1/track": Route((b"POST",), ONE),
    b"/v1/bulk-track": Route((b"POST",), MANY),
    **{b"/v1/%b" % call.encode(): Route((b"POST",), form) for call, form in ANALYTICS.items()},
}
OPENAPI: Final = Page(get_data("ingestd.http", "openapi.json") or b"")
"""The contract as a document, which `make docs` writes."""
OK: Final = Page(b'{"status":"ok"}')


def show_ok() -> Page:
    """For who asks if the process answers, and for preflights."""
    return OK


_LENGTH: Final = re.compile(
    rb"\r\n[cC][oO][nN][tT][eE][nN][tT]-[lL][eE][nN][gG][tT][hH]:[ \t]*([0-9]+)(?=[ \t]*\r\n)"
)
_DIGITS_MAX: Final = 18


class Asked(NamedTuple):
    """What is known of a request that is refused, perhaps before all of it has come."""

    route: str = OTHER_ROUTE
    method: str | None = None
    key: str | None = None
    """The name of its key."""
    forwarded: bytes = b""


def page(show: Callable[[], Page]) -> Route:
    """The route of a page."""
    return Route((b"GET", b"HEAD"), None, show)


class Caller:
    """Whose requests these are: what a key means for them. A limit is None where there is none."""

    __slots__ = ("events", "requests", "stamper")

    def __init__(self, stamper: Stamper, events: Bucket | None, requests: Bucket | None) -> None:
        self.stamper = stamper
        self.events = events
        self.requests = requests


class Call:
    """One request's meaning. `form` and `caller` are None for a page."""

    __slots__ = (
        "caller", "close_line", "coding", "form", "forwarded", "is_head", "keep_alive", "keep_alive_line",
        "length", "method", "route", "show", "skips_invalid",
    )  # fmt: skip

    def __init__(self, head: Head, routes: Routes, cors: Cors, *, keep_alive: bool) -> None:
        """Raises Rejection (403, 404, 405)."""
        path = head.target.partition(b"?")[0]
        route = routes.get(path)
        if route is None:
            there = b", ".join(b"%b %b" % (one.methods[0], path) for path, one in routes.items()).decode()
            raise Rejection(404, "not_found", "Not found.", f"there are {there}")
        origin = head.origin
        cors_lines = cors.lines(origin) if origin else b""
        show, form = route.show, route.form
        if head.is_preflight and cors.is_on:
            cors_lines = cors.preflight_lines(origin, route.methods)
            show, form = show_ok, None
        elif head.method not in route.methods:
            allow = b"Allow: %b\r\n" % b", ".join(route.methods)
            raise Rejection(405, "method_not_allowed", "Method not allowed.", None, allow)
        self.route = path.decode()
        self.method = intern(head.method.decode())
        self.form = form
        if form is MANY and head.content_type in ndjson.CONTENT_TYPES:
            self.form = LINES
        self.show = show
        self.caller: Caller | None = None
        self.coding = CODINGS[head.encoding] if self.form is not None else None
        self.is_head = head.method == b"HEAD"
        self.keep_alive = keep_alive
        self.keep_alive_line = connection_line(keep_alive=True, is_http10=head.is_http10) + cors_lines
        """What an answer says of the connection if it goes on, and of who may read it."""
        self.close_line = CLOSE + cors_lines
        """The same if the connection ends."""
        self.length = head.length
        """Content-Length; None where there is none."""
        self.forwarded = head.forwarded
        """What `peers` may make of it."""
        self.skips_invalid = False
        """Invalid events are set aside; see `heed_invalid`."""

    def heed_invalid(self, query: bytes, on_invalid: OnInvalid) -> None:
        """Of an array: what becomes of invalid events, as `?on_invalid=` or else the setting says.

        Raises Rejection (400).
        """
        if self.form is not MANY and self.form is not LINES:
            return
        if b"on_invalid=" in query:
            for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
                if name == "on_invalid":
                    on_invalid = _on_invalid(value)
        self.skips_invalid = on_invalid == "skip"

    @property
    def asked(self) -> Asked:
        """The same in short."""
        return Asked(
            self.route, self.method, self.caller.stamper.name if self.caller else None, self.forwarded
        )


def _on_invalid(value: str) -> OnInvalid:
    if value == "skip":
        return "skip"
    if value == "reject":
        return "reject"
    raise Rejection(400, "bad_query", "Bad request.", "on_invalid is 'reject' or 'skip'")


class Repeat:
    """A head that has passed, cut at its Content-Length, and the call that it made."""

    __slots__ = (
        "_after", "_after_size", "_before", "_before_size", "_body_bytes_max", "_digits", "call", "caller",
        "generation",
    )  # fmt: skip

    def __init__(
        self, before: bytes, after: bytes, call: Call, caller: Caller, generation: int, body_bytes_max: int
    ) -> None:
        self._before = before
        self._before_size = len(before)
        self._after = after
        self._after_size = len(after)
        self._digits = 0
        """How many there were the last time."""
        self._body_bytes_max = body_bytes_max
        self.call = call
        self.caller = caller
        self.generation = generation
        """Of the keyring: a revoked key must stop at once."""

    @classmethod
    def of(cls, raw: bytes, head: Head, call: Call, generation: int, body_bytes_max: int) -> Repeat | None:
        """The Repeat of a head that has passed, or None if it is not of the plainest kind.

        Every line break in it must be a CRLF that ends a line which the parser has counted: then the
        blank line found in the bytes is the one that the parser has found.
        """
        caller = call.caller
        if caller is None or not call.keep_alive or call.length is None or b"expect" in head.headers:
            return None
        if not raw.startswith(b"POST %b HTTP/1." % head.target):
            return None
        lines = raw.count(b"\r\n")
        if lines != head.header_count + 2 or raw.count(b"\n") != lines or raw.count(b"\r") != lines:
            return None
        found = _LENGTH.findall(raw)
        match = _LENGTH.search(raw)
        if match is None or len(found) != 1:
            return None
        return cls(raw[: match.start(1)], raw[match.end(1) :], call, caller, generation, body_bytes_max)

    def match(self, data: bytes, at: int) -> tuple[int, int] | None:
        """Where the body begins and where it ends, if this head stands whole at `at`; else None.

        None as well for a body beyond the limit: the parser's way says what is wrong with it.
        """
        if not data.startswith(self._before, at):
            return None
        digits_at = at + self._before_size
        digits_end = digits_at + self._digits
        if not data.startswith(self._after, digits_end):
            digits_end = data.find(b"\r", digits_at, digits_at + _DIGITS_MAX + 1)
            if digits_end < 0 or not data.startswith(self._after, digits_end):
                return None
            self._digits = digits_end - digits_at
        digits = data[digits_at:digits_end]
        if not digits.isdigit():
            return None
        length = int(digits)
        body_at = digits_end + self._after_size
        return None if length > self._body_bytes_max else (body_at, body_at + length)
