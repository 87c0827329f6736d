"""Skippable frames that can be read from their end: what follows the last commit of a sealed segment.

Each ends with the checksum and the size of its payload and a mark that names it, so that `find` can read
a file's footer, and the index before it, without the commits. segment.py has the format.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final
from zlib import crc32

_SKIPPABLE: Final = struct.Struct("<II")
_TAIL: Final = struct.Struct("<II8s")
OVERHEAD: Final = _SKIPPABLE.size + _TAIL.size
"""Bytes of such a frame besides its payload."""


def wrapped(magic: int, payload: bytes, mark: bytes) -> bytes:
    """The skippable frame of a payload."""
    size = len(payload) + _TAIL.size
    return _SKIPPABLE.pack(magic, size) + payload + _TAIL.pack(crc32(payload), size, mark)


def unwrapped(data: bytes | memoryview, mark: bytes) -> bytes | None:
    """The payload of the frame that ends where `data` ends; None if no whole one of this mark does."""
    size = _size(bytes(data[-_TAIL.size :]), mark)
    # Zeros before its last bytes, as a torn write leaves them, would be a payload of no bytes.
    if size is None or not _TAIL.size < size <= len(data):
        return None
    payload = bytes(data[len(data) - size : -_TAIL.size])
    return payload if crc32(payload) == _TAIL.unpack(data[-_TAIL.size :])[0] else None


def first(data: bytes, position: int, mark: bytes) -> bytes | None:
    """The same of the frame that begins at `position`."""
    if len(data) - position < OVERHEAD:
        return None
    _, size = _SKIPPABLE.unpack_from(data, position)
    frame = memoryview(data)[position : position + _SKIPPABLE.size + size]
    payload = unwrapped(frame, mark)
    is_whole = payload is not None and len(payload) + OVERHEAD == _SKIPPABLE.size + size
    return payload if is_whole else None


def read(read_at: Callable[[int, int], bytes], end: int, mark: bytes) -> bytes | None:
    """The same of the frame that ends at the offset `end` of a file, of which `read_at` reads a part."""
    tail = read_at(max(0, end - _TAIL.size), _TAIL.size)
    size = _size(tail, mark)
    return None if size is None or size > end else unwrapped(read_at(end - size, size), mark)


def _size(tail: bytes, mark: bytes) -> int | None:
    """The size of payload and tail that a tail tells of."""
    if len(tail) < _TAIL.size or not tail.endswith(mark):
        return None
    return int(_TAIL.unpack(tail)[1])
