"""zstd frames: where one ends, what it holds (RFC 8878), and how many lines that is."""

from __future__ import annotations

from typing import Final

import zstandard

_FRAME_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_SLICE_BYTES: Final = 64 * 1024


def frame_length(data: bytes, position: int) -> int | None:
    """The size of the whole zstd frame that begins here, from its block headers (RFC 8878 §3.1.1)."""
    if data[position : position + 4] != _FRAME_MAGIC or position + 5 > len(data):
        return None
    descriptor = data[position + 4]
    single_segment = descriptor >> 5 & 1
    at = position + 5 + (not single_segment) + (0, 1, 2, 4)[descriptor & 3]
    at += (single_segment, 2, 4, 8)[descriptor >> 6]
    last = 0
    while not last:
        if at + 3 > len(data):
            return None
        header = int.from_bytes(data[at : at + 3], "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        at += 3 + (1 if kind == 1 else size)
    at += 4 * (descriptor >> 2 & 1)
    return at - position if at <= len(data) else None


def decompress(
    frame: bytes | memoryview, content_bytes: int, decompressor: zstandard.ZstdDecompressor | None = None
) -> bytes | None:
    """What a whole frame holds, if it is that many bytes; else None.

    A decompressor is not for two threads at once. Making one costs half as much as decompressing 24 KB.
    """
    try:
        # Before memory is taken for what the frame says of itself.
        if zstandard.frame_content_size(frame) not in (content_bytes, -1):
            return None
        decompressor = decompressor or zstandard.ZstdDecompressor()
        content = decompressor.decompress(frame, max_output_size=content_bytes)
    except zstandard.ZstdError:
        return None
    return content if len(content) == content_bytes else None


def lines_in(content: bytes) -> int:
    """The number of LFs.

    bytes.count looks at one byte after the other and keeps the interpreter lock meanwhile: 3.4 GB/s.
    bytes.replace looks for them with memchr, but must have somewhere to write that is in the cache: 13.
    """
    lines = 0
    for start in range(0, len(content), _SLICE_BYTES):
        part = content[start : start + _SLICE_BYTES]
        lines += len(part) - len(part.replace(b"\n", b""))
    return lines
