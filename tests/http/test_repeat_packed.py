"""A repeated head whose body is compressed: inflated, judged and limited like the first."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from functools import partial

import pytest
import zstandard

from tests.http.test_repeat import AFTER, BODY, LARGE, told
from tests.support.requests import bytewise, post


@pytest.mark.parametrize(
    ("name", "pack"),
    [("gzip", partial(gzip.compress, mtime=0)), ("deflate", zlib.compress), ("zstd", zstandard.compress)],
)
def test_a_compressed_repeat_is_inflated_judged_and_limited_like_the_first(
    name: str, pack: Callable[[bytes], bytes]
) -> None:
    def packed(body: bytes) -> bytes:
        return post(pack(body), headers=[f"Content-Encoding: {name}"])

    good = packed(BODY)
    bad = post(b"not compressed, but long", headers=[f"Content-Encoding: {name}"])
    truncated = post(pack(BODY)[:-3], headers=[f"Content-Encoding: {name}"])
    bomb = packed(bytes(11 << 20))
    for data in (packed(BODY), packed(b"{"), packed(LARGE[2]), bomb, bad, truncated):
        fresh = told(data + AFTER)
        assert told(data + AFTER, good=good, times=2) == fresh
        assert told(data + AFTER, [*bytewise(data[:400]), data[400:] + AFTER], good, 2) == fresh
