"""Why a store has refused, in words that say what would be right, and that quote no secret.

obstore's own texts have whole requests in them: URLs, which may be signed, and what the store has
answered, which may name keys. So nothing of them is passed on but what is recognised here.
"""

from __future__ import annotations

import re
from typing import Final

from ingestd.ship.destination import Destination

_CODES: Final = {
    "InvalidAccessKeyId": "the store does not know the access key: see {credentials}",
    "SignatureDoesNotMatch": "the secret does not fit the access key: see {credentials}",
    "ExpiredToken": "the credentials have expired: see {credentials}",
    "InvalidToken": "the session token is not valid: see {credentials}",
    "RequestTimeTooSkewed": "the clocks of this machine and the store differ too much: set this one right",
    "AccessDenied": "the credentials do not allow it: they need to put, get and delete objects below {url}",
    "NoSuchBucket": "there is no such bucket: make it, or say another one in ship_to",
    "ContainerNotFound": "there is no such container: make it, or say another one in ship_to",
    "PermanentRedirect": "the bucket is in another region: see AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region: see AWS_REGION",
    "SlowDown": "it asks for fewer requests",
    "QuotaExceeded": "it is full: make room there, or raise the quota",
    "InsufficientStorage": "it is full: make room there",
}
"""The stores' own words (S3: API reference, Error responses)."""

_SIGNS: Final = (
    ("169.254.", "there are no credentials: set {credentials}"),
    ("metadata.google.internal", "there are no credentials: set {credentials}"),
    ("No space left on device", "the disk there is full: make room"),
    ("Disk quota exceeded", "the quota there is used up: make room"),
    ("Read-only file system", "the file system there is read-only"),
    ("Permission denied", "this user may not write there: see the owner and mode of {url}"),
    ("Connection refused", "nobody listens at {endpoint}"),
    ("dns error", "the name of {endpoint} is not known"),
    ("InvalidCertificate", "the certificate of {endpoint} is not trusted"),
    ("InvalidContentType", "{endpoint} does not speak TLS: say http:// there"),
    ("Network is unreachable", "there is no way to {endpoint}"),
    ("No route to host", "there is no way to {endpoint}"),
    ("Connection reset", "the connection was cut"),
    ("IncompleteMessage", "the connection was cut"),
    ("BrokenPipe", "the connection was cut"),
    ("kind: Connect", "{endpoint} cannot be reached"),
    ("HttpError", "the connection has failed"),
)
"""Words of the system and of the HTTP client, the more telling ones first."""


def described(error: BaseException, destination: Destination) -> str:
    """A sentence for what obstore has raised."""
    kind, text = destination.kind, str(error)
    code = re.search(r"<Code>(\w{1,60})</Code>", text)
    status = re.search(r"status code: ([45]\d\d)", text)
    words = {
        "credentials": kind.credentials,
        "url": destination.url,
        "endpoint": f"{kind.endpoint}, {destination.endpoint}" if destination.endpoint else "the store",
    }
    if isinstance(error, TimeoutError):
        return "it has not answered in time: see ship_timeout_s, and the network"
    if code is not None and code[1] in _CODES:
        return f"{_CODES[code[1]].format(**words)} ({code[1]})"
    for sign, sentence in _SIGNS:
        if sign in text:
            return sentence.format(**words)
    if status is not None:
        told = f"it has answered {status[1]}{f' {code[1]}' if code else ''}"
        if status[1] in ("401", "403"):
            return f"{told}: see {kind.credentials}"
        if status[1] == "404":
            return f"{told}: is there such a bucket? See ship_to"
        if status[1] == "507":
            return f"{told}: it is full"
        return told
    if isinstance(error, FileNotFoundError):
        return "the place is not there: see ship_to"
    return f"{type(error).__name__}: no more is known"
