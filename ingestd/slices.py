"""A large array of events, cut into slices that are arrays of events themselves; or lines into lines.

Arrays put together with commas are an array, so if every slice is valid, then the whole is, with the
same events, wherever it was cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, cast

import msgspec
from msgspec import Raw

from ingestd import oddities
from ingestd.places import invalid

_SLICE_BYTES: Final = 128 * 1024
_NOT_WHITE: Final = re.compile(rb"[^ \t\r\n]")

_raws = msgspec.json.Decoder(list[Raw]).decode


def seeming(body: bytes | bytearray) -> Iterator[bytes | bytearray]:
    """Slices that end where an event seems to, found without reading: one may be invalid by its cut alone."""
    if not body.startswith(b"[{"):
        yield from exact(body)
        return
    at, view = 1, cast("bytes", memoryview(body))
    while len(body) - at > 2 * _SLICE_BYTES:
        cut = body.find(b"},{", at + _SLICE_BYTES, at + 2 * _SLICE_BYTES)
        if cut < 0:
            yield from exact(b"[%b" % view[at:])
            return
        yield b"[%b]" % view[at : cut + 1]
        at = cut + 2
    yield b"[%b" % view[at:]


def of_lines(body: bytes | bytearray) -> Iterator[bytes]:
    """Slices of whole lines, each with something on one of them, if there is anything at all."""
    at, found = 0, _NOT_WHITE.search(body)
    while True:
        end = body.find(b"\n", max(at + _SLICE_BYTES, found.start() if found else 0)) + 1 or len(body)
        yield bytes(memoryview(body)[at:end])
        at, found = end, _NOT_WHITE.search(body, end)
        if found is None:
            return


def exact(body: bytes | bytearray) -> Iterator[bytes]:
    """Slices that end where an event does. Raises Rejection (400) if it is no array, or is empty."""
    raws = split(body)
    at = 0
    while at < len(raws):
        end, size = at, 0
        while end < len(raws) and size < _SLICE_BYTES:
            size += len(memoryview(raws[end]))
            end += 1
        yield b"[%b]" % b",".join(raws[at:end])
        at = end


def split(body: bytes | bytearray) -> list[Raw]:
    """The elements of an array, not yet validated. Raises Rejection (400) if it is none, or empty."""
    try:
        body.decode()
        try:
            raws = _raws(body)
        except msgspec.DecodeError:
            raws = _raws(oddities.without_lone_surrogates(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise invalid(e) from None
    if not raws:
        raise invalid(msgspec.ValidationError("Expected `array` of length >= 1"))
    return raws
