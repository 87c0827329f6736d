"""Requests that a guard refuses, and near misses that must pass, each with its answer."""

from __future__ import annotations

import gzip
import zlib
from typing import Final, NamedTuple

import zstandard

from tests.support.requests import chunks, encoded, event, head, post, post_chunked


class Case(NamedTuple):
    """One raw request; `code` is None where it must be answered 200."""

    name: str
    raw: bytes
    status: int
    code: str | None
    method: str = "POST"


BODY: Final = encoded(event("case"))
ZSTD_BODY: Final = zstandard.compress(BODY)
SMUGGLED: Final = post(encoded(event("smuggled")))
LENGTH: Final = f"Content-Length: {len(BODY)}"
CHUNKED: Final = "Transfer-Encoding: chunked"


def _post(
    *headers: str, start: str = "POST /v1/track HTTP/1.1", body: bytes = BODY, host: bool = True
) -> bytes:
    return head(start, headers, host=host) + body


def _get(start: str, *headers: str, host: bool = True) -> bytes:
    return head(start, headers, host=host, auth=False)


def _refused(status: int, code: str, requests: dict[str, bytes], method: str = "POST") -> list[Case]:
    return [Case(name, raw, status, code, method) for name, raw in requests.items()]


def _passes(requests: dict[str, bytes], method: str = "POST") -> list[Case]:
    return [Case(name, raw, 200, None, method) for name, raw in requests.items()]


VERSIONS: Final = [
    *_refused(
        505,
        "version_not_supported",
        {
            "HTTP/0.9 without a version": b"GET /healthz\r\n\r\n",
            "HTTP/0.9": _get("GET /healthz HTTP/0.9"),
            "HTTP/1.2": _get("GET /healthz HTTP/1.2"),
            "HTTP/3.0": _get("GET /healthz HTTP/3.0"),
            "HTTP/2.0": _get("GET /healthz HTTP/2.0"),
            "POST with HTTP/2.0": _post(LENGTH, start="POST /v1/track HTTP/2.0"),
        },
    ),
    *_refused(
        400,
        "bad_request",
        {
            "HTTP/1.10": _get("GET /healthz HTTP/1.10"),
            "HTTP/01.1": _get("GET /healthz HTTP/01.1"),
            "HTTP/1": _get("GET /healthz HTTP/1"),
            "lower case http": _get("GET /healthz http/1.1"),
            "space after the version": _get("GET /healthz HTTP/1.1 "),
            "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            "lower case method": _get("get /healthz HTTP/1.1"),
            "unknown method": _get("INGEST /healthz HTTP/1.1"),
            "space before the method": _get(" GET /healthz HTTP/1.1"),
        },
    ),
    *_passes({"HTTP/1.0 without a Host": _post(LENGTH, start="POST /v1/track HTTP/1.0", host=False)}),
]

HOSTS: Final = [
    *_refused(400, "missing_host", {"no Host": _post(LENGTH, host=False)}),
    *_refused(
        400,
        "bad_host",
        {
            f"Host {host!r}": _post(f"Host: {host}", LENGTH, host=False)
            for host in ("a b", "a/b", "u@a", "a:b", "a:123456", "[::1", "::1", "a, b", "http://a", "a\\b")
        },
    ),
    *_refused(
        400,
        "repeated_header",
        {
            "two Hosts": _post("Host: b", LENGTH),
            "the same Host twice": _post("host: events.example", LENGTH),
        },
    ),
    *_passes(
        {
            f"Host {host!r}": _post(f"Host: {host}", LENGTH, host=False)
            for host in (
                "a",
                "A.B-c_d",
                "a:80",
                "a:",
                "127.0.0.1:8080",
                "[::1]",
                "[::1]:8080",
                "xn--nxasmq6b",
            )
        }
    ),
]

FRAMING: Final = [
    *_refused(
        400,
        "bad_request",
        {
            "Content-Length twice": _post(LENGTH, LENGTH),
            "two Content-Lengths": _post(LENGTH, "Content-Length: 3"),
            "Content-Length as a list": _post(f"{LENGTH}, {len(BODY)}"),
            "Content-Length with a plus": _post(f"Content-Length: +{len(BODY)}"),
            "Content-Length with a minus": _post("Content-Length: -1"),
            "Content-Length in hex": _post("Content-Length: 0x80"),
            "Content-Length empty": _post("Content-Length:"),
            "Content-Length beyond 64 bits": _post("Content-Length: 18446744073709551617"),
            "Content-Length with a space inside": _post("Content-Length: 1 2"),
            "length after chunked": _post(CHUNKED, "Content-Length: 3", body=chunks(BODY)),
            "chunked after length": _post(LENGTH, CHUNKED, body=chunks(BODY)),
            "length and chunked around a request": _post(
                "Content-Length: 5", CHUNKED, body=b"0\r\n\r\n" + SMUGGLED
            ),
            "chunked twice in one": _post("Transfer-Encoding: chunked, chunked", body=chunks(BODY)),
            "chunked, then another": _post("Transfer-Encoding: chunked, gzip", body=chunks(BODY)),
            "Transfer-Encoding empty": _post("Transfer-Encoding:", LENGTH),
            "space before the colon": _post("Transfer-Encoding : chunked", body=chunks(BODY)),
            "chunked after a vertical tab": _post("Transfer-Encoding: \x0bchunked", body=chunks(BODY)),
            "folded header": _post("X-Long: a\r\n b", LENGTH),
            "folded Transfer-Encoding": _post("Transfer-Encoding:\r\n chunked", body=chunks(BODY)),
            "NUL in a value": _post("X: a\x00b", LENGTH),
            "bare CR in a value": _post("X: a\rTransfer-Encoding: chunked", LENGTH),
            "bare LF after a value": _post(f"X: a\n{CHUNKED}", LENGTH),
            "bare LF in all lines": _post(LENGTH).replace(b"\r\n", b"\n"),
            "header without a name": _post(": a", LENGTH),
            "header without a colon": _post("X", LENGTH),
            "header with a bracket in its name": _post("X(: a", LENGTH),
            "header before the first line ends": _post(" X: a", LENGTH),
        },
    ),
    *_refused(
        400,
        "bad_transfer_encoding",
        {"chunked on HTTP/1.0": _post(CHUNKED, start="POST /v1/track HTTP/1.0", body=chunks(BODY))},
    ),
    *_refused(
        501,
        "bad_transfer_encoding",
        {
            "gzip, chunked": _post("Transfer-Encoding: gzip, chunked", body=chunks(gzip.compress(BODY))),
            "identity, chunked": _post("Transfer-Encoding: identity, chunked", body=chunks(BODY)),
            "xchunked": _post("Transfer-Encoding: xchunked", body=chunks(BODY)),
            "chunked with a parameter": _post("Transfer-Encoding: chunked;q=1", body=chunks(BODY)),
            "identity": _post("Transfer-Encoding: identity", body=b""),
        },
    ),
    *_passes(
        {
            "Content-Length with zeros before it": _post(f"Content-Length: 000{len(BODY)}"),
            "Content-Length with spaces before": _post(f"Content-Length:  \t{len(BODY)}"),
            "Chunked in capitals": _post("TRANSFER-ENCODING: Chunked", body=chunks(BODY)),
            "a header with an empty value": _post("X-Empty:", LENGTH),
            "a header in latin-1": _post("X-Name: \xe9\xff", LENGTH),
            "empty lines before": b"\r\n\r\n" + _post(LENGTH),
            "TE: trailers": _post("TE: trailers", LENGTH),
        }
    ),
]

CHUNKS: Final = [
    *_refused(
        400,
        "bad_request",
        {
            f"chunk {name}": _post(CHUNKED, body=raw)
            for name, raw in {
                "size with 0x": b"0x%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
                "size with a plus": b"+%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
                "size negative": b"-1\r\n%s\r\n0\r\n\r\n" % BODY,
                "size absent": b"\r\n%s\r\n0\r\n\r\n" % BODY,
                "size with an underscore": b"1_0\r\n%s\r\n0\r\n\r\n" % BODY,
                "size beyond 64 bits": b"10000000000000001\r\n%s\r\n0\r\n\r\n" % BODY,
                "size and a space": b"%x \r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
                "shorter than its size": b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY) + 1, BODY),
                "longer than its size": b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY) - 1, BODY),
                "without CRLF after it": b"%x\r\n%s0\r\n\r\n" % (len(BODY), BODY),
                "lines that end with LF": chunks(BODY).replace(b"\r\n", b"\n"),
                "extension with a CR": b"%x;a\rb\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
            }.items()
        },
    ),
    *_passes(
        {
            "chunk extensions": _post(CHUNKED, body=b'%x;a=b;c="d"\r\n%s\r\n0;e\r\n\r\n' % (len(BODY), BODY)),
            "chunk sizes with zeros before": _post(
                CHUNKED, body=b"0000%x\r\n%s\r\n000\r\n\r\n" % (len(BODY), BODY)
            ),
            "chunk sizes in capitals": _post(CHUNKED, body=b"%X\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)),
            "chunks of one byte": post_chunked(BODY, size=1),
            "a trailer": post_chunked(BODY, trailers=["X-Checksum: 1"]),
        }
    ),
]

TARGETS: Final = [
    *_refused(
        400,
        "bad_target",
        {
            "absolute form": _get("GET http://events.example/healthz HTTP/1.1"),
            "asterisk form": _get("OPTIONS * HTTP/1.1"),
        },
    ),
    *_refused(
        400,
        "bad_request",
        {
            "no slash": _get("GET healthz HTTP/1.1"),
            "space in the target": _get("GET /health z HTTP/1.1"),
            "control in the target": _get("GET /health\x01z HTTP/1.1"),
            "bytes beyond ASCII in the target": _get("GET /healthz?\xe9 HTTP/1.1"),
        },
    ),
    *_refused(
        400,
        "bad_request_line",
        {
            "two spaces before the target": _post(LENGTH, start="POST  /v1/track HTTP/1.1"),
            "two spaces after the target": _post(LENGTH, start="POST /v1/track  HTTP/1.1"),
            "RTSP": _get("GET /healthz RTSP/1.0"),
            "ICE": _get("SOURCE /healthz ICE/1.0"),
        },
    ),
    *_refused(414, "target_too_long", {"a long target": _get(f"GET /healthz?{'x' * 2040} HTTP/1.1")}),
    *_refused(501, "method_not_implemented", {"CONNECT": _get("CONNECT a.example:443 HTTP/1.1") + SMUGGLED}),
    *_refused(
        400,
        "upgrade_refused",
        {
            "Upgrade to h2c": _post("Connection: Upgrade", "Upgrade: h2c", LENGTH),
            "Upgrade to websocket": _get(
                "GET /healthz HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket"
            ),
            "Upgrade around a request": _get("GET /healthz HTTP/1.1", "Connection: Upgrade", "Upgrade: x")
            + SMUGGLED,
            "Upgrade alone": _post("Upgrade: h2c", LENGTH),
        },
    ),
    *_passes({"the longest target": _get(f"GET /healthz?{'x' * 2039} HTTP/1.1")}, "GET"),
    *_passes({"Connection: upgrade alone": _post("Connection: upgrade", LENGTH)}),
]

HEADERS: Final = [
    *_refused(
        431,
        "header_too_large",
        {
            "101 headers": _post(LENGTH, *(f"X-{i}: v" for i in range(98))),
            "one long header": _post(LENGTH, f"X: {'v' * 17_000}"),
            "many headers of 17 KiB": _post(LENGTH, *(f"X-{i}: {'v' * 1000}" for i in range(17))),
            "a long name": _post(LENGTH, f"{'X' * 17_000}: v"),
        },
    ),
    *_refused(
        400,
        "repeated_header",
        {
            "Authorization twice": _post("Authorization: Bearer other", LENGTH),
            "Content-Type twice": _post("Content-Type: a/b", "content-type: a/b", LENGTH),
            "Content-Encoding twice": _post("Content-Encoding: identity", "Content-Encoding: gzip", LENGTH),
            "Expect twice": _post("Expect: 100-continue", "Expect: 100-continue", LENGTH),
        },
    ),
    *_refused(
        415,
        "unsupported_encoding",
        {
            f"Content-Encoding {encoding}": _post(f"Content-Encoding: {encoding}", LENGTH)
            for encoding in (
                "br",
                "compress",
                "gzip, gzip",
                "gzip, identity",
                "deflate, gzip",
                "zstd,",
                ", zstd",
                "zstd;level=3",
                "gzip;q=1",
                "*",
                "xgzip",
            )
        },
    ),
    *_refused(
        417,
        "expectation_failed",
        {
            f"Expect {value}": _post(f"Expect: {value}", LENGTH)
            for value in ("200-ok", "100-continue, x", "100", "x=1")
        },
    ),
    *_passes(
        {
            "100 headers": _post(LENGTH, *(f"X-{i}: v" for i in range(97))),
            "a header of 15 KiB": _post(LENGTH, f"X: {'v' * 15_000}"),
            "a free header twice": _post("X-Forwarded-For: a", "X-Forwarded-For: b", LENGTH),
            "Content-Encoding identity": _post("Content-Encoding: Identity", LENGTH),
            "Content-Encoding x-gzip": post(gzip.compress(BODY), headers=["Content-Encoding: X-GZIP"]),
            "Content-Encoding deflate": post(zlib.compress(BODY), headers=["Content-Encoding: Deflate"]),
            "Content-Encoding zstd": post(ZSTD_BODY, headers=["content-encoding: ZSTD"]),
            "Content-Type of any kind": _post("Content-Type: text/plain; charset=utf-8", LENGTH),
            "Expect in capitals": _post("EXPECT: 100-CONTINUE", LENGTH),
        }
    ),
]

CASES: Final = [*VERSIONS, *HOSTS, *FRAMING, *CHUNKS, *TARGETS, *HEADERS]
