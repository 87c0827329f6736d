"""Bodies in deflate and zstd: what is taken, what is refused, and how little a bomb can make of them."""

from __future__ import annotations

import itertools
import random
import sys
import zlib
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.errors import Rejection
from ingestd.http.codings import CODINGS, NAMES
from ingestd.http.decoder import BUFFER_BYTES, Decoder, compressed_bytes_max
from ingestd.http.inflate import Inflate
from ingestd.http.unzstd import FRAMES_MAX, STATE_BYTES, WINDOW_BYTES_MAX, Unzstd
from tests.http.test_inflate import fed_until_too_large
from tests.support.requests import bytewise, cut

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LIMIT: Final = 64 * 1024
PLAIN: Final = b'[{"event":"a","properties":{},"timestamp":"2025-10-29T22:00:00Z"}]' * 20
MIB: Final = 1024 * 1024


def decoded(make: type[Decoder], pieces: list[bytes], limit: int = LIMIT) -> bytes:
    """All pieces through one decoder, the counts compared with what came out."""
    decoder = make(limit)
    count = sum(decoder.feed(piece) for piece in pieces)
    whole = decoder.finish()
    assert count == decoder.inflated_bytes == len(whole)
    return bytes(whole)


def deflated(data: bytes, level: int = 6) -> bytes:
    """Without the zlib format around it."""
    packer = zlib.compressobj(level, wbits=-15)
    return packer.compress(data) + packer.flush()


def small_window(data: bytes) -> bytes:
    """In the zlib format, with 512 bytes of window."""
    packer = zlib.compressobj(wbits=9)
    return packer.compress(data) + packer.flush()


def zstd_with(data: bytes, **options: int) -> bytes:
    """One frame, made with these parameters."""
    parameters: dict[int, int] = {zstd.CompressionParameter[name]: value for name, value in options.items()}
    return zstd.compress(data, options=parameters)


def unsized(data: bytes, window_log: int = 20) -> bytes:
    """A frame that does not say its size, in many blocks."""
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: window_log})
    parts = [packer.compress(data[at : at + 100], packer.FLUSH_BLOCK) for at in range(0, len(data), 100)]
    return b"".join(parts) + packer.flush()


def skippable(data: bytes, number: int = 0) -> bytes:
    """A frame that decoders pass over (RFC 8878 §3.1.2)."""
    return (0x184D2A50 + number).to_bytes(4, "little") + len(data).to_bytes(4, "little") + data


def sized(said: int, data: bytes) -> bytes:
    """A frame of one raw block whose header says this content size (RFC 8878 §3.1.1)."""
    header = zstd.compress(b"")[:4] + bytes([0b10100000]) + said.to_bytes(4, "little")
    return header + (len(data) << 3 | 1).to_bytes(3, "little") + data


DEFLATED: Final = zlib.compress(PLAIN)
NOISE: Final = random.Random(1).randbytes(5000)
FRAME: Final = zstd.compress(PLAIN)

GOOD: Final[dict[str, tuple[type[Decoder], bytes, bytes]]] = {
    "zlib format": (Inflate, DEFLATED, PLAIN),
    "zlib format, fastest": (Inflate, zlib.compress(PLAIN, 1), PLAIN),
    "zlib format, smallest window": (Inflate, small_window(PLAIN), PLAIN),
    "stored in zlib format": (Inflate, zlib.compress(PLAIN, 0), PLAIN),
    "nothing in zlib format": (Inflate, zlib.compress(b""), b""),
    "bare": (Inflate, deflated(PLAIN), PLAIN),
    "bare, stored": (Inflate, deflated(PLAIN, 0), PLAIN),
    "bare, of one byte": (Inflate, deflated(b"{"), b"{"),
    "bare, of nothing": (Inflate, deflated(b""), b""),
    "a frame": (Unzstd, FRAME, PLAIN),
    "a frame without its size": (Unzstd, unsized(PLAIN), PLAIN),
    "a frame with a checksum": (Unzstd, zstd_with(PLAIN, checksum_flag=1), PLAIN),
    "a frame of the highest level": (Unzstd, zstd_with(PLAIN, compression_level=22), PLAIN),
    "a frame of raw blocks": (Unzstd, zstd.compress(NOISE), NOISE),
    "an empty frame": (Unzstd, zstd.compress(b""), b""),
    "two frames": (Unzstd, FRAME + zstd.compress(b"second"), PLAIN + b"second"),
    "a hundred frames": (Unzstd, zstd.compress(b"x") * 100, b"x" * 100),
    "skippable frames around": (Unzstd, skippable(b"") + FRAME + skippable(b"y" * 300, 15), PLAIN),
    "only a skippable frame": (Unzstd, skippable(b"nothing"), b""),
    "the size that is there": (Unzstd, sized(5, b"hello"), b"hello"),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_body_is_decompressed_in_any_cut(name: str) -> None:
    make, packed, plain = GOOD[name]
    rng = random.Random(name)
    assert decoded(make, [packed]) == plain
    assert decoded(make, bytewise(packed)) == plain
    for _ in range(20):
        assert decoded(make, cut(packed, rng.choices(range(len(packed) + 1), k=4))) == plain


BAD: Final[dict[str, tuple[type[Decoder], bytes]]] = {
    "nothing as deflate": (Inflate, b""),
    "zlib format cut in its header": (Inflate, DEFLATED[:1]),
    "zlib format cut in its data": (Inflate, DEFLATED[: len(DEFLATED) // 2]),
    "zlib format cut in its checksum": (Inflate, DEFLATED[:-1]),
    "zlib format with another checksum": (Inflate, DEFLATED[:-1] + bytes([DEFLATED[-1] ^ 1])),
    "zlib format with a dictionary": (Inflate, b"\x78\xbb" + bytes(4) + DEFLATED[2:]),
    "zlib format with a wrong check of its header": (Inflate, b"\x78\x9d" + DEFLATED[2:]),
    "something after zlib format": (Inflate, DEFLATED + b"\0"),
    "zlib format twice": (Inflate, DEFLATED + DEFLATED),
    "bare cut": (Inflate, deflated(PLAIN)[:-1]),
    "something after bare": (Inflate, deflated(PLAIN) + b"\0"),
    "JSON as deflate": (Inflate, PLAIN),
    "gzip as deflate": (Inflate, b"\x1f\x8b\x08" + bytes(7) + deflated(PLAIN)),
    "zstd as deflate": (Inflate, FRAME),
    "nothing as zstd": (Unzstd, b""),
    "a frame cut in its magic": (Unzstd, FRAME[:3]),
    "a frame cut in its header": (Unzstd, FRAME[:6]),
    "a frame cut in its data": (Unzstd, FRAME[: len(FRAME) // 2]),
    "a frame cut at its end": (Unzstd, FRAME[:-1]),
    "a frame with another checksum": (
        Unzstd,
        zstd_with(PLAIN, checksum_flag=1)[:-1] + bytes([zstd_with(PLAIN, checksum_flag=1)[-1] ^ 1]),
    ),
    "a second frame cut": (Unzstd, FRAME + FRAME[:-1]),
    "a skippable frame cut": (Unzstd, skippable(b"12345")[:-1]),
    "a skippable frame of four gigabytes": (Unzstd, b"\x50\x2a\x4d\x18\xff\xff\xff\xff" + bytes(100)),
    "zeros after a frame": (Unzstd, FRAME + bytes(8)),
    "text after a frame": (Unzstd, FRAME + b"text"),
    "JSON as zstd": (Unzstd, PLAIN),
    "gzip as zstd": (Unzstd, b"\x1f\x8b\x08" + bytes(20)),
    "a frame that says more than it holds": (Unzstd, sized(6, b"hello")),
    "a frame that says less than it holds": (Unzstd, sized(4, b"hello")),
    "a frame that says more than an empty last block": (Unzstd, sized(64, b"")),
    "a frame that says more than it holds before an empty last block": (
        Unzstd,
        sized(64, b"")[:-3] + b"\x28\0\0hello\1\0\0",
    ),
    "a block of no bytes that are all the same": (Unzstd, FRAME[:4] + b"\x20\0\3\0\0x"),
    "a frame that lies, and a good one": (Unzstd, sized(64, b"") + FRAME),
    "a frame that says nearly four gigabytes": (Unzstd, sized(0xFFFFFFF0, b"hello")),
    "a frame with a dictionary": (Unzstd, FRAME[:4] + b"\x21\x07" + FRAME[5:]),
    "a window of 16 MiB": (Unzstd, unsized(PLAIN, 24)),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_body_is_400_in_any_cut(name: str) -> None:
    make, packed = BAD[name]
    for pieces in ([packed], bytewise(packed)):
        with pytest.raises(Rejection) as caught:
            decoded(make, pieces)
        assert (caught.value.status, caught.value.code) == (400, f"invalid_{make.name}")
        assert str(caught.value.detail).startswith(f"body: not valid {make.name}: ")


def test_a_window_is_taken_up_to_what_a_coding_may_have_and_named_beyond() -> None:
    assert decoded(Unzstd, [unsized(PLAIN, 23)]) == PLAIN
    with pytest.raises(Rejection) as caught:
        decoded(Unzstd, [unsized(PLAIN, 24)])
    assert str(caught.value.detail).endswith(f": the window may have {WINDOW_BYTES_MAX} bytes at most")


def test_frames_are_counted_for_each_costs_more_than_it_carries() -> None:
    assert decoded(Unzstd, [zstd.compress(b"") * FRAMES_MAX]) == b""
    with pytest.raises(Rejection) as caught:
        decoded(Unzstd, [zstd.compress(b"") * (FRAMES_MAX + 1)])
    assert (caught.value.status, caught.value.code) == (400, "invalid_zstd")
    assert str(caught.value.detail).endswith(f"more than {FRAMES_MAX} frames")


PACKERS: Final[dict[str, tuple[type[Decoder], Callable[[bytes], bytes]]]] = {
    "zlib format": (Inflate, zlib.compress),
    "stored": (Inflate, lambda data: zlib.compress(data, 0)),
    "bare": (Inflate, deflated),
    "zstd": (Unzstd, zstd.compress),
    "zstd without its size": (Unzstd, lambda data: unsized(data) if len(data) < MIB // 2 else stream(data)),
}


def stream(data: bytes) -> bytes:
    """A frame without its size, in blocks as large as they may be."""
    packer = zstd.ZstdCompressor()
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("name", PACKERS)
def test_the_limit_is_exact(name: str) -> None:
    make, pack = PACKERS[name]
    rng = random.Random(5)
    for limit in (1, 1024, LIMIT, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1):
        for plain in (b"a" * limit, rng.randbytes(limit)):
            packed = pack(plain)
            if len(packed) > compressed_bytes_max(limit):
                # What a hundred bytes at a time have cost in headers.
                continue
            places = rng.choices(range(len(packed)), k=5)
            assert decoded(make, cut(packed, places), limit) == plain
            with pytest.raises(Rejection) as caught:
                decoded(make, cut(packed, places), limit - 1)
            assert (caught.value.status, caught.value.code) == (413, "payload_too_large")


@given(st.binary(max_size=300), st.lists(st.integers(0, 400), max_size=5), st.integers(-7, 19))
def test_any_bytes_come_back(plain: bytes, places: list[int], level: int) -> None:
    for make, packed in (
        (Inflate, zlib.compress(plain, max(0, min(level, 9)))),
        (Inflate, deflated(plain, max(0, min(level, 9)))),
        (Unzstd, zstd.compress(plain, level)),
    ):
        assert decoded(make, cut(packed, places)) == plain


# -- bombs ----------------------------------------------------------------------------------------

RLE: Final = (128 * 1024 << 3 | 0b010).to_bytes(3, "little") + b"a"
"""A block of 4 bytes that becomes 128 KiB: the steepest that zstd has (RFC 8878 §3.1.1.2.2)."""
BOMBS: Final[dict[str, tuple[type[Decoder], bytes]]] = {
    "zlib format": (Inflate, zlib.compress(bytes(40 * MIB))),
    "bare": (Inflate, deflated(bytes(40 * MIB))),
    "zstd": (Unzstd, zstd.compress(bytes(40 * MIB))),
    "zstd frames": (Unzstd, zstd.compress(bytes(100_000)) * 400),
    "zstd blocks of one byte": (Unzstd, zstd.compress(b"")[:4] + b"\0\x68" + RLE * 4096),
}


class Counted:
    """A stream that adds what comes out of it to a count."""

    def __init__(self, inner: Any, counts: list[int]) -> None:
        self._inner = inner
        self._counts = counts

    def decompress(self, data: bytes, max_length: int) -> bytes:
        part: bytes = self._inner.decompress(data, max_length)
        self._counts.append(len(part))
        return part

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def counting(make: type[Decoder], limit: int, counts: list[int]) -> Decoder:
    """A decoder of this kind each of whose streams is counted."""

    class Counting(make):  # type: ignore[valid-type, misc]
        def _begin(self, data: bytes) -> bytes:
            rest: bytes = super()._begin(data)
            self._stream: Any = Counted(self._stream, counts)
            return rest

    decoder: Decoder = Counting(limit)
    return decoder


@pytest.mark.parametrize("limit", [1024, LIMIT, 10 * MIB])
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_stops_at_the_limit_and_one_buffer(name: str, limit: int) -> None:
    make, bomb = BOMBS[name]
    for pieces in ([bomb], cut(bomb, range(0, len(bomb), 500))):
        counts: list[int] = []
        decoder = counting(make, limit, counts)
        assert fed_until_too_large(decoder, pieces) <= len(bomb)
        assert sum(counts) <= limit + BUFFER_BYTES
        assert max(counts, default=0) <= BUFFER_BYTES
        # What is too large before it is decompressed is not looked at.
        assert sum(counts) > limit or len(bomb) > compressed_bytes_max(limit)


NOTHINGS: Final[dict[str, tuple[type[Decoder], bytes, bytes]]] = {
    "deflate": (Inflate, b"", b"\0\0\0\xff\xff"),
    "zlib format": (Inflate, zlib.compress(b"")[:2], b"\0\0\0\xff\xff"),
    "zstd blocks": (Unzstd, zstd.compress(b"")[:4] + b"\0\x68", b"\0\0\0"),
}


@pytest.mark.parametrize("name", NOTHINGS)
def test_what_becomes_nothing_cannot_be_fed_without_end(name: str) -> None:
    make, start, again = NOTHINGS[name]
    pieces = itertools.chain([start], itertools.repeat(again * 100, LIMIT))
    fed = fed_until_too_large(make(LIMIT), pieces)
    assert fed <= compressed_bytes_max(LIMIT) + len(again) * 100


def test_window_and_state_of_zstd_count_as_memory_that_is_held() -> None:
    decoder = Unzstd(20 * MIB)
    assert decoder.held_bytes == 0
    decoder.feed(zstd.compress(bytes(MIB)))
    assert decoder.held_bytes == 2 * MIB + STATE_BYTES
    decoder.feed(zstd.compress(bytes(15 * MIB)))
    assert decoder.held_bytes == 16 * MIB + WINDOW_BYTES_MAX + STATE_BYTES


def test_every_coding_that_clients_are_told_of_is_there() -> None:
    assert {name.encode() for name in NAMES} == set(CODINGS) - {b"", b"x-gzip"}
