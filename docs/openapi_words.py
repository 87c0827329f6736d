"""What openapi_document.py says of errors, headers and queries: codes by status, and their meanings."""

from __future__ import annotations

from typing import Any, Final

from ingestd import errors
from ingestd.config import Settings
from ingestd.http.codings import NAMES

Json = dict[str, Any]

EVENT_EXAMPLE: Final[Json] = {
    "event": "signup",
    "properties": {"plan": "basic", "freeTrial": True},
    "timestamp": "2025-10-29T22:00:00.778Z",
    "messageId": "8b0f62f9-1e8e-4f15-8c2a-9d23c9c6c0e2",
}

OF_BODIES: Final = {
    400: ("invalid_json", "invalid_utf8", "invalid_event", "too_deep", "number_out_of_range", "too_large",
          "too_many_invalid", "bad_query",
          *(f"invalid_{name}" for name in NAMES if name != "identity"), "chunks_too_small"),
    401: ("unauthorized",),
    413: ("event_too_large",),
    429: ("rate_limited", "overloaded", "disk_full", "log_unavailable"),
    500: ("storage_failed", "bug"),
}  # fmt: skip
"""Codes of the two calls that take events, beside those of any request."""
OF_ALL: Final = {
    400: ("bad_request", "bad_request_line"),
    408: ("request_timeout",),
    413: ("payload_too_large",),
    414: ("target_too_long",),
    431: ("header_too_large",),
    500: ("bug",),
    503: ("too_many_connections",),
}
"""Codes that any request may get, beside those of `guards.RULES`."""

MEANINGS: Final = {
    400: "What was sent is not what is asked for; `detail` names the place. Nothing of it is stored.",
    401: "The key is missing or unknown, or stands in the query and is not public.",
    408: "The request took too long to arrive.",
    413: f"The body has more than the limit, by default {Settings().body_bytes_max} bytes, uncompressed.",
    414: f"The target has more than the limit, by default {Settings().target_bytes_max} bytes.",
    415: "The Content-Encoding is not known, or there are several; Accept-Encoding says what is known.",
    417: "An expectation other than 100-continue.",
    429: "The key is over its limit, or the server has as much waiting as it may. Send the same again after "
    "Retry-After seconds.",
    431: f"The head has more than the limits, by default {Settings().header_bytes_max} bytes in "
    f"{Settings().header_count_max} lines.",
    500: "Storage failed. Nothing of the request counts as stored: send the same again.",
    501: "A method or a Transfer-Encoding that is not implemented.",
    503: "More connections than there may be.",
    505: "Another version of HTTP than 1.1 and 1.0.",
}
SENTENCES: Final = {
    400: errors.INVALID_EVENT,
    401: errors.UNAUTHORIZED,
    413: errors.TOO_LARGE,
    429: errors.RATE_LIMITED,
    500: errors.INTERNAL,
}
KEPT: Final[Json] = {
    "Ingest-Ack": {
        "required": True,
        "description": "How safe the events are.",
        "schema": {"enum": ["fsync", "write", "memory", "replicated"]},
    },
    "Ingest-Receipt": {
        "description": "Where they are, for `ingestd find --receipt`: segment and commit. Not with `memory`.",
        "schema": {"type": "string"},
    },
}
"""What every 200 that takes events says."""
INVALID: Final[Json] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["index", "code", "detail"],
        "properties": {
            "index": {"type": "integer", "minimum": 0, "description": "In the request, from 0."},
            "code": {"type": "string"},
            "detail": {"type": "string"},
        },
        "additionalProperties": False,
    },
}
ON_INVALID: Final[Json] = {
    "name": "on_invalid",
    "in": "query",
    "description": "Whether one invalid event refuses the whole request (`reject`), or is set aside and "
    "named in the answer (`skip`). Without it, the setting decides.",
    "schema": {"enum": ["reject", "skip"]},
}
HEADERS: Final = {
    401: {"WWW-Authenticate": {"required": True, "schema": {"const": "Bearer"}}},
    415: {"Accept-Encoding": {"required": True, "schema": {"const": ", ".join(NAMES)}}},
    429: {
        "Retry-After": {
            "required": True,
            "description": "Whole seconds.",
            "schema": {"type": "integer", "minimum": 1},
        }
    },
}
