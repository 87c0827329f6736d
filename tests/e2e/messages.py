"""Requests as bytes, and what an error must look like."""

from __future__ import annotations

from tests.support.server import Answer


def assert_error(answer: Answer, status: int, error: str, code: str, detail: str = "") -> None:
    """The answer is this error: exact status, text and code, `detail` somewhere in its detail."""
    assert (answer.status, answer.json["error"], answer.json["code"]) == (status, error, code)
    assert detail in answer.json.get("detail", "")
    assert answer.headers["Content-Type"] == "application/json"


def head(*lines: str, key: str = "") -> bytes:
    """The head of a request: its first line, a Host, perhaps a key, further headers."""
    authorization = [f"Authorization: Bearer {key}"] if key else []
    return "\r\n".join([lines[0], "Host: x", *authorization, *lines[1:], "", ""]).encode()


def post(body: bytes, key: str, path: str = "/v1/track") -> bytes:
    """A whole POST."""
    return head(f"POST {path} HTTP/1.1", f"Content-Length: {len(body)}", key=key) + body
