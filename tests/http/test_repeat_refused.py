"""A repeated head after a HEAD request: what is refused then is no answer to a HEAD, and has its body."""

from __future__ import annotations

import gzip
from typing import Final

import pytest

from tests.support.requests import encoded, event, head, post
from tests.support.wire import Site, Wire

BODY_BYTES_MAX: Final = 100_000
REFUSED: Final = {
    "no gzip": (b"no gzip, but long enough to be one", 400, "invalid_gzip"),
    "an end too early": (gzip.compress(encoded(event()))[:-3], 400, "invalid_gzip"),
    "too large when inflated": (gzip.compress(bytes(2 * BODY_BYTES_MAX)), 413, "payload_too_large"),
    "too large as sent": (bytes(2 * BODY_BYTES_MAX), 413, "payload_too_large"),
}


@pytest.mark.parametrize("probe", ["HEAD /healthz HTTP/1.1", "HEAD /readyz HTTP/1.1"])
@pytest.mark.parametrize("refused", REFUSED)
def test_a_refused_repeat_after_a_head_request_has_its_body(refused: str, probe: str) -> None:
    body, status, code = REFUSED[refused]
    wire = Wire(Site(body_bytes_max=BODY_BYTES_MAX))
    good = post(gzip.compress(encoded(event())), headers=["Content-Encoding: gzip"])
    for data in (good, good, head(probe), post(body, headers=["Content-Encoding: gzip"])):
        wire.feed(data)
        wire.site.commit()
    answers = wire.answers(["POST", "POST", "HEAD", "POST"])
    assert [answer.status for answer in answers] == [200, 200, 200, status]
    assert answers[2].body == b""
    assert answers[3].code == code
