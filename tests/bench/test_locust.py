"""The commands of bench/locust/README.md, in their order, against a real server."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.server import Server, clean_environ, run
from tests.support.tools import ROOT, copy_tree

_KINDS = {"Browser": "/v1/track", "Phone": "/v1/bulk-track", "LogShipper": "/v1/bulk-track"}


@pytest.mark.timeout(300)
def test_the_commands_of_its_readme_work_and_every_event_is_acknowledged(tmp_path: Path) -> None:
    """Locust's exit status is 1 if a request has failed."""
    [block] = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "bench/locust/README.md").read_text(), re.M | re.S)
    copy = tmp_path / "clone"
    copy_tree(copy)
    with Server(tmp_path) as server:
        script = block.replace("http://127.0.0.1:8080", f"http://127.0.0.1:{server.port}")
        assert script != block
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=copy,
            env=clean_environ() | {"KEY": server.key},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout + done.stderr
    for kind, path in _KINDS.items():
        assert re.search(rf"{path} {kind} +[1-9]", said), f"{kind}: {said}"
    told = json.loads(run("verify", "--json", server.data_dir, cwd=tmp_path).stdout)
    assert told["ok"]
    assert told["events"] > 1000
