"""FastAPI on Uvicorn (uvloop, httptools): pydantic models, a dependency for the key.

Gzip is taken as FastAPI's own documentation shows it: a request class and a route class.
"""

from __future__ import annotations

import os
import secrets
import uuid
import zlib
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

_KEY = os.environ["BENCH_KEY"]
_file = open(os.environ["BENCH_FILE"], "ab")  # noqa: SIM115
_bearer = HTTPBearer(auto_error=False)


class Event(BaseModel):
    """Unknown fields are kept."""

    model_config = ConfigDict(extra="allow")

    event: str
    properties: dict[str, Any]
    timestamp: AwareDatetime
    messageId: str | None = Field(default_factory=lambda: str(uuid.uuid4()))


class Stored(BaseModel):
    status: str
    messageId: str | None


class AllStored(BaseModel):
    status: str
    messageIds: list[str | None]


class GzipRequest(Request):
    """Inflates its body when it is asked for it."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            body = await super().body()
            if "gzip" in self.headers.getlist("Content-Encoding"):
                body = zlib.decompress(body, wbits=31)
            self._body = body
        return self._body


class GzipRoute(APIRoute):
    """A route whose requests may be gzipped."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(GzipRequest(request.scope, request.receive))

        return handle


def known(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> None:
    """Raises HTTPException (401)."""
    if credentials is None or not secrets.compare_digest(credentials.credentials, _KEY):
        raise HTTPException(401, "Unauthorized")


async def is_known(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> None:
    """The same on the loop: a plain function would be sent to a thread."""
    known(credentials)


router = APIRouter(route_class=GzipRoute, dependencies=[Depends(is_known)], prefix="/v1")


@router.post("/track")
async def track(event: Event) -> Stored:
    _file.write(event.model_dump_json().encode() + b"\n")
    _file.flush()
    return Stored(status="ok", messageId=event.messageId)


@router.post("/bulk-track")
async def bulk_track(events: Annotated[list[Event], Field(min_length=1)]) -> AllStored:
    _file.write(b"".join([event.model_dump_json().encode() + b"\n" for event in events]))
    _file.flush()
    return AllStored(status="ok", messageIds=[event.messageId for event in events])


async def invalid(_request: Request, error: Exception) -> JSONResponse:
    """Whoever sent an array with a wrong event wants to know where, not all of it back."""
    assert isinstance(error, RequestValidationError)
    return JSONResponse({"error": "Invalid event format.", "detail": str(error.errors()[0]["loc"])}, 400)


app = FastAPI(exception_handlers={RequestValidationError: invalid}, openapi_url=None)
app.include_router(router)

if __name__ == "__main__":
    uvicorn.run(
        app, port=int(os.environ["BENCH_PORT"]), loop="uvloop", http="httptools", access_log=False,
        log_level="warning", timeout_keep_alive=300, backlog=4096,
    )  # fmt: skip
