"""Robyn: its server is Rust, its handlers are Python; msgspec reads the bodies.

It has neither typed bodies of this kind nor gzip for requests, so both are done in the handler.
"""

from __future__ import annotations

import datetime
import os
import secrets
import uuid
import zlib
from typing import Annotated, Any

import msgspec
from robyn import Headers, Request, Response, Robyn

_KEY = os.environ["BENCH_KEY"]
_file = open(os.environ["BENCH_FILE"], "ab")  # noqa: SIM115
_encoder = msgspec.json.Encoder()
_JSON = Headers({"Content-Type": "application/json"})


class Event(msgspec.Struct, omit_defaults=True):
    """The fields that clients send. msgspec keeps no unknown ones."""

    event: str
    properties: dict[str, Any]
    timestamp: Annotated[datetime.datetime, msgspec.Meta(tz=True)]
    userId: str | None = None
    anonymousId: str | None = None
    messageId: str | None = msgspec.field(default_factory=lambda: str(uuid.uuid4()))


_one = msgspec.json.Decoder(Event)
_many = msgspec.json.Decoder(Annotated[list[Event], msgspec.Meta(min_length=1)])
app = Robyn(__file__)


def _refusal(request: Request) -> Response | None:
    scheme, _, key = (request.headers.get("authorization") or "").partition(" ")
    if scheme.lower() == "bearer" and secrets.compare_digest(key, _KEY):
        return None
    return Response(401, _JSON, b'{"error":"Unauthorized"}')


def _body(request: Request) -> bytes | str:
    body: bytes | str = request.body
    if request.headers.get("content-encoding") == "gzip":
        return zlib.decompress(body if isinstance(body, bytes) else body.encode(), wbits=31)
    return body


def _invalid(error: Exception) -> Response:
    return Response(400, _JSON, _encoder.encode({"error": "Invalid event format.", "detail": str(error)}))


@app.post("/v1/track")
async def track(request: Request) -> Response:
    if refusal := _refusal(request):
        return refusal
    try:
        event = _one.decode(_body(request))
    except (msgspec.DecodeError, zlib.error) as e:
        return _invalid(e)
    _file.write(_encoder.encode(event) + b"\n")
    _file.flush()
    return Response(200, _JSON, _encoder.encode({"status": "ok", "messageId": event.messageId}))


@app.post("/v1/bulk-track")
async def bulk_track(request: Request) -> Response:
    if refusal := _refusal(request):
        return refusal
    try:
        events = _many.decode(_body(request))
    except (msgspec.DecodeError, zlib.error) as e:
        return _invalid(e)
    _file.write(_encoder.encode_lines(events))
    _file.flush()
    ids = [event.messageId for event in events]
    return Response(200, _JSON, _encoder.encode({"status": "ok", "messageIds": ids}))


if __name__ == "__main__":
    app.start(host="127.0.0.1", port=int(os.environ["BENCH_PORT"]))
