"""One server for the tests of a module that only talk to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.server import Client, Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on its defaults, shared by a module."""
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client of the shared server with a connection of its own."""
    with server.client() as connected:
        yield connected
