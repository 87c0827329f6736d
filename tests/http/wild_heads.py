"""The rest of wild_cases: request lines, targets, header fields, and what is said of the connection."""

from __future__ import annotations

from typing import Final

from tests.http.guard_cases import BODY, LENGTH, SMUGGLED
from tests.support.requests import head, post

GET: Final = "GET /healthz HTTP/1.1"
POST: Final = "POST /v1/track HTTP/1.1"


def _starts(names: dict[str, str]) -> dict[str, bytes]:
    return {name: head(start, [LENGTH]) + BODY for name, start in names.items()}


def _fields(names: dict[str, str]) -> dict[str, bytes]:
    return {name: head(POST, [line, LENGTH]) + BODY for name, line in names.items()}


LINES_REFUSED: Final = {
    **_starts(
        {
            "space before the method": " POST /v1/track HTTP/1.1",
            "tab before the method": "\tPOST /v1/track HTTP/1.1",
            "tab after the method": "POST\t/v1/track HTTP/1.1",
            "two spaces after the method": "POST  /v1/track HTTP/1.1",
            "two spaces after the target": "POST /v1/track  HTTP/1.1",
            "tab after the target": "POST /v1/track\tHTTP/1.1",
            "space after the version": "POST /v1/track HTTP/1.1 ",
            "tab after the version": "POST /v1/track HTTP/1.1\t",
            "no method": "/v1/track HTTP/1.1",
            "no target": "POST HTTP/1.1",
            "no version": "POST /v1/track",
            "method in lower case": "post /v1/track HTTP/1.1",
            "method in both cases": "PoST /v1/track HTTP/1.1",
            "method with a slash": "PO/ST /v1/track HTTP/1.1",
            "method with a colon": "POST: /v1/track HTTP/1.1",
            "method with a NUL": "POS\x00T /v1/track HTTP/1.1",
            "method beyond ASCII": "PO\xdfT /v1/track HTTP/1.1",
            "method with a tail": "POSTX /v1/track HTTP/1.1",
            "method of 2,000 letters": f"{'P' * 2000} /v1/track HTTP/1.1",
            "method of another protocol": "ANNOUNCE /v1/track HTTP/1.1",
            "http in lower case": "POST /v1/track http/1.1",
            "another name for HTTP": "POST /v1/track IHTTP/1.1",
            "HTTPS for HTTP": "POST /v1/track HTTPS/1.1",
            "version 1.1.1": "POST /v1/track HTTP/1.1.1",
            "version 11": "POST /v1/track HTTP/11",
            "version 1,1": "POST /v1/track HTTP/1,1",
            "version with a space": "POST /v1/track HTTP/ 1.1",
            "version 1.": "POST /v1/track HTTP/1.",
            "version .1": "POST /v1/track HTTP/.1",
            "version -1.1": "POST /v1/track HTTP/-1.1",
            "version 5.6": "POST /v1/track HTTP/5.6",
            "version 1.\u00b9": "POST /v1/track HTTP/1.\xb9",
            "version twice": "POST /v1/track HTTP/1.1 HTTP/1.1",
            "bare CR in the line": "POST /v1/track\rHTTP/1.1",
            "bare CR after the version": "POST /v1/track HTTP/1.1\rX: a",
            "bare LF after the version": "POST /v1/track HTTP/1.1\nX: a",
            "CR CR LF after the version": "POST /v1/track HTTP/1.1\r",
        }
    ),
    "a letter before the method": b"X" + post(BODY),
    "a NUL before the method": b"\x00" + post(BODY),
    "a byte order mark before the method": b"\xef\xbb\xbf" + post(BODY),
    "an answer for a request": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a header for a request": b"Host: a\r\n\r\n",
    "a proxy's line before": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + post(BODY),
    "JSON for a request": BODY + b"\r\n\r\n",
    "a space alone in the first line": b" \r\n" + post(BODY),
}
LINES_READ: Final = {
    **_starts({"version 1.0": "POST /v1/track HTTP/1.0"}),
    "an empty line before": b"\r\n" + post(BODY),
    "many empty lines before": b"\r\n" * 50 + post(BODY),
}

TARGETS_REFUSED: Final = _starts(
    {
        "absolute form": "POST http://events.example/v1/track HTTP/1.1",
        "absolute form in capitals": "POST HTTP://events.example/v1/track HTTP/1.1",
        "absolute form with https": "POST https://events.example/v1/track HTTP/1.1",
        "absolute form of another host": "POST http://other.example/v1/track HTTP/1.1",
        "absolute form with a user": "POST http://u:p@events.example/v1/track HTTP/1.1",
        "asterisk form": "OPTIONS * HTTP/1.1",
        "asterisk form with POST": "POST * HTTP/1.1",
        "authority form": "POST events.example:80 HTTP/1.1",
        "authority form with CONNECT": "CONNECT events.example:80 HTTP/1.1",
        "relative path": "POST v1/track HTTP/1.1",
        "query alone": "POST ?a HTTP/1.1",
        "fragment alone": "POST #a HTTP/1.1",
        "backslash first": "POST \\v1\\track HTTP/1.1",
        "control character": "POST /v1/track\x01 HTTP/1.1",
        "DEL": "POST /v1/track\x7f HTTP/1.1",
        "NUL": "POST /v1/track\x00 HTTP/1.1",
        "beyond ASCII": "POST /v1/track\xe9 HTTP/1.1",
        "space inside": "POST /v1/ track HTTP/1.1",
        "too long": f"POST /v1/track?{'a' * 3000} HTTP/1.1",
        "dots": "POST /v1/../v1/track HTTP/1.1",
        "slashes": "POST //v1/track HTTP/1.1",
        "slash encoded": "POST /v1%2ftrack HTTP/1.1",
        "letter encoded": "POST /v1/trac%6b HTTP/1.1",
        "NUL encoded": "POST /v1/track%00 HTTP/1.1",
        "newline encoded": "POST /v1/track%0d%0a HTTP/1.1",
        "fragment": "POST /v1/track#a HTTP/1.1",
        "parameter": "POST /v1/track;a=b HTTP/1.1",
    }
)
TARGETS_READ: Final = _starts(
    {
        "query": "POST /v1/track?a=b&c HTTP/1.1",
        "query empty": "POST /v1/track? HTTP/1.1",
        "query of query marks": "POST /v1/track??/?:@ HTTP/1.1",
        "query encoded": "POST /v1/track?%00%0d%0a%zz HTTP/1.1",
        "query with a fragment": "POST /v1/track?a#b HTTP/1.1",
        "query with brackets": 'POST /v1/track?[a]={b}|"<c>"^`\\ HTTP/1.1',
    }
)

FIELDS_REFUSED: Final = {
    **_fields(
        {
            "space before the colon": "X : a",
            "tab before the colon": "X\t: a",
            "space in a name": "X Y: a",
            "name of nothing": ": a",
            "name of a space": " : a",
            "name with an at sign": "X@: a",
            "name with a NUL": "X\x00Y: a",
            "name with a control character": "X\x01Y: a",
            "name with DEL": "X\x7f: a",
            "name beyond ASCII": "X\xe9: a",
            "name in quotes": '"X": a',
            "name with a slash": "X/Y: a",
            "name with a bracket": "X[0]: a",
            "name without a colon": "X",
            "name folded": "X\r\n : a",
            "value folded with a space": "X: a\r\n b",
            "value folded with a tab": "X: a\r\n\tb",
            "value folded with nothing": "X: a\r\n ",
            "value with a NUL": "X: a\x00",
            "value with a bare CR": "X: a\rb",
            "value with a bare LF": "X: a\nb",
            "value with CR CR": "X: a\r",
            "value with an escape": "X: \x1b[0m",
            "value with a bell": "X: a\x07",
            "value with a vertical tab": "X: a\x0bb",
            "value with DEL": "X: a\x7f",
            "NUL in a line of its own": "\x00",
            "a request for a field": "GET /healthz HTTP/1.1",
            "too long": f"X: {'a' * 20_000}",
            "too many": "\r\n".join(["X: a"] * 200),
        }
    ),
    "blank line of CR and other bytes": head(GET)[:-2] + b"\rZ" + SMUGGLED,
    "blank line of LF": head(GET)[:-2] + b"\n",
    "a space before the first field": post(BODY).replace(b"\r\n", b"\r\n ", 1),
    "Host folded": post(BODY).replace(b"Host: ", b"Host:\r\n "),
    "Host with a NUL": post(BODY).replace(b"events.example", b"events\x00.example"),
    "Host with a comma": post(BODY).replace(b"events.example", b"events.example, b"),
    "Host with a path": post(BODY).replace(b"events.example", b"events.example/a"),
    "Host with a user": post(BODY).replace(b"events.example", b"a@events.example"),
    "Host beyond ASCII": post(BODY).replace(b"events.example", b"\xe9vents.example"),
    "Host absent": post(BODY).replace(b"Host: events.example\r\n", b""),
    "Host twice": post(BODY, headers=["Host: events.example"]),
}
FIELDS_READ: Final = {
    **_fields(
        {
            "name of every mark": "!#$%&'*+-.^_`|~09azAZ: a",
            "name of a digit": "0: a",
            "name with an underscore": "X_Y: a",
            "value empty": "X:",
            "value of spaces": "X: \t ",
            "value with spaces around": "X:  \t a \t ",
            "value with tabs inside": "X: a\tb",
            "value with colons": "X: a:b: c",
            "value beyond ASCII": "X: \x80\xe9\xff",
            "value in quotes": 'X: "a\\"b"',
            "same name twice": "X: a\r\nX: b",
        }
    ),
    "Host empty": post(BODY).replace(b" events.example", b""),
    "Host with a port": post(BODY).replace(b"events.example", b"events.example:8080"),
    "Host with zones": post(BODY).replace(b"events.example", b"[2001:db8::1]:80"),
}

CONNECTIONS_READ: Final = {
    f"Connection {value!r} on {version}": post(BODY, headers=[f"Connection: {value}"], version=version)
    for value in (
        "close",
        "Close",
        "CLOSE",
        "close ",
        "keep-alive",
        "Keep-Alive",
        "close, keep-alive",
        "keep-alive, close",
        "close,",
        ",close",
        "x, close, y",
        "x,close",
        "closed",
        "xclose",
        "clos",
        "close x",
        '"close"',
        "keep-alive x",
        "",
    )
    for version in ("1.1", "1.0")
} | {
    "Connection twice, close last": post(BODY, headers=["Connection: keep-alive", "Connection: close"]),
    "Connection twice, close first": post(BODY, headers=["Connection: close", "Connection: keep-alive"]),
    "Connection names another header": post(BODY, headers=["Connection: Content-Length, Host"]),
    "Proxy-Connection: close": post(BODY, headers=["Proxy-Connection: close"]),
}
CONNECTIONS_REFUSED: Final = {
    "Connection folded": post(BODY, headers=["Connection: keep-alive,\r\n close"]),
    "Connection cut by CR": post(BODY, headers=["Connection\r\x1b\x05\xd5eep-Alive"]),
    "Upgrade and a body": post(BODY, headers=["Connection: upgrade", "Upgrade: ws"]),
    "Upgrade and bytes after": post(BODY, headers=["Connection: upgrade", "Upgrade: h2c"]) + SMUGGLED,
    "Expect of another kind": post(BODY, headers=["Expect: 101-continue"]),
}
