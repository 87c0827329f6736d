"""The content codings that a body may have: by name, how each is undone (RFC 9110 §8.4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ingestd.http.decoder import Decoder
from ingestd.http.inflate import Gunzip, Inflate
from ingestd.http.unzstd import Unzstd

CODINGS: Final[Mapping[bytes, type[Decoder] | None]] = {
    b"gzip": Gunzip,
    b"x-gzip": Gunzip,
    b"deflate": Inflate,
    b"zstd": Unzstd,
    b"identity": None,
    b"": None,
}
"""By Content-Encoding in lower case; one at a time, for nobody stacks them but to hide a bomb."""
NAMES: Final = ("gzip", "deflate", "zstd", "identity")
"""As clients are told of them."""
