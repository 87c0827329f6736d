"""Where in a body it goes wrong: what msgspec raises, as a Rejection that names the place."""

from __future__ import annotations

import re

import msgspec

from ingestd import oddities
from ingestd.errors import Rejection, invalid_event


def invalid(error: Exception) -> Rejection:
    """The Rejection (400) for an error of msgspec, in its three families."""
    if isinstance(error, UnicodeDecodeError):
        return invalid_event("invalid_utf8", f"byte {error.start}: not valid UTF-8")
    if isinstance(error, msgspec.ValidationError):
        return invalid_event("invalid_event", _place_first(str(error)))
    if isinstance(error, RecursionError):
        return oddities.too_deep()
    return invalid_event("invalid_json", str(error))


def moved(rejection: Rejection, by: int) -> Rejection:
    """The same about part of an array, with the place counted from the start of the whole."""
    detail = re.sub(r"^\$\[(\d+)\]", lambda match: f"$[{int(match[1]) + by}]", rejection.detail or "")
    return Rejection(rejection.status, rejection.code, rejection.error, detail, quoted=rejection.quoted)


def _place_first(message: str) -> str:
    """msgspec's 'Expected … - at `$[3].event`' as '$[3].event: expected …'."""
    what, _, place = message.rpartition(" - at ")
    if not what:
        return f"$: {message[:1].lower()}{message[1:]}"
    what = what.replace("`datetime`", "an RFC 3339 date-time").replace(
        "RFC3339 encoded datetime", "RFC 3339 date-time"
    )
    return f"{place.strip('`')}: {what[:1].lower()}{what[1:]}"
