"""Limits of keys on the real process: commands change them while it runs, and workers share them."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from tests.support.server import EVENT, Client, Server, run, wait_until


def key_of(secret: str, more: str = "") -> str:
    """A line of keys.toml for this key."""
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return f'[[key]]\nname = "k"\nsha256 = "{digest}"\ncreated = 2026-01-01T00:00:00Z\n{more}\n'


def test_a_limit_that_a_command_sets_holds_within_a_moment(tmp_path: Path) -> None:
    with Server(tmp_path) as server:

        def status(target: str = "/v1/bulk-track") -> int:
            with server.client() as client:
                return client.post(target, [EVENT] * 3).status

        assert status() == 200
        limit = ("key", "limit", "default", "--events-per-s", "0.01")
        assert run(*limit, cwd=tmp_path).returncode == 0
        wait_until(lambda: status() == 429, "the limit is taken up")
        with server.client() as client:
            answer = client.post("/v1/track", EVENT)
        assert answer.json["code"] == "rate_limited"
        assert answer.json["detail"] == "the limit of this key is used up: events_per_s = 0.01"
        # Three events leave a debt of two, and 300 s; what has passed before the limit is not owed.
        assert 100 < int(answer.headers["Retry-After"]) <= 300
        assert run("key", "limit", "default", "--events-per-s", "none", cwd=tmp_path).returncode == 0
        wait_until(lambda: status() == 200, "the limit is gone")
    assert "events received = " in server.log
    assert "not accounted for" not in server.log


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_share_the_limit_of_a_key(tmp_path: Path, workers: int) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "keys.toml").write_text(key_of("ing_x", "requests_per_s = 0.1\nburst_s = 200"))
    with Server(tmp_path, workers=workers) as server:
        start = time.monotonic()
        statuses = []
        for _ in range(100):
            with Client(server.host, server.port, "ing_x") as client:
                statuses.append(client.post("/v1/track", EVENT).status)
        taken = statuses.count(200)
        assert set(statuses) == {200, 429}
        assert 20 <= taken <= 21 + 0.1 * (time.monotonic() - start)


def test_keys_come_from_a_credential_and_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    path = tmp_path / "ingestd-keys.toml"
    path.write_text(key_of("ing_first"))
    with Server(tmp_path) as server:

        def status(secret: str) -> int:
            with Client(server.host, server.port, secret) as client:
                return client.post("/v1/track", EVENT).status

        assert status("ing_first") == 200
        assert not (server.data_dir / "keys.toml").exists()
        assert "ing_" not in server.log
        path.with_suffix(".new").write_text(key_of("ing_second"))
        path.with_suffix(".new").rename(path)
        wait_until(lambda: status("ing_second") == 200, "the new key is taken")
        assert status("ing_first") == 401
