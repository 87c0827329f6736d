"""The commands as an operator uses them, each as a real process."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ingestd.config import Settings
from tests.support.server import Server, clean_environ, run

OK, WRONG, USAGE = 0, 1, 2


# -- help ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["serve", "key", "cat", "verify"]),
        (["serve"], ["--listen", "--data-dir", "--ack", "--config", "fsync", "curl"]),
        (["key"], ["add", "list", "revoke"]),
        (["key", "add"], ["NAME", "--data-dir", "source"]),
        (["key", "revoke"], ["within about a second"]),
        (["cat"], ["--follow", "NDJSON", "open segments"]),
        (["verify"], ["Exit status 0", "--json", "sources", "quarantined_files"]),
    ],
)
def test_help_tells_what_a_newcomer_needs(tmp_path: Path, command: list[str], words: list[str]) -> None:
    done = run(*command, "--help", cwd=tmp_path)
    assert done.returncode == OK
    text = " ".join(done.stdout.split())
    assert [word for word in words if word not in text] == []


def test_help_of_serve_lists_every_setting_with_its_default(tmp_path: Path) -> None:
    lines = run("serve", "--help", cwd=tmp_path).stdout.splitlines()
    listed = dict(line.split() for line in lines if line.startswith("  INGESTD_"))
    assert listed == {f"INGESTD_{name.upper()}": str(getattr(Settings(), name)) or '""' for name in _names()}


def _names() -> tuple[str, ...]:
    return Settings.__struct_fields__


def test_version_is_printed(tmp_path: Path) -> None:
    assert run("--version", cwd=tmp_path).stdout == "ingestd 0.1.0\n"


# -- mistakes --------------------------------------------------------------------------------

MISTAKES = [
    (["serve", "--workers", "many"], USAGE, "--workers: 'many'"),
    (["serve", "--listen", "8080"], USAGE, "--listen 8080: say HOST:PORT, such as 127.0.0.1:8080"),
    (["serve", "--listen", "127.0.0.1:65536"], USAGE, "--listen 127.0.0.1:65536: say HOST:PORT"),
    (["serve", "--listen", "a..b:80"], USAGE, "--listen a..b:80: "),
    (["serve", "--listen", "unix:"], USAGE, "--listen unix:: say HOST:PORT"),
    (["serve", "--listen", "unix:no/such/folder"], USAGE, "No such file or directory"),
    (
        ["serve", "--listen", "unix:plain-file"],
        USAGE,
        "--listen unix:plain-file: a file that is no socket is there",
    ),
    (["serve", "--listen", f"unix:{'x' * 200}"], USAGE, "path too long"),
    (["serve", "--data-dir", "plain-file"], USAGE, "plain-file: not a directory"),
    (["serve", "--data-dir", "/proc/nothing"], WRONG, "/proc/nothing: No such file or directory"),
    (["serve", "--ack", "maybe"], USAGE, "--ack: 'maybe'"),
    (["serve", "--config", "missing.toml"], USAGE, "--config missing.toml: No such file"),
    (["serve", "--config", "plain-file"], USAGE, "plain-file: not valid TOML"),
    (["key", "add", "two words"], USAGE, "key name 'two words'"),
    (["key", "add", "x", "--data-dir", "plain-file"], USAGE, "plain-file: not a directory"),
    (["key", "revoke", "nobody"], USAGE, "no key is named 'nobody'"),
    (["cat", "missing"], USAGE, "missing: no such file or directory"),
    (["cat", "x" * 300], WRONG, "File name too long"),
    (["cat", "empty-folder"], USAGE, "empty-folder: neither 'segments' nor 'open' is in it"),
    (["cat", "plain-file"], WRONG, "plain-file: no whole zstd frame at byte 0"),
    (["verify", "missing"], USAGE, "missing: no such directory"),
    (["verify", "plain-file"], USAGE, "plain-file: no such directory"),
    (["verify", "empty-folder"], USAGE, "empty-folder: neither 'segments' nor 'open' is in it"),
    (["launch"], USAGE, "invalid choice: 'launch'"),
    ([], USAGE, "required: COMMAND"),
]


@pytest.mark.parametrize(("command", "status", "text"), MISTAKES)
def test_a_mistake_is_told_in_a_sentence(tmp_path: Path, command: list[str], status: int, text: str) -> None:
    (tmp_path / "plain-file").write_text("not = [a segment\n")
    (tmp_path / "empty-folder").mkdir()
    done = run(*command, cwd=tmp_path)
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert (done.returncode, done.stdout) == (status, "")


@pytest.mark.parametrize("listen", ["8080", "127.0.0.1:65536", "unix:"])
def test_a_bad_address_leaves_nothing_behind(tmp_path: Path, listen: str) -> None:
    assert run("serve", "--listen", listen, cwd=tmp_path).returncode == USAGE
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_told_and_costs_no_key(tmp_path: Path) -> None:
    """The first key is shown once: a start that fails must not make it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("serve", "--listen", address, cwd=tmp_path)
    assert done.returncode == USAGE
    assert f"--listen {address}: " in done.stderr
    assert "address already in use" in done.stderr.lower()
    assert not (tmp_path / "data" / "keys.toml").exists()


PRINTING = [
    ["cat", "data"],
    ["find", "--json", "--message-id", "a", "data"],
    ["verify", "data"],
    ["key", "list"],
]


@pytest.mark.parametrize("command", PRINTING)
def test_a_full_disk_behind_standard_output_is_told(stopped: Server, command: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = _command(command, stopped.folder, full)
    assert done.returncode == WRONG
    assert done.stderr == b"ingestd: No space left on device\n"


@pytest.mark.parametrize("command", PRINTING)
def test_a_reader_that_has_gone_is_no_error(stopped: Server, command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = _command(command, stopped.folder, pipe)
    assert (done.returncode, done.stderr) == (OK, b"")


def _command(
    command: list[str], folder: Path, stdout: io.BufferedWriter
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "ingestd", *command],
        cwd=folder,
        env=clean_environ(),
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=30,
        check=False,
    )


# -- settings --------------------------------------------------------------------------------


def test_a_file_gives_settings_a_variable_wins_over_it_and_a_flag_over_both(tmp_path: Path) -> None:
    (tmp_path / "ingestd.toml").write_text('data_dir = "from-file"\nack = "write"\n')
    server = Server(tmp_path, "--config", "ingestd.toml", "--data-dir", "from-flag", data_dir="from-variable")
    with server:
        assert "from-flag" in server.log
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["from-flag"]


def test_an_unknown_setting_names_itself_and_its_file(tmp_path: Path) -> None:
    (tmp_path / "ingestd.toml").write_text("lisen = 'x'\n")
    done = run("serve", "--config", "ingestd.toml", cwd=tmp_path)
    assert done.returncode == USAGE
    assert "ingestd.toml: unknown setting 'lisen'" in done.stderr


def test_a_keys_file_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    """A server that starts without its keys would answer 401 to everyone."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "keys.toml").write_text("key = 1\n")
    done = run("serve", "--listen", "127.0.0.1:0", cwd=tmp_path)
    assert done.returncode == USAGE
    assert "data/keys.toml" in done.stderr


# -- key -------------------------------------------------------------------------------------


def test_a_key_is_shown_once_listed_without_its_secret_and_revoked(tmp_path: Path) -> None:
    made = run("key", "add", "shop", cwd=tmp_path)
    secret = made.stdout.strip()
    assert (made.returncode, made.stderr) == (OK, "")
    assert secret.startswith("ing_")
    listed = run("key", "list", cwd=tmp_path)
    assert listed.stdout.startswith("shop\tcreated 20")
    assert secret not in listed.stdout
    assert secret not in (tmp_path / "data" / "keys.toml").read_text()
    again = run("key", "add", "shop", cwd=tmp_path)
    assert again.returncode == USAGE
    assert "a key named 'shop' exists" in again.stderr
    assert run("key", "revoke", "shop", cwd=tmp_path).returncode == OK
    assert run("key", "list", cwd=tmp_path).stdout == ""


def test_a_revoked_first_key_does_not_come_back(stopped: Server) -> None:
    assert run("key", "revoke", "default", cwd=stopped.folder).returncode == OK
    with stopped:
        stopped.wait_for_log("no keys")
        assert "ing_" not in stopped.log
    assert run("key", "list", cwd=stopped.folder).stdout == ""


# -- the first start -------------------------------------------------------------------------


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "unix:socket"])
def test_the_printed_curl_line_works_when_pasted(tmp_path: Path, listen: str) -> None:
    if listen.startswith("[") and not _has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    with Server(tmp_path, listen=listen) as server:
        server.wait_for_log("curl ")
        [line] = [line for line in server.log.splitlines() if "curl " in line]
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
        )
        assert json.loads(done.stdout)["status"] == "ok"
    assert not (tmp_path / "socket").exists()


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_a_socket_file_left_by_a_killed_server_is_taken_over(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "socket"))
    left.close()
    with Server(tmp_path, listen="unix:socket") as server:
        assert "listens on unix:socket" in server.log


def test_a_socket_that_a_server_listens_on_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with Server(tmp_path, listen="unix:socket"):
        done = run("serve", "--listen", f"unix:{tmp_path}/socket", cwd=tmp_path / "second")
    assert done.returncode == USAGE
    assert "another process listens there" in done.stderr


def test_a_file_in_the_place_of_the_socket_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("precious")
    assert run("serve", "--listen", "unix:notes", cwd=tmp_path).returncode == USAGE
    assert (tmp_path / "notes").read_text() == "precious"
