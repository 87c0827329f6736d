"""For all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.server import EVENT, Server

# A busy machine may take any time for an example: slow is not wrong.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture
def stopped(tmp_path: Path) -> Server:
    """A server that has stored two events, sealed them and stopped."""
    with Server(tmp_path) as server, server.client() as client:
        assert client.post("/v1/track", EVENT | {"messageId": "a"}).status == 200
        assert client.post("/v1/track", EVENT | {"messageId": "b"}).status == 200
    return server
