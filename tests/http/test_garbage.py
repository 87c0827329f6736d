"""A connection that is lost leaves nothing to the garbage collector, which seldom comes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from ingestd.errors import StorageError
from ingestd.http.protocol import Connection
from ingestd.http.requests import RequestReader
from ingestd.http.tls import TlsTransport
from tests.support import certificates
from tests.support.requests import encoded, event, head, post, post_chunked
from tests.support.tls import Contexts, TlsWire
from tests.support.wire import Site, Wire

OURS = (Connection, RequestReader, TlsTransport)


def left_behind(run: Callable[[], object]) -> list[Any]:
    """What `run` has made and only the garbage collector can find."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        run()
        gc.collect()
        return [one for one in gc.garbage if isinstance(one, OURS)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def lose(wire: Wire | TlsWire) -> None:
    """The connection is lost; like uvloop's, its transport forgets it."""
    if isinstance(wire, Wire):
        wire.vanish(None)
        del wire.transport._protocol
    else:
        wire.vanish()
        del wire.raw._protocol


@pytest.mark.parametrize(
    "data",
    [
        b"",
        post(encoded(event())) * 3,
        post(encoded(event()))[:-1],
        post_chunked(encoded(event()))[:-9],
        post(b"x"),
        b"nonsense\r\n\r\n",
        head("GET /healthz HTTP/1.1") + b"GET /",
    ],
)
def test_a_plain_connection_is_gone_with_its_client(data: bytes) -> None:
    def run() -> None:
        site = Site()
        for commits in (True, False):
            wire = Wire(site)
            wire.feed(data)
            if commits:
                site.commit()
            lose(wire)
            site.commit(StorageError("no space left"))

    assert left_behind(run) == []


def test_a_large_body_that_nobody_waits_for_is_gone_as_well() -> None:
    def run() -> None:
        site = Site()
        wire = Wire(site)
        with site.one_round():
            wire.feed(post(encoded([event(properties={"pad": "x" * 1000})] * 700), "/v1/bulk-track"))
        lose(wire)
        site.settle()
        site.commit()

    assert left_behind(run) == []


@pytest.mark.parametrize("shakes", [True, False])
def test_a_tls_connection_is_gone_with_its_client(
    tmp_path_factory: pytest.TempPathFactory, shakes: bool
) -> None:
    contexts = Contexts(certificates.make(tmp_path_factory.mktemp("tls")))

    def run() -> None:
        wire = TlsWire(contexts, shakes=shakes)
        if shakes:
            wire.feed(post(encoded(event())) * 2)
            wire.site.commit()
            wire.feed(post(b"x"))
        lose(wire)

    assert left_behind(run) == []
