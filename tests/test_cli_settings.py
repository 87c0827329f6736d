"""Settings that a command takes from a file, and those that no server could run with."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.support.server import EVENT, Client, Server, run

OK, USAGE = 0, 2


def test_key_commands_use_the_data_dir_of_the_servers_settings(tmp_path: Path) -> None:
    config = ("--config", "ingestd.toml")
    (tmp_path / "ingestd.toml").write_text('data_dir = "elsewhere"\nack = "write"\n')
    added = run("key", "add", "shop", *config, cwd=tmp_path)
    assert added.returncode == OK, added.stderr
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["elsewhere"]
    with (
        Server(tmp_path, *config) as server,
        closing(Client(server.host, server.port, added.stdout.strip())) as client,
    ):
        assert client.post("/v1/track", EVENT).status == 200
    assert "shop" in run("key", "list", *config, cwd=tmp_path).stdout
    assert run("key", "revoke", "shop", *config, cwd=tmp_path).returncode == OK
    assert "shop" not in run("key", "list", *config, cwd=tmp_path).stdout


def test_a_flag_of_a_key_command_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "ingestd.toml").write_text('data_dir = "from-file"\n')
    done = run("key", "add", "x", "--config", "ingestd.toml", "--data-dir", "from-flag", cwd=tmp_path)
    assert done.returncode == OK, done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["from-flag"]


IMPOSSIBLE = [
    (r'data_dir = "a\u0000b"', "ingestd.toml: data_dir: 'a\\x00b' is not right: it has a NUL byte"),
    (r'listen = "unix:a\u0000b"', "ingestd.toml: listen: 'unix:a\\x00b' is not right: it has a NUL byte"),
    ("ring_batches_max = 100000000000", "ingestd.toml: ring_batches_max: 100000000000 is not right: "),
]


@pytest.mark.parametrize(("line", "sentence"), IMPOSSIBLE)
@pytest.mark.parametrize("command", [["serve"], ["key", "add", "x"]])
def test_an_impossible_setting_is_told_in_a_sentence(
    tmp_path: Path, command: list[str], line: str, sentence: str
) -> None:
    (tmp_path / "ingestd.toml").write_text(f"{line}\n")
    done = run(*command, "--config", "ingestd.toml", cwd=tmp_path)
    assert done.returncode == USAGE
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["ingestd.toml"]
