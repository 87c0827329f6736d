"""Requests as bytes, right and wrong ones, and ways to cut them into pieces."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any, Final

SECRET: Final = "ing_a-key-that-is-known"
TIMESTAMP: Final = "2025-10-29T22:00:00.778Z"


def event(message_id: str | None = "m-1", **fields: Any) -> dict[str, Any]:
    """A valid event; `fields` are put over it."""
    made: dict[str, Any] = {"event": "signup", "properties": {"plan": "basic"}, "timestamp": TIMESTAMP}
    if message_id is not None:
        made["messageId"] = message_id
    return made | fields


def encoded(value: object) -> bytes:
    """`value` as JSON."""
    return json.dumps(value).encode()


def head(start: str, headers: Iterable[str] = (), *, host: bool = True, auth: bool = True) -> bytes:
    """A request's head: start line and headers, a Host and the known key among them."""
    lines = [start]
    if host:
        lines.append("Host: events.example")
    if auth:
        lines.append(f"Authorization: Bearer {SECRET}")
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1")


def post(
    body: bytes, target: str = "/v1/track", headers: Iterable[str] = (), *, version: str = "1.1"
) -> bytes:
    """A whole POST with a Content-Length."""
    return head(f"POST {target} HTTP/{version}", [f"Content-Length: {len(body)}", *headers]) + body


def chunks(body: bytes, size: int = 7, trailers: Iterable[str] = ()) -> bytes:
    """`body` in chunked coding."""
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    coded = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return coded + b"0\r\n" + "".join(f"{line}\r\n" for line in trailers).encode() + b"\r\n"


def post_chunked(
    body: bytes,
    target: str = "/v1/track",
    headers: Iterable[str] = (),
    *,
    size: int = 7,
    trailers: Iterable[str] = (),
) -> bytes:
    """A whole POST in chunked coding."""
    lines = ["Transfer-Encoding: chunked", *headers]
    return head(f"POST {target} HTTP/1.1", lines) + chunks(body, size, trailers)


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """`data` cut at these places."""
    edges = [0, *sorted({place for place in places if 0 < place < len(data)}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def bytewise(data: bytes) -> list[bytes]:
    """`data` byte by byte."""
    return cut(data, range(len(data)))
