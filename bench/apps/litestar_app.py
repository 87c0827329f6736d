"""Litestar on Granian: msgspec structs as the type of the body, a guard for the key.

Gzip is taken by an ASGI middleware, for Litestar has none for requests.
"""

from __future__ import annotations

import datetime
import os
import secrets
import uuid
import zlib
from typing import Annotated, Any

import msgspec
from granian.constants import Interfaces, Loops
from granian.server import Server
from litestar import Litestar, post
from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.exceptions import NotAuthorizedException
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send

_KEY = os.environ["BENCH_KEY"]
_file = open(os.environ["BENCH_FILE"], "ab")  # noqa: SIM115
_encoder = msgspec.json.Encoder()


class Event(msgspec.Struct, omit_defaults=True):
    """The fields that clients send. msgspec keeps no unknown ones."""

    event: str
    properties: dict[str, Any]
    timestamp: Annotated[datetime.datetime, msgspec.Meta(tz=True)]
    userId: str | None = None
    anonymousId: str | None = None
    messageId: str | None = msgspec.field(default_factory=lambda: str(uuid.uuid4()))


class Stored(msgspec.Struct):
    status: str
    messageId: str | None


class AllStored(msgspec.Struct):
    status: str
    messageIds: list[str | None]


def guard(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
    """Raises NotAuthorizedException (401)."""
    scheme, _, key = connection.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secrets.compare_digest(key, _KEY):
        raise NotAuthorizedException("Unauthorized")


@post("/v1/track", status_code=200)
async def track(data: Event) -> Stored:
    _file.write(_encoder.encode(data) + b"\n")
    _file.flush()
    return Stored("ok", data.messageId)


@post("/v1/bulk-track", status_code=200)
async def bulk_track(data: Annotated[list[Event], msgspec.Meta(min_length=1)]) -> AllStored:
    _file.write(_encoder.encode_lines(data))
    _file.flush()
    return AllStored("ok", [event.messageId for event in data])


def inflated(app: ASGIApp) -> ASGIApp:
    """Hands on the bodies of gzipped requests as if they had come plain."""

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or (b"content-encoding", b"gzip") not in scope["headers"]:
            await app(scope, receive, send)
            return
        inflater = zlib.decompressobj(wbits=31)

        async def receive_inflated() -> Any:
            message = await receive()
            if message["type"] == "http.request":
                message["body"] = inflater.decompress(message["body"])
            return message

        await app(scope, receive_inflated, send)

    return middleware


app = Litestar(
    [track, bulk_track], guards=[guard], middleware=[inflated], request_max_body_size=16 << 20,
    openapi_config=None, debug=False,
)  # fmt: skip

if __name__ == "__main__":
    Server(
        f"{__spec__.name if __spec__ else 'bench.apps.litestar_app'}:app", address="127.0.0.1",
        port=int(os.environ["BENCH_PORT"]), interface=Interfaces.ASGI, loop=Loops.uvloop, workers=1,
        log_access=False, backlog=4096,
    ).serve()  # fmt: skip
