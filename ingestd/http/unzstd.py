"""Bodies in zstd.

The library that storage compresses with has no way to stop in the middle of its output, so a bomb of
16 KiB would become 512 MiB before anybody could count it; that of Python 3.14 has one.
"""

from __future__ import annotations

import sys
from typing import ClassVar, Final

from ingestd.http.decoder import Decoder

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

WINDOW_BYTES_MAX: Final = 8 * 1024 * 1024
"""What a decoder must support, and no encoder of a content coding may exceed (RFC 9659 §3)."""
STATE_BYTES: Final = 224 * 1024
"""What the library keeps beside its window: its tables, and a block of input (128 KiB)."""
FRAMES_MAX: Final = 1000
"""A frame that holds nothing has 9 bytes and takes 10 µs to begin (measured); clients send one."""
_HEADER_BYTES_MAX: Final = 18
"""Of a frame, its magic number included (RFC 8878 §3.1.1.1)."""
_OPTIONS: Final[dict[int, int]] = {
    zstd.DecompressionParameter.window_log_max: WINDOW_BYTES_MAX.bit_length() - 1
}


class Unzstd(Decoder):
    """zstd: one or more frames, skippable ones among them (RFC 8878 §3.1)."""

    __slots__ = ("_begins_at", "_frames", "_header", "_size")

    name: ClassVar[str] = "zstd"
    errors = (zstd.ZstdError,)

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self._frames = 0
        self._header = b""
        """The first bytes of a frame of which too few have come to begin."""
        self._size: int | None = None
        """What the frame says that it holds."""
        self._begins_at = 0
        """Where in the output it begins."""

    @property
    def held_bytes(self) -> int:
        """The output, the window, which is filled as the output grows, and what every frame costs.

        Without the last, many connections with a little of a body each would cost what nobody counts.
        """
        if self._stream is None:
            return 0
        return self.inflated_bytes + min(self.inflated_bytes, WINDOW_BYTES_MAX) + STATE_BYTES

    def _begin(self, data: bytes) -> bytes:
        """Begin a frame once its header is there, for a lie in it must be seen.

        The library judges some frames in another way if all of it comes at once: then it compares the size
        with what comes out, else not if the last block is empty, and takes an empty block of one repeated
        byte, else not (found by fuzzing). So it gets the first byte alone.
        """
        data, self._header = self._header + data, b""
        try:
            self._size = zstd.get_frame_info(data).decompressed_size
        except zstd.ZstdError:
            if len(data) < _HEADER_BYTES_MAX:
                self._header = data
                return b""
            # No frame: what reads it next has better words for that.
            self._size = None
        self._begins_at = self.inflated_bytes
        self._frames += 1
        if self._frames > FRAMES_MAX:
            raise zstd.ZstdError(f"more than {FRAMES_MAX} frames")
        self._stream = zstd.ZstdDecompressor(options=_OPTIONS)
        self._stream.decompress(data[:1], 1)
        return data[1:]

    def _is_complete(self) -> bool:
        return not self._header and super()._is_complete()

    def _rest(self) -> bytes:
        if not self._stream.eof:
            # It keeps what it has not used yet.
            return b""
        if self._size not in (None, self.inflated_bytes - self._begins_at):
            raise zstd.ZstdError("a frame does not hold what its header says")
        return bytes(self._stream.unused_data)

    def _explained(self, error: Exception) -> str:
        text = str(error).removeprefix("Unable to decompress Zstandard data: ")
        if "requires too much memory" in text:
            return f"the window may have {WINDOW_BYTES_MAX} bytes at most"
        return f"{text[:1].lower()}{text[1:]}"
