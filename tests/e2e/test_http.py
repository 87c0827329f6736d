"""What HTTP asks of any server (RFC 9110, RFC 9112), over real sockets."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from tests.e2e.messages import assert_error, head, post
from tests.support.server import EVENT, Client, Server
from tests.support.tools import tool


@pytest.mark.parametrize(
    ("lines", "status", "code"),
    [
        (["GET / HTTP/1.1"], 404, "not_found"),
        (["POST /v1/trac HTTP/1.1", "Content-Length: 2"], 404, "not_found"),
        (["POST /v1/track/ HTTP/1.1", "Content-Length: 2"], 404, "not_found"),
        ([f"GET /{'x' * 3000} HTTP/1.1"], 414, "target_too_long"),
        (
            ["POST /v1/track HTTP/1.1", "Content-Encoding: br", "Content-Length: 2"],
            415,
            "unsupported_encoding",
        ),
        (["POST /v1/track HTTP/1.1", "Expect: a miracle", "Content-Length: 2"], 417, "expectation_failed"),
        (["GET /healthz HTTP/1.1", f"X-Long: {'x' * 20_000}"], 431, "header_too_large"),
        (["GET /healthz HTTP/1.1", *["X: y"] * 200], 431, "header_too_large"),
        (["CONNECT x:1 HTTP/1.1"], 501, "method_not_implemented"),
        (["POST /v1/track HTTP/1.1", "Transfer-Encoding: gzip, chunked"], 501, "bad_transfer_encoding"),
        (["GET /healthz HTTP/2.0"], 505, "version_not_supported"),
        (["POST /v1/track HTTP/1.1", "Content-Length: 2", "Transfer-Encoding: chunked"], 400, None),
        (["GET /healthz HTTP/1.1", "Host: second"], 400, "repeated_header"),
        (["this is not HTTP"], 400, "bad_request"),
    ],
)
def test_a_request_that_HTTP_forbids_is_answered_as_HTTP_says(
    server: Server, lines: list[str], status: int, code: str | None
) -> None:
    with server.raw() as raw:
        raw.send(head(*lines, key=server.key))
        answer = raw.answer()
        assert raw.rest() == b"", "the connection must close, for its framing is in doubt"
    assert answer.status == status
    assert answer.headers["Connection"] == "close"
    assert code is None or answer.json["code"] == code


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/track", "POST"),
        ("PUT", "/v1/bulk-track", "POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("DELETE", "/readyz", "GET, HEAD"),
    ],
)
def test_a_wrong_method_gets_405_with_Allow(client: Client, method: str, path: str, allow: str) -> None:
    answer = client.request(method, path)
    assert_error(answer, 405, "Method not allowed.", "method_not_allowed")
    assert answer.headers["Allow"] == allow


def test_a_request_that_does_not_end_gets_408(tmp_path: Path) -> None:
    settings = {"header_timeout_s": 0.2, "request_timeout_s": 0.4}
    with Server(tmp_path, **settings) as server, server.raw() as slow_head, server.raw() as slow_body:
        slow_head.send(b"POST /v1/track HTT")
        slow_body.send(head("POST /v1/track HTTP/1.1", "Content-Length: 99", key=server.key) + b"{")
        assert_error(slow_head.answer(), 408, "Request timeout.", "request_timeout")
        assert_error(slow_body.answer(), 408, "Request timeout.", "request_timeout")


def test_every_answer_has_the_Date_of_now(client: Client) -> None:
    answers = [client.post("/v1/track", EVENT), client.post("/v1/track", b"{}"), client.request("GET", "/x")]
    for answer in answers:
        age = datetime.now(UTC) - parsedate_to_datetime(answer.headers["Date"])
        assert abs(age) < timedelta(minutes=1)


def test_a_connection_is_kept_alive(server: Server) -> None:
    with server.raw() as raw:
        for number in range(3):
            raw.send(post(json.dumps(EVENT | {"messageId": f"k{number}"}).encode(), server.key))
            answer = raw.answer()
            assert answer.json["messageId"] == f"k{number}"
            assert "Connection" not in answer.headers


def test_Connection_close_is_obeyed(server: Server) -> None:
    with server.raw() as raw:
        raw.send(head("GET /healthz HTTP/1.1", "Connection: close"))
        assert raw.answer().headers["Connection"] == "close"
        assert raw.rest() == b""


def test_pipelined_requests_are_answered_in_their_order(server: Server) -> None:
    requests = b""
    for number in range(50):
        requests += post(json.dumps(EVENT | {"messageId": f"p{number}"}).encode(), server.key)
        requests += head("GET /healthz HTTP/1.1")
    with server.raw() as raw:
        raw.send(requests + post(b"{}", server.key) + requests)
        for number in range(50):
            assert raw.answer().json == {"status": "ok", "messageId": f"p{number}"}
            assert raw.answer().json == {"status": "ok"}
        last = raw.answer()
        assert (last.status, last.headers["Connection"]) == (400, "close")
        assert raw.rest() == b"", "what is sent behind an error is not answered"


def test_HTTP_1_0_closes_unless_keep_alive_is_asked_for(server: Server) -> None:
    with server.raw() as raw:
        raw.send(head("GET /healthz HTTP/1.0", "Connection: keep-alive"))
        assert raw.answer().headers["Connection"] == "keep-alive"
        raw.send(head("GET /healthz HTTP/1.0"))
        assert raw.answer().headers["Connection"] == "close"
        assert raw.rest() == b""


def test_a_half_closed_client_still_gets_its_answer(server: Server) -> None:
    with server.raw() as raw:
        raw.send(post(json.dumps(EVENT).encode(), server.key))
        raw.end()
        assert raw.answer().status == 200
        assert raw.rest() == b""


def test_curl_waits_for_100_continue_and_gets_it(server: Server, tmp_path: Path) -> None:
    (tmp_path / "body.json").write_text(json.dumps([EVENT] * 5))
    done = _curl(server, tmp_path, "/v1/bulk-track", "-H", f"Authorization: Bearer {server.key}")
    assert "< HTTP/1.1 100 Continue" in done.stderr
    assert len(json.loads(done.stdout)["messageIds"]) == 5


def test_curl_that_expects_100_continue_is_refused_without_sending_its_body(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "body.json").write_text(json.dumps([EVENT] * 5))
    done = _curl(server, tmp_path, "/v1/bulk-track")
    assert "< HTTP/1.1 401 Unauthorized" in done.stderr
    assert "100 Continue" not in done.stderr


def _curl(server: Server, folder: Path, path: str, *options: str) -> subprocess.CompletedProcess[str]:
    """POST body.json; curl waits 20 s for the 100 before it would send the body all the same."""
    command = [tool("curl"), "-sv", "-H", "Expect: 100-continue", "--expect100-timeout", "20", *options]
    return subprocess.run(
        [*command, "--data-binary", "@body.json", f"http://{server.host}:{server.port}{path}"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_answer_GET_and_HEAD_alike(server: Server, path: str) -> None:
    with server.raw() as raw:
        raw.send(head(f"GET {path} HTTP/1.1"))
        got = raw.answer()
        raw.send(head(f"HEAD {path} HTTP/1.1"))
        asked = raw.answer(has_body=False)
        raw.send(head(f"GET {path} HTTP/1.1"))
        assert raw.answer().json == got.json == {"status": "ok"}
    assert asked.status == got.status == 200
    assert [h for h in asked.headers.items() if h[0] != "Date"] == [
        h for h in got.headers.items() if h[0] != "Date"
    ]
