"""What must hold for any bytes at all. No fuzzer is needed to call these: findings become tests.

An input begins with its cuts: one byte that says how many there are (0 to 7), two bytes for each.
The rest is what the client sends.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import zstandard

from ingestd.errors import Rejection
from ingestd.http.decoder import BUFFER_BYTES, Decoder
from ingestd.http.inflate import ISAL, ZLIB, Gunzip, Inflate
from ingestd.http.unzstd import Unzstd
from tests.support.requests import bytewise, cut
from tests.support.wire import CONTINUE, Site, Wire, key

_ANSWER: Final = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n((?:[!-9;-~]+: [ -~]*\r\n)+)\r\n")
_LENGTH: Final = re.compile(rb"^Content-Length: (\d+)\r$", re.MULTILINE)
_MADE: Final = re.compile(rb'"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"')
_RECEIVED_AT: Final = re.compile(rb'"receivedAt":"[^"]*"')
_CUTS_MAX: Final = 7
_BYTEWISE_BYTES_MAX: Final = 400
_INFLATED_BYTES_MAX: Final = 64 * 1024


def packed(stream: bytes, places: Sequence[int] = ()) -> bytes:
    """The input that stands for `stream` with these cuts."""
    chosen = list(places)[:_CUTS_MAX]
    return bytes([len(chosen)]) + b"".join(place.to_bytes(2, "big") for place in chosen) + stream


def unpacked(data: bytes) -> tuple[bytes, list[int]]:
    """The stream and the cuts of an input."""
    if not data:
        return b"", []
    count = data[0] % (_CUTS_MAX + 1)
    places = [int.from_bytes(data[1 + 2 * i : 3 + 2 * i], "big") for i in range(count)]
    stream = data[1 + 2 * count :]
    return stream, [place % len(stream) for place in places] if stream else []


def check_protocol(data: bytes) -> None:
    """A connection answers alike in any cut, never with 500, and gives all of its memory back."""
    stream, places = unpacked(data)
    whole = outcome([stream])
    assert _are_alike(outcome(cut(stream, places)), whole), "the cuts change the answers"
    if len(stream) <= _BYTEWISE_BYTES_MAX:
        assert _are_alike(outcome(bytewise(stream)), whole), "byte by byte the answers are others"


class Outcome(NamedTuple):
    """Answers without what is made anew each time, stored lines likewise, and whether it is over."""

    answers: list[tuple[int, bytes]]
    lines: list[bytes]
    is_ended: bool


def _are_alike(one: Outcome, other: Outcome) -> bool:
    """The same, but that a request which is refused before its method is known may be a HEAD after all."""
    if len(one.answers) != len(other.answers) or one[1:] != other[1:]:
        return False
    pairs = zip(one.answers, other.answers, strict=True)
    return all(a == b or (a[0] == b[0] == 400 and not (a[1] and b[1])) for a, b in pairs)


def outcome(pieces: list[bytes]) -> Outcome:
    """What becomes of a stream that comes in these pieces."""
    site = Site(cors_origins="https://a.example")
    site.keyring.replace(
        [key(), key("ing_public", "page", public=True, events_per_s=1e6, requests_per_s=1e6)]
    )
    wire = Wire(site)
    wire.feed(b"", pieces)
    site.commit()
    received = bytes(wire.transport.received).replace(CONTINUE, b"")
    is_ended = wire.is_ended()
    for line in site.lines:
        json.loads(line)
    wire.vanish(None)
    assert site.inflight_bytes == 0, "the budget is not given back"
    assert (site.ring.batches, site.ring.bytes) == (0, 0), "the ring is not empty"
    assert not site.hub.connections
    lines = [_RECEIVED_AT.sub(b"", _MADE.sub(b"", line)) for line in site.lines]
    return Outcome(_answers(received), lines, is_ended)


def _answers(received: bytes) -> list[tuple[int, bytes]]:
    """Each answer's status and body; every byte of them is accounted for."""
    answers = []
    at = 0
    while at < len(received):
        head = _ANSWER.match(received, at)
        assert head, received[at : at + 200]
        status = int(head[1])
        length = _LENGTH.search(head[2])
        assert length, "an answer without a length"
        # The body is left out where the request was a HEAD.
        is_bare = received.startswith(b"HTTP/1.1 ", head.end()) or head.end() == len(received)
        at = head.end() if is_bare else head.end() + int(length[1])
        body = received[head.end() : at]
        assert status != 500, body
        assert not body or isinstance(json.loads(body), dict)
        answers.append((status, _MADE.sub(b"", body)))
    return answers


_EMPTY_BLOCKS: Final = (b"\4\0\0", b"\5\0\0")


def check_inflate(data: bytes) -> None:
    """isal and zlib make the same of a gzip body, or both refuse it.

    deflate and zstd are the same whole and cut, and nothing that other libraries do not make of them.

    The stream is tried as it is, and as the deflate data of a sound gzip member: a checksum that is
    right by chance is not to be hoped for.
    """
    stream, places = unpacked(data)
    for make in (Inflate, Unzstd):
        whole = inflated([stream], make)
        parted = inflated(cut(stream, places), make)
        assert parted == whole or isinstance(parted, str) is isinstance(whole, str) is True, (parted, whole)
        reference = _reference(stream, make)
        # In pieces libzstd takes a compressed block of no bytes for nothing, and all at once for damage.
        is_nothing = make is Unzstd and reference is None and any(block in stream for block in _EMPTY_BLOCKS)
        assert whole == reference or isinstance(whole, str) or is_nothing, whole
    for gzipped in (stream, _member(stream)):
        by_zlib = inflated([gzipped], _by_zlib)
        assert isinstance(inflated(cut(gzipped, places), _by_zlib), bytes) is isinstance(by_zlib, bytes)
        if ISAL is None:
            continue
        for pieces in ([gzipped], cut(gzipped, places)):
            by_isal = inflated(pieces, _by_isal)
            assert by_isal == by_zlib or isinstance(by_isal, str) is isinstance(by_zlib, str) is True, (
                by_isal,
                by_zlib,
            )


def _by_zlib(limit_bytes: int) -> Gunzip:
    return Gunzip(limit_bytes, ZLIB)


def _by_isal(limit_bytes: int) -> Gunzip:
    assert ISAL is not None
    return Gunzip(limit_bytes, ISAL)


def _reference(stream: bytes, make: Callable[[int], Decoder]) -> bytes | None:
    """What another way of reading makes of a stream that is sound."""
    try:
        if make is Unzstd:
            reader = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
            return reader.read(_INFLATED_BYTES_MAX + 1)
        is_zlib = stream[:1] and stream[0] & 15 == 8
        return zlib.decompressobj(15 if is_zlib else -15).decompress(stream, _INFLATED_BYTES_MAX + 1)
    except (zlib.error, zstandard.ZstdError):
        return None


def inflated(pieces: list[bytes], make: Callable[[int], Decoder]) -> bytes | str:
    """The body, or the reason why it is refused."""
    decoder = make(_INFLATED_BYTES_MAX)
    try:
        for piece in pieces:
            decoder.feed(piece)
        body = bytes(decoder.finish())
    except Rejection as refusal:
        if refusal.status not in (400, 413):
            raise
        return str(refusal.detail)
    finally:
        assert decoder.inflated_bytes <= _INFLATED_BYTES_MAX + BUFFER_BYTES
    assert len(body) == decoder.inflated_bytes <= _INFLATED_BYTES_MAX
    return body


def _member(deflated: bytes) -> bytes:
    """A gzip member around this deflate data, its checksum right if zlib can read the data."""
    inflater = zlib.decompressobj(-15)
    try:
        plain = inflater.decompress(deflated, _INFLATED_BYTES_MAX)
    except zlib.error:
        plain = b""
    read = deflated[: len(deflated) - len(inflater.unused_data)]
    ends = zlib.crc32(plain).to_bytes(4, "little") + len(plain).to_bytes(4, "little")
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + read + ends + inflater.unused_data


CHECKS: Final[dict[str, Callable[[bytes], None]]] = {"protocol": check_protocol, "inflate": check_inflate}
