"""Writes fuzz/seeds/ anew from the cases of the tests: `python -m fuzz.seeds`."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Final

from fuzz.checks import packed
from tests.http import test_codings
from tests.http.guard_cases import BODY, CASES
from tests.http.test_inflate import BAD, GOOD
from tests.http.wild_cases import READ
from tests.support.requests import head, post, post_chunked

FOLDER: Final = Path(__file__).parent / "seeds"
_BYTES_MAX: Final = 1000


def seeds() -> dict[str, bytes]:
    """Each seed's path in the folder and its bytes."""
    made: dict[str, bytes] = {}
    streams = (
        {case.name: case.raw for case in CASES}
        | READ
        | {f"pipeline {i}": raw for i, raw in enumerate(_pipelines())}
    )
    for name, raw in streams.items():
        if len(raw) <= _BYTES_MAX:
            rng = random.Random(name)
            made[f"protocol/{_slug(name)}"] = packed(
                _undated(raw), rng.choices(range(len(raw)), k=rng.randint(0, 4))
            )
    for name, raw in {**{name: raw for name, (raw, _) in GOOD.items()}, **BAD}.items():
        if len(raw) <= _BYTES_MAX:
            made[f"inflate/{_slug(name)}"] = packed(_undated(raw), range(5, len(raw), 40))
            made[f"inflate/{_slug(name)}-deflate"] = packed(_undated(raw)[10:-8])
    good = {name: (make, raw) for name, (make, raw, _) in test_codings.GOOD.items()}
    for name, (make, raw) in {**good, **test_codings.BAD}.items():
        if len(raw) <= _BYTES_MAX:
            made[f"inflate/{make.name}-{_slug(name)}"] = packed(raw, range(5, len(raw), 40))
    return made


def _pipelines() -> list[bytes]:
    """Streams of several requests: a head that repeats, and one after chunks."""
    bulk = post(b"[%s,%s]" % (BODY, BODY), "/v1/bulk-track")
    page = "Origin: https://a.example"
    preflight = head("OPTIONS /v1/track HTTP/1.1", [page, "Access-Control-Request-Method: POST"], auth=False)
    beacon = post(BODY, "/v1/track?key=ing_public", [page]).replace(b"Authorization:", b"X:")
    lines = post(BODY + b"\n\n" + BODY + b"\n", "/v1/bulk-track", ["Content-Type: application/x-ndjson"])
    return [
        post(BODY) * 3,
        preflight + post(BODY, headers=[page]) * 2 + post(b"{", headers=[page]),
        beacon * 2,
        lines + lines.replace(b"\n\n", b",\n"),
        post(BODY) + bulk,
        post_chunked(BODY, size=60) + post(BODY),
        post(b"{") + post(BODY),
    ]


def _undated(raw: bytes) -> bytes:
    """Without the time that gzip writes into its header."""
    return re.sub(rb"(\x1f[\x8b\x8c][\x07\x08].)(.{1,4})", _zeroed, raw, flags=re.DOTALL)


def _zeroed(match: re.Match[bytes]) -> bytes:
    return match[1] + bytes(len(match[2]))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", ascii(name).lower()).strip("-")[:60]


def write() -> None:
    """Put the folder in order: the seeds and nothing else; what is the same is not touched."""
    wanted = seeds()
    for path in FOLDER.rglob("*"):
        if path.is_file() and str(path.relative_to(FOLDER)) not in wanted:
            path.unlink()
    for name, data in wanted.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    write()
