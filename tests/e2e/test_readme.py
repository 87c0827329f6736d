"""README.md is true: its commands are run in their order, in a fresh copy of the repository.

Two things differ from a newcomer's terminal: INGESTD_LISTEN names a free port, because 8080 may be
taken, and so the address in the text is replaced by the real one; and `ing_...` is replaced by the
key that the server printed. `make test` is not run from within itself: CI runs it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingestd import config
from ingestd.service import listeners
from tests.support.server import clean_environ, wait_until
from tests.support.tools import ROOT, clickhouse, copy_tree, tool

README = (ROOT / "README.md").read_text()

SERVE, TEST, STOP = "make serve", "make test", 'kill "$(cat data/lock)"'


def _blocks(language: str) -> list[str]:
    return [block.strip() for block in re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What a clone of the working tree would hold: no virtualenv, no data, nothing ignored."""
    target = tmp_path / "ingestd"
    copy_tree(target)
    return target


@contextmanager
def _serving(folder: Path, environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """`make serve` in a terminal of its own, ended with everything it started."""
    with (folder.parent / "log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", SERVE], cwd=folder, env=environ, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _run(block: str, folder: Path, environ: dict[str, str], session: Path) -> str:
    """Run a block as the next lines of one terminal: what earlier ones assigned is still set."""
    with session.open("a") as lines:
        lines.writelines(line + "\n" for line in block.splitlines() if re.match(r"[A-Z]+=", line))
    script = f". {session}\n{block}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.timeout(300)
def test_every_command_of_the_readme_works_in_its_order(copy: Path) -> None:
    for name in ("zstd", "curl", "make"):
        tool(name)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environ = clean_environ({"INGESTD_LISTEN": address})
    # The interpreter's own virtualenv must not show through.
    environ.pop("PYTHONPATH", None)
    log, session = copy.parent / "log", copy.parent / "session"
    blocks = _blocks("sh")
    assert blocks[0] == SERVE
    assert blocks[-1] == TEST
    outputs: dict[str, str] = {}
    with _serving(copy, environ) as server:
        wait_until(lambda: "curl " in log.read_text() or server.poll() is not None, "it serves", 200)
        printed = re.search(r"ing_\S{30,}", log.read_text())
        assert printed is not None, log.read_text()
        for block in blocks[1:-1]:
            asked = block.replace("127.0.0.1:8080", address).replace("ing_...", printed[0])
            outputs[block] = _run(asked, copy, environ, session)
            if block == STOP:
                assert server.wait(30) == 0, log.read_text()
    assert STOP in outputs
    for block, output in outputs.items():
        if "curl" in block:
            assert output.startswith('{"status":"ok","messageId'), block
        elif any(word in block for word in ("ingestd cat", "duckdb.sql", "polars.", "zstd -dc")):
            assert "signup" in output, f"{block}\n{output}"
        elif "ingestd find" in block:
            assert json.loads(output)["messageId"] == "view-1"
        elif "verify" in block:
            assert "3 events, 0 problems" in output
    for query in _blocks("sql"):
        answer = clickhouse(query, "CSV", copy)
        assert sorted(answer.splitlines()) == ['"signup",1', '"view",2']


def test_the_command_for_all_tests_is_the_one_that_CI_calls() -> None:
    assert TEST in (ROOT / ".ci" / "run").read_text().splitlines()
    assert "CI=true" in (ROOT / ".ci" / "run").read_text()


def test_the_settings_file_of_the_readme_is_valid(tmp_path: Path) -> None:
    [text] = _blocks("toml")
    (tmp_path / "ingestd.toml").write_text(text)
    listen = config.load({}, {}, tmp_path / "ingestd.toml").listen
    assert listeners.split(listen)[0] == "0.0.0.0:8080"


def test_the_table_of_settings_is_that_of_the_code() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "settings_table.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(
        f"docs/{name}.md"
        for name in (
            *(
                "architecture",
                "clients",
                "connection",
                "keys",
                "operations",
                "reading",
                "security",
                "shipping",
            ),
        )
    ),
]


@pytest.mark.parametrize("page", [*PAGES, "bench/README.md", "docs/benchmarks.md", "fuzz/README.md"])
def test_links_between_pages_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\((?!https://)([^)]+)\)", path.read_text()):
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), target
        headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.M) if anchor else []
        assert not anchor or anchor in [h.lower().replace(" ", "-") for h in headings], target
