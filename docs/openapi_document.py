"""Writes the contract as an OpenAPI 3.1 document, for the package and for docs/; `--check` only compares.

What the code has in tables stands in the document as the code has it: refusals of heads, error sentences,
codings, content types, defaults of limits. The rest is written here, and tests/http/test_openapi.py holds
it against what the server answers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from openapi_words import (
    EVENT_EXAMPLE,
    HEADERS,
    INVALID,
    KEPT,
    MEANINGS,
    OF_ALL,
    OF_BODIES,
    ON_INVALID,
    SENTENCES,
    Json,
)

from ingestd import __version__, analytics, ndjson
from ingestd.http import guards
from ingestd.http.codings import NAMES

ROOT: Final = Path(__file__).parents[1]
TARGETS: Final = (ROOT / "ingestd" / "http" / "openapi.json", ROOT / "docs" / "openapi.json")


def codes(*tables: dict[int, tuple[str, ...]]) -> dict[int, list[str]]:
    """All codes of these tables and of the refusals of heads, by status."""
    found: dict[int, list[str]] = {}
    for rule in guards.RULES:
        found.setdefault(rule.status, []).append(rule.code)
    for table in tables:
        for status, names in table.items():
            found.setdefault(status, []).extend(names)
    return {status: sorted({*found[status]}) for status in sorted(found)}


def error(status: int, names: list[str], meaning: str) -> Json:
    """A response with an error."""
    example: Json = {"error": SENTENCES.get(status, "…"), "code": names[0]}
    made: Json = {"description": meaning}
    if status in HEADERS:
        made["headers"] = HEADERS[status]
    schema = {
        "allOf": [{"$ref": "#/components/schemas/Error"}],
        "properties": {"code": {"enum": names}},
    }
    made["content"] = {"application/json": {"schema": schema}}
    if status in SENTENCES:
        made["content"]["application/json"]["example"] = example
    return made


def refused(kind: str, table: dict[int, list[str]]) -> tuple[Json, Json]:
    """References to the errors of a kind of call, by status, and what they refer to."""
    named = {status: f"{kind}{status}" for status in table}
    components = {named[status]: error(status, names, MEANINGS[status]) for status, names in table.items()}
    return (
        {str(status): {"$ref": f"#/components/responses/{name}"} for status, name in named.items()},
        components,
    )


def taken(description: str, name: str, schema: Json, example: object) -> Json:
    """The 200 of a call that takes events."""
    properties = {"status": {"const": "ok"}, name: schema}
    if schema["type"] == "array":
        properties["invalid"] = INVALID
    whole = {"type": "object", "required": ["status", name], "properties": properties}
    shown = {"status": "ok", name: example}
    content = {"application/json": {"schema": whole, "example": shown}}
    return {"description": description, "headers": KEPT, "content": content}


def event_call(
    summary: str,
    description: str,
    content: Json,
    answer: Json,
    errors_: Json,
    parameters: Sequence[Json] = (),
) -> Json:
    """A call that takes events."""
    return {
        "post": {
            "summary": summary,
            "description": description,
            "parameters": list(parameters),
            "requestBody": {
                "required": True,
                "description": f"With one Content-Encoding of {', '.join(NAMES)}, or none.",
                "content": content,
            },
            "responses": {"200": answer, **errors_},
        }
    }


def page(summary: str, answer: Json, errors_: Json) -> Json:
    """A page, by GET and HEAD."""
    bare = {status: {"description": response["description"]} for status, response in errors_.items()}
    return {
        "get": {"summary": summary, "security": [], "responses": {"200": answer, **errors_}},
        "head": {
            "summary": f"{summary} Without the body.",
            "security": [],
            "responses": {"200": {"description": answer["description"]}, **bare},
        },
    }


def analytics_calls(of_events: Json) -> Json:
    """Segment's calls."""
    message = {"$ref": "#/components/schemas/Message"}
    success: Json = {"type": "object", "required": ["success"], "properties": {"success": {"const": True}}}
    answer = {
        "description": "All of it is stored.",
        "headers": KEPT,
        "content": {"application/json": {"schema": success, "example": {"success": True}}},
    }
    example: Json = {"type": "track", "userId": "u1"} | EVENT_EXAMPLE
    batch: Json = {
        "type": "object",
        "required": ["batch"],
        "properties": {
            "batch": {
                "type": "array",
                "minItems": 1,
                "maxItems": analytics.MESSAGES_MAX,
                "items": {
                    "allOf": [message],
                    "required": ["type"],
                    "properties": {"type": {"enum": list(analytics.TYPES)}},
                    "if": {"properties": {"type": {"const": "track"}}},
                    "then": {"required": ["event"], "properties": {"event": {"type": "string"}}},
                },
            },
            "sentAt": {"$ref": "#/components/schemas/Time"},
            "context": {"description": "Of messages that have none of their own."},
            "integrations": {"description": "Of messages that have none of their own."},
        },
    }
    bodies: Json = {name: {"schema": message, "example": {"userId": "u1"}} for name in analytics.CALLS}
    bodies[analytics.BATCH] = {"schema": batch, "example": {"batch": [example]}}
    limits = f"{analytics.BODY_BYTES_MAX} bytes in all, {analytics.MESSAGE_BYTES_MAX} for a message, at most."
    return {
        f"/v1/{name}": event_call(
            f"Segment's call {name}.",
            f"For their SDKs, with the key as the user of basic auth. {limits}",
            {"application/json": body},
            answer,
            of_events,
        )
        for name, body in bodies.items()
    }


def paths(components: Json) -> Json:
    """All calls; the errors they share go to `components`."""
    of_events, made = refused("Event", codes(OF_ALL, OF_BODIES))
    components["responses"].update(made)
    of_pages = {str(s): error(s, names, MEANINGS[s]) for s, names in codes(OF_ALL).items()}
    not_ready = {**of_pages, "503": error(503, ["not_ready", "too_many_connections"], "It is not, and why.")}
    event = {"$ref": "#/components/schemas/Event"}
    many = {"type": "array", "minItems": 1, "items": event}
    array = {"schema": many, "example": [EVENT_EXAMPLE]}
    ok = {"application/json": {"schema": {"$ref": "#/components/schemas/Ok"}}}
    others = ", ".join(sorted(name.decode() for name in ndjson.CONTENT_TYPES - {b"application/x-ndjson"}))
    return {
        "/v1/track": event_call(
            "Track an event.",
            "200 is sent when it is as safe as the setting `ack` says. Any Content-Type is read as JSON.",
            {"application/json": {"schema": event, "example": EVENT_EXAMPLE}},
            taken("The event is stored.", "messageId", {"type": "string"}, EVENT_EXAMPLE["messageId"]),
            of_events,
        ),
        "/v1/bulk-track": event_call(
            "Track many events.",
            "All are stored, or none, if nothing else is asked for. application/x-ndjson has an event on "
            f"each line, and empty lines are passed over; so have {others}. "
            "Any other Content-Type is read as JSON.",
            # What is true of the whole is said as of an array, as OpenAPI 3.2 has it for such types.
            {"application/json": array, "application/x-ndjson": array},
            taken(
                "The events are stored; their ids in the order of the request.",
                "messageIds",
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
                [EVENT_EXAMPLE["messageId"]],
            ),
            of_events,
            [ON_INVALID],
        ),
        **analytics_calls(of_events),
        "/healthz": page("Does the process answer?", {"description": "It does.", "content": ok}, of_pages),
        "/readyz": page("Are events welcome?", {"description": "They are.", "content": ok}, not_ready),
        "/openapi.json": page(
            "This document.",
            {"description": "It.", "content": {"application/json": {"schema": {"type": "object"}}}},
            of_pages,
        ),
    }


def document() -> Json:
    """The whole."""
    components: Json = {
        "schemas": {
            "Event": {
                "type": "object",
                "description": "Kept as it is sent, with `receivedAt` and `source` put in by the server.",
                "required": ["event", "properties", "timestamp"],
                "properties": {
                    "event": {"type": "string", "description": "What happened."},
                    "properties": {"type": "object", "description": "Anything."},
                    "timestamp": {
                        "type": "string",
                        "format": "date-time",
                        "description": "When it happened: RFC 3339, with an offset.",
                    },
                    "messageId": {
                        "type": ["string", "null"],
                        "description": "Made by the server, a UUIDv7, if it is absent, null or empty.",
                    },
                },
                "additionalProperties": True,
            },
            "Time": {"type": ["string", "null"], "format": "date-time"},
            "Message": {
                "type": "object",
                "description": "Becomes an event: `event` is the type where there is none, `timestamp` is "
                "corrected by `sentAt` and the time of receipt, and kept as `originalTimestamp`.",
                "properties": {
                    "event": {"type": ["string", "null"]},
                    "properties": {"type": ["object", "null"]},
                    "timestamp": {"$ref": "#/components/schemas/Time"},
                    "originalTimestamp": {"$ref": "#/components/schemas/Time"},
                    "sentAt": {"$ref": "#/components/schemas/Time"},
                    "messageId": {"type": ["string", "null"]},
                },
                "additionalProperties": True,
            },
            "Error": {
                "type": "object",
                "required": ["error", "code"],
                "properties": {
                    "error": {"type": "string", "description": "A sentence."},
                    "code": {"type": "string", "description": "A word that stays the same."},
                    "detail": {"type": "string", "description": "The place, or the remedy."},
                    "invalid": {**INVALID, "description": "With `on_invalid=skip`, if all events are."},
                },
                "additionalProperties": False,
            },
            "Ok": {
                "type": "object",
                "required": ["status"],
                "properties": {"status": {"const": "ok"}},
            },
        },
        "securitySchemes": {
            "key": {"type": "http", "scheme": "bearer", "description": "A key of `ingestd key add`."},
            "keyAsUser": {"type": "http", "scheme": "basic", "description": "The key as user, no password."},
            "publicKey": {
                "type": "apiKey",
                "in": "query",
                "name": "key",
                "description": "A key of `ingestd key add --public`, for pages.",
            },
        },
        "responses": {},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ingestd",
            "version": __version__,
            "description": "Takes analytics events. 200 is the only success. Every error is JSON, and the "
            "last answer of its connection.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}, {"keyAsUser": []}, {"publicKey": []}],
        "paths": paths(components),
        "components": components,
    }


def main(arguments: list[str]) -> int:
    """Write both files; with `--check`, exit 1 if that would change one."""
    text = json.dumps(document(), indent=1, ensure_ascii=False) + "\n"
    for target in TARGETS:
        if "--check" not in arguments:
            target.write_text(text)
        elif not target.exists() or target.read_text() != text:
            print(f"{target.relative_to(ROOT)} is not what the code says: run `make docs`")
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
