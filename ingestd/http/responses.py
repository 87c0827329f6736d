"""Answers as bytes: heads are prebuilt, a 200 is put together from slices in one write.

Every answer has a JSON body, a Content-Length and a Date (RFC 9110 §6.6.1).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import msgspec

from ingestd.errors import Rejection

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_encode = msgspec.json.Encoder().encode
_STATUS_LINES: Final = {s.value: b"HTTP/1.1 %d %s\r\n" % (s.value, s.phrase.encode()) for s in HTTPStatus}
_CONNECTION: Final = {
    "default": b"",
    "close": b"Connection: close\r\n",
    "keep-alive": b"Connection: keep-alive\r\n",
}
CLOSE: Final = _CONNECTION["close"]
_second = -1
_date_line = b""


def connection_line(*, keep_alive: bool, is_http10: bool) -> bytes:
    """What must be said of the connection: 1.1 keeps it and 1.0 closes it where nothing is said."""
    if not keep_alive:
        return _CONNECTION["close"]
    return _CONNECTION["keep-alive" if is_http10 else "default"]


def date_line() -> bytes:
    """The Date header line of this second."""
    global _second, _date_line
    second = int(time.time())
    if second != _second:
        _date_line = b"Date: %s\r\n" % formatdate(second, usegmt=True).encode()
        _second = second
    return _date_line


def stored_start(date: bytes, ack: str, receipt: str) -> bytes:
    """How a 200 begins, with how its events are kept, and where: the same for all of one commit."""
    lines = (_STATUS_LINES[200], date, b"Content-Type: application/json\r\n")
    start = b"%b%b%bIngest-Ack: %b\r\n" % (*lines, ack.encode())
    return start + b"Ingest-Receipt: %b\r\n" % receipt.encode() if receipt else start


def stored_one(message_id: str, start: bytes, connection: bytes) -> bytes:
    """200 for /v1/track."""
    encoded = _encode(message_id)
    return b'%b%bContent-Length: %d\r\n\r\n{"status":"ok","messageId":%b}' % (
        start, connection, len(encoded) + 28, encoded,
    )  # fmt: skip


def stored_many(
    message_ids: list[str], start: bytes, connection: bytes, invalid: Sequence[object] = ()
) -> bytes:
    """200 for /v1/bulk-track; `invalid` are the events that were set aside."""
    body = b'{"status":"ok","messageIds":%b}' % _encode(message_ids)
    if invalid:
        body = b'%b,"invalid":%b}' % (body[:-1], _encode(invalid))
    return b"%b%bContent-Length: %d\r\n\r\n%b" % (start, connection, len(body), body)


def success(start: bytes, connection: bytes) -> bytes:
    """200 for Segment's calls."""
    return b'%b%bContent-Length: 16\r\n\r\n{"success":true}' % (start, connection)


def page(body: bytes, content_type: bytes, connection: bytes, *, is_head: bool) -> bytes:
    """200 for a page; HEAD gets the same head and no body (RFC 9110 §9.3.2)."""
    head = _head(200, connection, len(body), b"Cache-Control: no-store\r\n", content_type)
    return head if is_head else head + body


def rejected(rejection: Rejection, connection: bytes, *, is_head: bool = False) -> bytes:
    """The answer for a Rejection."""
    body: dict[str, object] = {"error": rejection.error, "code": rejection.code}
    if rejection.detail:
        body["detail"] = rejection.detail
    if rejection.invalid:
        body["invalid"] = rejection.invalid
    encoded = _encode(body)
    head = _head(rejection.status, connection, len(encoded), rejection.headers)
    return head if is_head else head + encoded


def _head(
    status: int, connection: bytes, body_bytes: int, extra: bytes, content_type: bytes = b"application/json"
) -> bytes:
    return (
        b"%s%s%s%sContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
        % (_STATUS_LINES[status], date_line(), connection, extra, content_type, body_bytes)
    )  # fmt: skip
