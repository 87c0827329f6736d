"""UUIDv7 (RFC 9562 §5.7): 48 bits of milliseconds since 1970, then version, variant and 74 random bits."""

from __future__ import annotations

import os
from typing import Final

# Two bits of a random hex digit replaced by the variant 0b10 (RFC 9562 §4.1).
_VARIANT: Final = {f"{digit:x}": "89ab"[digit % 4] for digit in range(16)}


def uuid7s(count: int, now_ms: int) -> list[str]:
    """That many UUIDv7s (RFC 9562 §5.7) of this millisecond, from one call for random bytes."""
    time_part = f"{now_ms:012x}"
    head = f"{time_part[:8]}-{time_part[8:]}-7"
    digits = os.urandom(10 * count).hex()
    return [
        f"{head}{digits[i : i + 3]}-{_VARIANT[digits[i + 3]]}{digits[i + 4 : i + 7]}-{digits[i + 7 : i + 19]}"
        for i in range(0, 20 * count, 20)
    ]
