"""The document says what the server does: served, made of the code, and held against its answers."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
from openapi_spec_validator import validate

from ingestd import __version__
from ingestd.errors import StorageError
from tests.http.guard_cases import CASES
from tests.http.test_codings import BAD
from tests.support.requests import encoded, event, head, post
from tests.support.wire import Answer, Site, Wire

ROOT: Final = Path(__file__).parents[2]
DOCUMENT: Final[dict[str, Any]] = json.loads((ROOT / "docs" / "openapi.json").read_text())
NOT_IN_IT: Final = {
    "after_close": "nobody sees it",
    "tls_required": "for those who do not speak what the address speaks",
    "not_found": "for paths that are not in the document",
    "method_not_allowed": "for methods that are not in the document",
    "origin_refused": "for OPTIONS, which browsers send",
}


def resolved(node: Any) -> Any:
    """The node with references replaced by what they refer to."""
    if isinstance(node, list):
        return [resolved(one) for one in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target: Any = DOCUMENT
        for name in node["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        return resolved(target)
    return {name: resolved(one) for name, one in node.items()}


PATHS: Final = resolved(DOCUMENT["paths"])


def assert_said(answer: Answer, method: str, path: str) -> None:
    """The answer is one that the document has for this call."""
    said = PATHS[path][method.lower()]["responses"]
    assert str(answer.status) in said, answer.body
    response = said[str(answer.status)]
    for name, header in response.get("headers", {}).items():
        value: Any = answer.headers[name]
        assert value is not None, name
        jsonschema.validate(
            int(value) if header["schema"].get("type") == "integer" else value, header["schema"]
        )
    if method == "HEAD":
        assert "content" not in response
        return
    [content] = [response["content"][answer.headers["Content-Type"]]]
    jsonschema.validate(answer.json, content["schema"])


def answered(
    raw: bytes, method: str = "POST", site: Site | None = None, error: StorageError | None = None
) -> Answer:
    wire = Wire(site or Site())
    wire.feed(raw)
    wire.site.commit(error)
    return wire.answer(method)


def test_the_document_is_valid_openapi_and_that_of_the_code() -> None:
    validate(DOCUMENT)
    assert DOCUMENT["info"]["version"] == __version__
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "openapi_document.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_is_served() -> None:
    answer = answered(head("GET /openapi.json HTTP/1.1", auth=False), "GET")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.json == DOCUMENT
    assert_said(answer, "GET", "/openapi.json")


def test_its_calls_are_those_of_the_server() -> None:
    served = {
        (method.decode().lower(), path.decode())
        for path, route in Site().hub.routes.items()
        for method in route.methods
    }
    assert served == {(method, path) for path, calls in PATHS.items() for method in calls}


# -- codes -----------------------------------------------------------------------------------------


def raised() -> Iterator[str]:
    """The codes that stand in calls of Rejection, Rule and their makers, anywhere in the code."""
    code_at = {"Rejection": 1, "Rule": 2, "invalid_event": 0, "internal": 0}
    for path in (ROOT / "ingestd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            at = code_at.get(getattr(node.func, "id", ""))
            if at is None or len(node.args) <= at or isinstance(node.args[0], ast.Starred):
                continue
            code = node.args[at]
            if isinstance(code, ast.Constant):
                yield str(code.value)
            elif isinstance(code, ast.JoinedStr):
                # A decoder's own name.
                yield from ("invalid_gzip", "invalid_deflate", "invalid_zstd")
            else:
                # Passed on by a maker, from an error that has one.
                assert ast.unparse(code) in ("code", "e.code", "rejection.code", "invalid[0].code"), (
                    f"{path}:{node.lineno}"
                )


def test_every_code_stands_in_the_document_and_no_other() -> None:
    said = {
        code
        for calls in PATHS.values()
        for call in calls.values()
        for response in call["responses"].values()
        for content in response.get("content", {}).values()
        for code in content["schema"].get("properties", {}).get("code", {}).get("enum", [])
    }
    found = {*raised()}
    assert len(found) > 30
    assert said == found - NOT_IN_IT.keys()


# -- answers ---------------------------------------------------------------------------------------

LINE: Final = re.compile(rb"(GET|HEAD|POST) (/[a-z0-9/.-]*)[ ?]")


def for_its_calls() -> Iterator[Any]:
    """The cases that are for a call of the document, with its method and path."""
    for case in CASES:
        line = LINE.match(case.raw)
        method, path = (line[1].decode(), line[2].decode()) if line else ("", "")
        if method.lower() in PATHS.get(path, {}):
            yield pytest.param(case.raw, method, path, id=case.name)


@pytest.mark.parametrize(("raw", "method", "path"), [*for_its_calls()])
def test_heads_of_all_kinds_are_answered_as_it_says(raw: bytes, method: str, path: str) -> None:
    assert_said(answered(raw, method), method, path)


BODIES: Final = {
    **{
        f"bad {name}": post(raw, headers=[f"Content-Encoding: {make.name}"])
        for name, (make, raw) in BAD.items()
    },
    "no key": head("POST /v1/track HTTP/1.1", ["Content-Length: 1"], auth=False) + b"1",
    "too large": post(b" " * 5000),
    "not UTF-8": post(encoded(event()).replace(b"signup", b"\xff")),
    "no JSON": post(b"{"),
    "no event": post(b"{}"),
    "too deep": post(encoded(event()).replace(b'"basic"', b"[" * 150 + b"]" * 150)),
    "out of range": post(encoded(event()).replace(b'"basic"', b"1e999")),
    "good": post(encoded(event())),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_of_all_kinds_are_answered_as_it_says(name: str) -> None:
    answer = answered(BODIES[name], site=Site(body_bytes_max=4096))
    assert answer.status == (200 if name == "good" else answer.status)
    assert_said(answer, "POST", "/v1/track")


def test_refusals_for_the_servers_sake_are_answered_as_it_says() -> None:
    site = Site(not_ready=lambda: "storage fails")
    assert_said(answered(head("GET /readyz HTTP/1.1"), "GET", site), "GET", "/readyz")
    assert_said(answered(post(encoded(event())), error=StorageError("no")), "POST", "/v1/track")
    busy = Site(inflight_bytes_max=1024)
    assert_said(answered(post(encoded(event(pad="x" * 2000))), site=busy), "POST", "/v1/track")
    slow = Wire(Site())
    slow.feed(post(encoded(event()))[:-1])
    slow.site.tick(61)
    assert_said(slow.answer(), "POST", "/v1/track")


def examples() -> Iterator[tuple[str, str, Any]]:
    for path, calls in PATHS.items():
        for call in calls.values():
            for kind, content in call.get("requestBody", {}).get("content", {}).items():
                yield path, kind, content


@pytest.mark.parametrize(("path", "kind", "content"), [*examples()])
def test_its_examples_are_valid_and_taken(path: str, kind: str, content: Any) -> None:
    example = content["example"]
    jsonschema.validate(example, content["schema"])
    body = b"\n".join(map(encoded, example)) if kind == "application/x-ndjson" else encoded(example)
    answer = answered(post(body, path, [f"Content-Type: {kind}"]))
    assert answer.status == 200
    assert_said(answer, "POST", path)
