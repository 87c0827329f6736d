"""Requests of the kinds that other projects test their readers with, beside those in guard_cases.

The families are those of llhttp, gunicorn, the HTTP Garden and the request smuggling literature. Each
request stands under what a careful server does with it: read it, or refuse it.
"""

from __future__ import annotations

import gzip
import zlib
from typing import Final

from tests.http import wild_heads
from tests.http.guard_cases import BODY, CHUNKED, LENGTH, SMUGGLED, ZSTD_BODY
from tests.support.requests import chunks, head, post, post_chunked

SIZE: Final = len(BODY)
ONE_CHUNK: Final = b"%x\r\n%s\r\n" % (SIZE, BODY)
LAST: Final = b"0\r\n\r\n"
GET: Final = "GET /healthz HTTP/1.1"


def _post(*headers: str, body: bytes = BODY, start: str = "POST /v1/track HTTP/1.1") -> bytes:
    return head(start, headers) + body


def _chunked(body: bytes, *headers: str) -> bytes:
    return _post(CHUNKED, *headers, body=body)


def _spoiled(old: bytes, new: bytes, raw: bytes | None = None) -> bytes:
    """A good request with one place changed."""
    raw = _post(LENGTH) if raw is None else raw
    assert old in raw
    return raw.replace(old, new, 1)


def _named(what: str, values: list[str], header: str, body: bytes = BODY) -> dict[str, bytes]:
    return {f"{what} {value!r}": _post(f"{header}{value}", body=body) for value in values}


LENGTHS_REFUSED: Final = {
    **_named(
        "length",
        [
            "5, 5",
            "5,5",
            "5, 6",
            ",5",
            "5,",
            "0x5",
            "5_0",
            "5.0",
            "5e0",
            "5;",
            "five",
            "\u00b2",
            "-0",
            "+0",
            "0 0",
        ],
        "Content-Length: ",
    ),
    **_named(
        "length", ["\x0b5", "5\x0c", "\xa05", '"5"', "9" * 30, "18446744073709551616"], "Content-Length: "
    ),
    "length of spaces": _post("Content-Length:  \t "),
    "length beyond the limit": _post("Content-Length: 999999999999999999"),
    "lengths 5 and 05": _post("Content-Length: 5", "Content-Length: 05"),
    "lengths in two cases": _post(LENGTH, LENGTH.upper()),
    "length folded": _post(f"Content-Length:\r\n {SIZE}"),
    "length continued": _post("Content-Length: 1\r\n 0"),
    "length after a bare LF": _post(f"X: a\n{LENGTH}"),
    "length after a bare CR": _post(f"X: a\r{LENGTH}"),
    "length with a NUL": _post(f"{LENGTH}\x00"),
    "length with a space before the colon": _post(f"Content-Length : {SIZE}"),
    "length with a tab before the colon": _post(f"Content-Length\t: {SIZE}"),
    "length indented": _post(f" {LENGTH}"),
}
LENGTHS_READ: Final = {
    "length with zeros before": _post(f"Content-Length: {SIZE:018}"),
    "length with tabs around": _post(f"Content-Length:\t{SIZE}\t"),
    "length without a space": _post(f"Content-Length:{SIZE}"),
    "no length and no body": head("POST /v1/track HTTP/1.1"),
    "length 0": _post("Content-Length: 0", body=b""),
    "lengths under other names": _post(
        LENGTH, "Content_Length: 5", "X-Content-Length: 6", "Content-Lengt: 7"
    ),
    "GET with a body": head(GET, [LENGTH]) + BODY,
    "GET with a chunked body": head(GET, [CHUNKED]) + chunks(BODY),
}

CODINGS_REFUSED: Final = {
    **_named(
        "coding",
        [
            "chunked, identity",
            "xchunked",
            "chunkedx",
            "chunked\x0b",
            "\x0cchunked",
            "chunked\x00",
            "'chunked'",
        ],
        "Transfer-Encoding: ",
        chunks(BODY),
    ),
    **_named(
        "coding",
        [
            "identity",
            "chunked;",
            "chunked,",
            ",chunked",
            ", chunked",
            '"chunked"',
            "chunked chunked",
            "x, chunked",
        ],
        "Transfer-Encoding: ",
        chunks(BODY),
    ),
    **_named(
        "coding",
        ["cow", "chunked\t", "chunked\x85", "\xa0chunked", "deflate, chunked"],
        "Transfer-Encoding: ",
        chunks(BODY),
    ),
    "coding twice": _post(CHUNKED, CHUNKED, body=chunks(BODY)),
    "coding twice, identity last": _post(CHUNKED, "Transfer-Encoding: identity", body=chunks(BODY)),
    "coding twice, identity first": _post("Transfer-Encoding: identity", CHUNKED, body=chunks(BODY)),
    "coding folded": _post("Transfer-Encoding: chunked\r\n  abc", body=chunks(BODY)),
    "coding behind a fold": _post("X: a\r\n Transfer-Encoding: chunked", LENGTH),
    "coding with a space before the colon": _post("Transfer-Encoding : chunked", LENGTH),
    "coding after a bare CR": _post(f"X: a\r{CHUNKED}", LENGTH),
    "coding after an empty value and a bare CR": _post(f"X:\r{CHUNKED}", LENGTH),
    "coding after a bare LF": _post(f"X: a\n{CHUNKED}", LENGTH),
    "coding after an empty value and a bare LF": _post(f"X:\n{CHUNKED}", LENGTH),
    "coding with a NUL in its name": _post("Transfer-Encoding\x00: chunked", LENGTH),
    "TE.CL": _post("Content-Length: 4", CHUNKED, body=b"5c\r\n" + SMUGGLED),
    "CL.TE": _post("Content-Length: 6", CHUNKED, body=LAST + b"G"),
    "CL.TE around a request": _post(CHUNKED, f"Content-Length: {len(LAST + SMUGGLED)}", body=LAST + SMUGGLED),
    "length and another coding": _post(LENGTH, "Transfer-Encoding: identity"),
    "length and an empty coding": _post(LENGTH, "Transfer-Encoding: "),
    "chunked on HTTP/1.0 with keep-alive": head(
        "POST /v1/track HTTP/1.0", [CHUNKED, "Connection: keep-alive"]
    )
    + chunks(BODY),
}
CODINGS_READ: Final = {
    **_named("coding", ["CHUNKED", "cHuNkEd", "\tchunked", "chunked "], "Transfer-Encoding: ", chunks(BODY)),
    "coding under other names": _post(LENGTH, "Transfer_Encoding: chunked", "X-Transfer-Encoding: chunked"),
    "coding named in TE and Trailer": _post(LENGTH, "TE: chunked", "Trailer: Transfer-Encoding"),
    "gzip in chunks": _post(CHUNKED, "Content-Encoding: gzip", body=chunks(gzip.compress(BODY))),
    "deflate in chunks": _post(CHUNKED, "Content-Encoding: deflate", body=chunks(zlib.compress(BODY))),
    "zstd in chunks": _post(CHUNKED, "Content-Encoding: zstd", body=chunks(ZSTD_BODY)),
}

CHUNKS_REFUSED: Final = {
    f"chunk {name}": _chunked(body)
    for name, body in {
        "size x5": b"x5\r\nhello\r\n" + LAST,
        "size 0x5": b"0x5\r\nhello\r\n" + LAST,
        "size 5g": b"5g\r\nhello\r\n" + LAST,
        "size -5": b"-5\r\nhello\r\n" + LAST,
        "size +5": b"+5\r\nhello\r\n" + LAST,
        "size 0_5": b"0_5\r\nhello\r\n" + LAST,
        "size 5.0": b"5.0\r\nhello\r\n" + LAST,
        "size 5h": b"5h\r\nhello\r\n" + LAST,
        "size with a space before": b" 5\r\nhello\r\n" + LAST,
        "size with a tab before": b"\t5\r\nhello\r\n" + LAST,
        "size with a tab after": b"5\t\r\nhello\r\n" + LAST,
        "size with a space inside": b"1 0\r\nhello\r\n" + LAST,
        "size with a NUL": b"5\x00\r\nhello\r\n" + LAST,
        "size in quotes": b'"5"\r\nhello\r\n' + LAST,
        "size of 2**64": b"10000000000000000\r\nhello\r\n" + LAST,
        "size of 2**64 + 5": b"10000000000000005\r\nhello\r\n" + LAST,
        "size of 30 digits": b"f" * 30 + b"\r\nhello\r\n" + LAST,
        "size line that ends with LF": b"5\nhello\r\n" + LAST,
        "size line that ends with CR": b"5\rhello\r\n" + LAST,
        "size line that ends with CR CR": b"5\r\r;ABCD\r\n" + LAST,
        "size line with a space and an LF": b"5 \n  \r\nhello\r\n" + LAST,
        "data without CRLF": b"5\r\nhello" + LAST,
        "data with LF after": b"5\r\nhello\n" + LAST,
        "data with CR after": b"5\r\nhello\r" + LAST,
        "data with two others after": b"5\r\nhelloXX" + LAST,
        "data with a space before CRLF": b"5\r\nhello \r\n" + LAST,
        "data too long": b"5\r\nhello!\r\n" + LAST,
        "data too short": b"7\r\nhello\r\n" + LAST,
        "list without a last one": b"5\r\nhello\r\n\r\n",
        "list with a last one that ends with LF": ONE_CHUNK + b"0\n\n",
        "list that ends with LF": ONE_CHUNK + b"0\r\n\n",
        "list that ends with CR and more": ONE_CHUNK + b"0\r\n\rX",
        "extension without a semicolon": b"5 ext\r\nhello\r\n" + LAST,
        "extension with an LF": b"5;a\nb\r\nhello\r\n" + LAST,
        "extension with an LF before the size of another": b"2;\n0\r\n\r\n" + SMUGGLED,
        "extension cut by a CR": b"5;a\rb\r\nhello\r\n" + LAST,
        "extension with a NUL": b"5;a\x00\r\nhello\r\n" + LAST,
        "extension whose quotes do not end": b'5;a="b\r\nhello\r\n' + LAST,
        "extension with an LF in quotes": b'5;a="b\nc"\r\nhello\r\n' + LAST,
        "extension with a CRLF in quotes": b'5;a="b\r\nc"\r\nhello\r\n' + LAST,
        "extension without a name": b"5;\r\nhello\r\n" + LAST,
        "trailer with a bare LF": ONE_CHUNK + b"0\r\nX: a\n\r\n",
        "trailer with a bare CR": ONE_CHUNK + b"0\r\nX: a\rY: b\r\n\r\n",
        "trailer without a colon": ONE_CHUNK + b"0\r\nX\r\n\r\n",
        "trailer without a name": ONE_CHUNK + b"0\r\n: a\r\n\r\n",
        "trailer with a space before the colon": ONE_CHUNK + b"0\r\nX : a\r\n\r\n",
        "trailer with a NUL": ONE_CHUNK + b"0\r\nX: a\x00\r\n\r\n",
        "trailer indented": ONE_CHUNK + b"0\r\n X: a\r\n\r\n",
        "trailer that is a length": ONE_CHUNK + b"0\r\nContent-Length: 9\r\n\r\n",
        "trailer that is a coding": ONE_CHUNK + b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "trailers of 20 KiB": ONE_CHUNK + b"0\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        "trailers of 200 lines": ONE_CHUNK + b"0\r\n" + b"X: a\r\n" * 200 + b"\r\n",
    }.items()
}
_FORBIDDEN: Final = {
    "Host": "Host: b",
    "Authorization": "Authorization: Bearer other",
    "Content-Encoding": "Content-Encoding: gzip",
    "Connection": "Connection: close",
    "Expect": "Expect: 100-continue",
    "Upgrade": "Upgrade: h2c",
    "Connection and Upgrade": "Connection: upgrade\r\nUpgrade: h2c",
}
TRAILERS_READ: Final = {
    f"trailer with the name of {name}": post_chunked(BODY, size=SIZE, trailers=[line])
    for name, line in _FORBIDDEN.items()
}
WAITING: Final = {
    "a length larger than the body": _post("Content-Length: 100000", body=BODY + SMUGGLED),
    "a chunk of a terabyte": _chunked(b"10000000000\r\nhello\r\n" + LAST + SMUGGLED),
    "a head without its blank line": _post(LENGTH, "X: a", body=b"")[:-2] + b"Y:",
}
CHUNKS_READ: Final = {
    "chunk size in both cases": _chunked(
        b"0a\r\n" + BODY[:10] + b"\r\n%X\r\n" % (SIZE - 10) + BODY[10:] + b"\r\n" + LAST
    ),
    "chunk size with 15 zeros": _chunked(b"%016x\r\n%s\r\n" % (SIZE, BODY) + LAST),
    "last chunk of 000": _chunked(ONE_CHUNK + b"000\r\n\r\n"),
    "chunk extensions of many kinds": _chunked(b"%x;a;b=c;d=e\r\n%s\r\n0;f\r\n\r\n" % (SIZE, BODY)),
    "chunk extension in quotes": _chunked(b'%x;a="b \\"c\\"; \\\\d"\r\n%s\r\n' % (SIZE, BODY) + LAST),
    "chunk extension that looks like a size": _chunked(b"%x;5=5\r\n%s\r\n" % (SIZE, BODY) + LAST),
    "chunks, and a body of none": _chunked(LAST),
    "two trailers": post_chunked(BODY, size=50, trailers=["X-A: 1", "X-B:"]),
    "a request in the chunk of another": _chunked(b"%x\r\n%s\r\n" % (len(SMUGGLED), SMUGGLED) + LAST),
    "a request in the body of another": post(SMUGGLED),
}


def _of(family: str, requests: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{family}: {name}": raw for name, raw in requests.items()}


READ: Final = {
    **LENGTHS_READ,
    **CODINGS_READ,
    **CHUNKS_READ,
    **TRAILERS_READ,
    **_of("line", wild_heads.LINES_READ),
    **_of("target", wild_heads.TARGETS_READ),
    **_of("field", wild_heads.FIELDS_READ),
    **wild_heads.CONNECTIONS_READ,
}
REFUSED: Final = {
    **LENGTHS_REFUSED,
    **CODINGS_REFUSED,
    **CHUNKS_REFUSED,
    **_of("line", wild_heads.LINES_REFUSED),
    **_of("target", wild_heads.TARGETS_REFUSED),
    **_of("field", wild_heads.FIELDS_REFUSED),
    **wild_heads.CONNECTIONS_REFUSED,
}
