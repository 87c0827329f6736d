"""The two ways in which a request can fail, each carrying what its answer needs.

A `Rejection` is the client's to mend: it names the status, a stable machine word and, where
one exists, the place. A `StorageError` is ours: nothing of the request counts as stored.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

INVALID_EVENT = "Invalid event format."
UNAUTHORIZED = "Unauthorized"
TOO_LARGE = "Payload exceeds maximum allowed size (10MB)."
RATE_LIMITED = "Rate limit exceeded. Please retry later."
INTERNAL = "Internal server error. Please try again later."


class Rejection(Exception):
    """A request that is answered with an error, decided before anything of it is stored.

    `status` is the HTTP status, `code` a stable word for machines, `error` the sentence for
    people, `detail` the place or the remedy, `headers` extra response header lines (each
    ending in CRLF) that the status requires, such as `Allow` or `Retry-After`. `quoted` is what of
    `detail` is the client's own words: it is for the client's eyes only. `invalid` tells of each event, where
    all of a request are to blame (`sifting`).
    """

    invalid: Sequence[object] = ()

    def __init__(
        self,
        status: int,
        code: str,
        error: str,
        detail: str | None = None,
        headers: bytes = b"",
        quoted: str = "",
    ) -> None:
        super().__init__(f"{status} {code}: {detail or error}")
        self.status = status
        self.code = code
        self.error = error
        self.detail = detail
        self.headers = headers
        self.quoted = quoted

    @property
    def detail_for_log(self) -> str | None:
        """The detail without what it quotes."""
        return self.detail.replace(self.quoted, "…") if self.detail and self.quoted else self.detail


def invalid_event(code: str, detail: str, quoted: str = "") -> Rejection:
    """400 for a body that is not what the contract asks for."""
    return Rejection(400, code, INVALID_EVENT, detail, quoted=quoted)


def unauthorized() -> Rejection:
    """401: the same words for a missing and for an unknown key, so that neither can be probed."""
    return Rejection(
        401,
        "unauthorized",
        UNAUTHORIZED,
        "send the header 'Authorization: Bearer KEY' with a key made by 'ingestd key add NAME', or with "
        "basic auth the key as the user; ?key=KEY is for keys made with --public",
        b"WWW-Authenticate: Bearer\r\n",
    )


def too_large(limit_bytes: int) -> Rejection:
    """413: the limit is on the uncompressed body."""
    return Rejection(
        413, "payload_too_large", TOO_LARGE, f"the uncompressed body may have {limit_bytes} bytes at most"
    )


def overloaded(detail: str, retry_after_s: int) -> Rejection:
    """429 from back-pressure: `retry_after_s` is whole seconds, at least 1 (RFC 9110 §10.2.3)."""
    return Rejection(429, "overloaded", RATE_LIMITED, detail, b"Retry-After: %d\r\n" % max(1, retry_after_s))


def rate_limited(detail: str, retry_after_s: int) -> Rejection:
    """429 from a limit of the key."""
    return Rejection(429, "rate_limited", RATE_LIMITED, detail, b"Retry-After: %d\r\n" % retry_after_s)


def no_room(detail: str, retry_after_s: int) -> Rejection:
    """429 while the disk is nearly full: what was accepted must still fit on it."""
    return Rejection(429, "disk_full", RATE_LIMITED, detail, b"Retry-After: %d\r\n" % max(1, retry_after_s))


def log_unavailable(detail: str) -> Rejection:
    """429 while the log does not acknowledge: it is asked again after about a second."""
    return Rejection(429, "log_unavailable", RATE_LIMITED, detail, b"Retry-After: 1\r\n")


def event_too_large(message_id: str, size: int, limit_bytes: int) -> Rejection:
    """413 for an event that the log would not take."""
    return Rejection(
        413,
        "event_too_large",
        TOO_LARGE,
        f"the event with messageId {message_id!r} is kept as {size} bytes, and the log takes {limit_bytes}",
        quoted=message_id,
    )


def not_ready(reason: str) -> Rejection:
    """503 of /readyz."""
    return Rejection(503, "not_ready", "Not ready.", reason)


def tls_required() -> Rejection:
    """400 for HTTP where TLS is spoken."""
    return Rejection(400, "tls_required", "Bad request.", "this address speaks TLS: say https")


def tls_words(error: ssl.SSLError) -> str:
    """What OpenSSL says, in words of its own only."""
    return (error.reason or type(error).__name__).lower().replace("_", " ")


def internal(code: str, detail: str | None = None) -> Rejection:
    """500: storage failed, or a bug; the client may send the same again."""
    return Rejection(500, code, INTERNAL, detail)


class StorageError(Exception):
    """The disk refused: the waiting batches are answered with 500 and count as not stored."""


class Damaged(StorageError):
    """A segment does not hold what it should: another try finds the same."""


class Unreplicated(StorageError):
    """The log has not acknowledged a commit, so it is not kept here either: its batches are answered 429."""


def as_storage_error(error: Exception) -> StorageError:
    """The disk's own errors as they are; a bug, told of in the log, as one of them.

    Without its words, which may quote an event: what is returned is logged, and shown by /readyz.
    """
    if isinstance(error, StorageError):
        return error
    logging.getLogger("ingestd").error("bug in storage", exc_info=error)
    return StorageError(f"a bug ({type(error).__name__}), see the log")


class UsageError(Exception):
    """A command or a setting that cannot be obeyed; the text names it and says what would be right."""


def extra_missing(what: str, extra: str, error: ModuleNotFoundError) -> UsageError:
    """`what` was asked for, and the extra that brings it is not installed."""
    return UsageError(f"{what} needs more: pip install 'ingestd[{extra}]' ({error.name} is missing)")
