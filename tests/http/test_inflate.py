"""Gunzip with each inflater: what it takes, what it refuses, and how little a bomb can make of it."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from ingestd.errors import Rejection
from ingestd.http.decoder import BUFFER_BYTES, Decoder, compressed_bytes_max
from ingestd.http.inflate import ISAL, ZLIB, Gunzip, Inflater
from tests.support.requests import bytewise, cut

LIMIT = 64 * 1024
INFLATERS = {"isal": ISAL, "zlib": ZLIB}
each_inflater = pytest.mark.parametrize(
    "inflater", [pytest.param(made, id=name) for name, made in INFLATERS.items() if made]
)
PLAIN = b'[{"event":"a","properties":{},"timestamp":"2025-10-29T22:00:00Z"}]' * 20
PACKED = gzip.compress(PLAIN)


def inflate(pieces: list[bytes], inflater: Inflater, limit: int = LIMIT) -> bytes:
    """All pieces through one Gunzip, the counts compared with what came out."""
    gunzip = Gunzip(limit, inflater)
    count = sum(gunzip.feed(piece) for piece in pieces)
    inflated = gunzip.finish()
    assert count == len(inflated)
    return bytes(inflated)


def with_header(flags: int, extra: bytes) -> bytes:
    """PACKED with optional fields in its header (RFC 1952 §2.3.1)."""
    return PACKED[:3] + bytes([flags]) + PACKED[4:10] + extra + PACKED[10:]


def stored(data: bytes) -> bytes:
    """A gzip member that does not compress."""
    packer = zlib.compressobj(0, wbits=31)
    return packer.compress(data) + packer.flush()


GOOD: dict[str, tuple[bytes, bytes]] = {
    "one member": (PACKED, PLAIN),
    "best compression": (gzip.compress(PLAIN, 9), PLAIN),
    "stored blocks": (stored(PLAIN), PLAIN),
    "two members": (PACKED + gzip.compress(b"second"), PLAIN + b"second"),
    "a hundred members": (gzip.compress(b"x") * 100, b"x" * 100),
    "empty members between": (gzip.compress(b"") + PACKED + gzip.compress(b""), PLAIN),
    "an empty body": (gzip.compress(b""), b""),
    "a file name": (with_header(8, b"events.json\0"), PLAIN),
    "a comment": (with_header(16, b"from a client\0"), PLAIN),
    "an extra field": (with_header(4, b"\x04\0AB\0\0"), PLAIN),
    "as text": (with_header(1, b""), PLAIN),
}


@each_inflater
@pytest.mark.parametrize("name", GOOD)
def test_good_gzip_is_inflated_in_any_cut(name: str, inflater: Inflater) -> None:
    packed, plain = GOOD[name]
    rng = random.Random(name)
    assert inflate([packed], inflater) == plain
    assert inflate(bytewise(packed), inflater) == plain
    for _ in range(20):
        assert inflate(cut(packed, rng.choices(range(len(packed)), k=4)), inflater) == plain


BAD: dict[str, bytes] = {
    "nothing": b"",
    "cut in the header": PACKED[:5],
    "cut after the header": PACKED[:10],
    "cut in the data": PACKED[: len(PACKED) // 2],
    "cut before the checksum": PACKED[:-8],
    "cut in the checksum": PACKED[:-5],
    "cut in the length": PACKED[:-1],
    "second member cut": PACKED + PACKED[:-1],
    "second member cut in its header": PACKED + PACKED[:3],
    "a zero after": PACKED + b"\0",
    "zeros after": PACKED + bytes(64),
    "garbage after": PACKED + b"garbage that is longer than any header of gzip",
    "JSON": PLAIN,
    "zlib": zlib.compress(PLAIN),
    "raw deflate": PACKED[10:-8],
    "zstd": b"\x28\xb5\x2f\xfd" + bytes(40),
    "wrong magic": b"\x1f\x8c" + PACKED[2:],
    "method unknown": PACKED[:2] + b"\x07" + PACKED[3:],
    "checksum wrong": PACKED[:-8] + bytes([PACKED[-8] ^ 1]) + PACKED[-7:],
    "length wrong": PACKED[:-4] + bytes([PACKED[-4] ^ 1]) + PACKED[-3:],
    "block type unknown": PACKED[:10] + b"\x07" + PACKED[11:],
}


@each_inflater
@pytest.mark.parametrize("name", BAD)
def test_bad_gzip_is_400_in_any_cut(name: str, inflater: Inflater) -> None:
    for pieces in ([BAD[name]], bytewise(BAD[name])):
        with pytest.raises(Rejection) as caught:
            inflate(pieces, inflater)
        assert (caught.value.status, caught.value.code) == (400, "invalid_gzip")
        assert str(caught.value.detail).startswith("body: not valid gzip: ")


@each_inflater
@pytest.mark.parametrize("pack", [gzip.compress, stored])
def test_the_limit_is_exact(pack: Callable[[bytes], bytes], inflater: Inflater) -> None:
    rng = random.Random(5)
    for limit in (1, 1024, LIMIT, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1):
        for plain in (b"a" * limit, rng.randbytes(limit)):
            packed = pack(plain)
            places = rng.choices(range(len(packed)), k=5)
            assert inflate(cut(packed, places), inflater, limit) == plain
            with pytest.raises(Rejection) as caught:
                inflate(cut(packed, places), inflater, limit - 1)
            assert (caught.value.status, caught.value.code) == (413, "payload_too_large")


def fed_until_too_large(decoder: Decoder, pieces: Iterable[bytes]) -> int:
    """How many bytes it takes until the answer is 413."""
    fed = 0
    for piece in pieces:
        fed += len(piece)
        try:
            decoder.feed(piece)
        except Rejection as e:
            if e.status == 413:
                return fed
            raise
    pytest.fail("all of it was taken")


class Counted:
    """A decompressor that adds what comes out of it to a count."""

    def __init__(self, inner: Any, count: list[int]) -> None:
        self._inner = inner
        self._count = count

    def decompress(self, data: bytes, max_length: int) -> bytes:
        part: bytes = self._inner.decompress(data, max_length)
        self._count.append(len(part))
        return part

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


BOMB = gzip.compress(bytes(40 * 1024 * 1024), 6)
BOMBS = {"one member": BOMB, "many members": gzip.compress(bytes(100_000)) * 400}


@each_inflater
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("limit", [1024, LIMIT, 10 * 1024 * 1024])
def test_a_bomb_stops_at_the_limit_and_one_buffer(bomb: bytes, limit: int, inflater: Inflater) -> None:
    for pieces in ([bomb], cut(bomb, range(0, len(bomb), 500))):
        count: list[int] = []
        counted = Inflater(lambda wbits, c=count: Counted(inflater.decompressobj(wbits), c), inflater.error)
        gunzip = Gunzip(limit, counted)
        assert fed_until_too_large(gunzip, pieces) <= len(bomb)
        assert sum(count) <= limit + BUFFER_BYTES
        assert max(count, default=0) <= BUFFER_BYTES


@each_inflater
def test_what_inflates_to_nothing_cannot_be_fed_without_end(inflater: Inflater) -> None:
    members = gzip.compress(b"") * 100
    pieces = [members] * (10 * LIMIT // len(members))
    fed = fed_until_too_large(Gunzip(LIMIT, inflater), pieces)
    assert fed <= compressed_bytes_max(LIMIT) + len(members)


def test_zlib_does_the_work_where_isal_is_missing() -> None:
    code = """
import sys
sys.modules["isal"] = None
from ingestd.http import inflate
assert inflate.ISAL is None and inflate.FASTEST is inflate.ZLIB
gunzip = inflate.Gunzip(100)
gunzip.feed(bytes.fromhex(sys.argv[1]))
assert gunzip.finish() == b"hello"
"""
    subprocess.run([sys.executable, "-c", code, gzip.compress(b"hello").hex()], check=True)
