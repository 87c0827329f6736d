"""schemathesis sends to the real server what the document allows and what it does not: no difference."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import Server, clean_environ
from tests.support.tools import ROOT

HOOKS = "tests.support.schemathesis_hooks"


@pytest.mark.timeout(180)
def test_schemathesis_finds_no_answer_that_the_document_does_not_say(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        done = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"),
                "run",
                f"http://{server.host}:{server.port}/openapi.json",
                *("--header", f"Authorization: Bearer {server.key}"),
                *("--checks", "all", "--max-examples", "100", "--seed", "1", "--no-color"),
            ],
            cwd=tmp_path,
            env=clean_environ(
                {"SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
            ),
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found = re.search(r"(\d+) generated, \1 passed", done.stdout)
        assert found is not None, done.stdout
        assert int(found[1]) > 200
        assert server.events(), "nothing was taken"
        assert "ERROR" not in server.log
