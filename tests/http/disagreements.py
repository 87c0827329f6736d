"""Where ingestd and h11 disagree on a request, and why ingestd is right or at least safe.

Every line is a request that h11 reads, or would go on reading, and ingestd refuses. There is no line
for the other way round, because there is no such request.
"""

from __future__ import annotations

from typing import Final

BY_CODE: Final = {
    "version_not_supported": "RFC 9110 §15.6.6: h11 leaves versions to its user; here are 1.0 and 1.1.",
    "bad_host": "RFC 9112 §3.2: a Host that is not valid must be answered 400; h11 asks for any.",
    "bad_transfer_encoding": "RFC 9112 §6.1: on HTTP/1.0 such framing is faulty; h11 reads it.",
    "bad_target": "RFC 9112 §3.2: a target in another form can contradict Host; this API has origin form.",
    "target_too_long": "RFC 9112 §3: a target too long is 414; h11 has one limit for the whole head.",
    "method_not_implemented": "RFC 9110 §9.3.6: CONNECT is for proxies; h11 leaves the refusal to its user.",
    "upgrade_refused": "RFC 9110 §7.8: nobody needs another protocol, and what follows would not be HTTP.",
    "header_too_large": "RFC 6585 §5: head and trailers have a limit; h11's is out of the way here.",
    "repeated_header": "RFC 9110 §5.3: a field that is no list may stand once; h11 hands both over.",
    "unsupported_encoding": "RFC 9110 §15.5.16: a coding that cannot be undone is 415; h11 does not look.",
    "expectation_failed": "RFC 9110 §10.1.1: an unknown expectation may be answered 417; h11 overlooks it.",
    "not_found": "RFC 9110 §15.5.5: a call has one spelling, compared byte by byte; h11 has no calls.",
    "payload_too_large": "RFC 9110 §15.5.14: the length tells that it is too much; h11 waits for the body.",
}
"""A guard's code → the reason."""

BY_NAME: Final = {
    "RFC 9112 §5.2: a server may refuse folding, which others read as lines; h11 joins them.": (
        "folded header",
        "folded Transfer-Encoding",
        "header before the first line ends",
        "length folded",
        "length indented",
        "coding behind a fold",
        "field: name of a space",
        "field: value folded with a space",
        "field: value folded with a tab",
        "field: value folded with nothing",
        "field: Host folded",
        "Connection folded",
    ),
    "RFC 9112 §2.2: taking a bare LF for a line's end is a choice; who does not reads otherwise.": (
        "bare LF in all lines",
        "length after a bare LF",
        "chunk list that ends with LF",
        "chunk trailer with a bare LF",
        "line: bare LF after the version",
        "field: blank line of LF",
    ),
    "RFC 9110 §8.6: two lengths, even the same, may be refused; h11 takes one of them.": (
        "Content-Length twice",
        "Content-Length as a list",
        "length '5, 5'",
        "length '5,5'",
        "lengths in two cases",
    ),
    "RFC 9112 §6.1: a length beside chunked is for smuggling, and may be refused; h11 drops it.": (
        "length after chunked",
        "chunked after length",
        "length and chunked around a request",
        "CL.TE",
        "CL.TE around a request",
    ),
    "RFC 9112 §7.1: a number beyond 64 bits must not be cut down to a small one; h11 waits for all of it.": (
        "Content-Length beyond 64 bits",
        "chunk size beyond 64 bits",
        "length '18446744073709551616'",
        "chunk size of 2**64",
        "chunk size of 2**64 + 5",
    ),
    "RFC 9112 §7.1: after a chunk size comes an extension or CRLF; h11 overlooks white space.": (
        "chunk size and a space",
        "chunk size with a tab after",
    ),
    "RFC 9112 §7.1.1: an extension is `;` and a token, with a token or a quoted string; h11 does not look.": (
        "chunk extension with a CR",
        "chunk extension cut by a CR",
        "chunk extension with a NUL",
        "chunk extension whose quotes do not end",
        "chunk extension without a name",
    ),
    "RFC 9110 §6.5.1: framing fields must not be sent in trailers; h11 hands them over.": (
        "chunk trailer that is a length",
        "chunk trailer that is a coding",
    ),
    "RFC 9110 §9.1: methods are case-sensitive and few; h11 leaves the refusal to its user.": (
        "preface of HTTP/2",
        "lower case method",
        "unknown method",
        "line: method in lower case",
        "line: method in both cases",
        "line: method with a tail",
        "line: method of 2,000 letters",
        "line: method of another protocol",
        "line: a letter before the method",
    ),
    "RFC 9112 §3.2: a target that begins with no slash has no call here; h11 takes any visible characters.": (
        "no slash",
        "target: authority form",
        "target: relative path",
        "target: query alone",
        "target: fragment alone",
        "target: backslash first",
    ),
    "RFC 9110 §5.5: control characters are not valid in a value; h11 allows them for cookies.": (
        "field: value with an escape",
        "field: value with a bell",
        "field: value with DEL",
    ),
    "RFC 9110 §5.6.3: a single space is preferred; llhttp takes no tab after `chunked`: safe.": (
        "coding 'chunked\\t'",
    ),
}
"""The reason → the names of the requests that the parser itself refuses."""

ENDS: Final = {
    "RFC 9112 §9.3: HTTP/1.0 goes on with keep-alive; h11 closes after every HTTP/1.0 request.": (
        "Connection 'keep-alive' on 1.0",
        "Connection 'Keep-Alive' on 1.0",
    ),
    "RFC 9112 §9.6: a server may always close; llhttp takes Proxy-Connection for Connection.": (
        "Proxy-Connection: close",
    ),
}
"""The reason → requests that both read alike, but one goes on with the connection and one does not."""

CLOSE_WINS: Final = ("Connection 'close, keep-alive' on 1.0", "Connection 'keep-alive, close' on 1.0")
"""RFC 9112 §9.3: close comes first."""
