"""Receipts: which commit of which segment holds the events of a request, as its 200 tells."""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Self

from ingestd.errors import UsageError
from ingestd.storage.segment import NAME

_RECEIPT: Final = re.compile(rf"({NAME.pattern}):(\d{{1,10}})")


class Receipt(NamedTuple):
    """It holds for as long as the segment is kept, open, sealed, packed or recovered."""

    segment: str
    """The name, without suffix."""
    commit: int
    """As it was acknowledged, from 0."""

    def __str__(self) -> str:
        return f"{self.segment}:{self.commit}"

    @classmethod
    def parsed(cls, text: str) -> Self:
        """Raises UsageError."""
        match = _RECEIPT.fullmatch(text)
        # The name becomes part of a path.
        if match is None or "/" in text:
            raise UsageError(
                f"{text!r} is not a receipt; one looks like 20260102T030405.678Z-node-w0-000001:17"
            )
        return cls(match[1], int(match[match.lastindex or 0]))
