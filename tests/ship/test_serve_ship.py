"""`serve --ship`: one command that takes events and delivers them, and what ends with what."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.support.server import EVENT, Server, run, wait_until
from tests.support.shipping import files, markers, message_ids, sealed


def shippers(supervisor: int) -> list[int]:
    """The ids of the supervisor's children that are shippers."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return [int(pid) for pid in children if b"\0ship\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def shipping(folder: Path, target: Path) -> Server:
    return Server(folder, "--ship", ship_to=f"file://{target}", segment_age_max_s=0.2)


def test_what_is_taken_is_delivered_and_one_that_is_killed_is_started_again(
    tmp_path: Path, target: Path
) -> None:
    with shipping(tmp_path, target) as server, server.client() as client:
        assert client.post("/v1/track", EVENT | {"messageId": "a"}).status == 200
        wait_until(lambda: files(target), "the first is delivered")
        (before,) = shippers(server.pid)
        os.kill(before, signal.SIGKILL)
        server.wait_for_log("the shipper ended with status -9, the next starts in 1.0 s")
        assert client.post("/v1/track", EVENT | {"messageId": "b"}).status == 200
        wait_until(lambda: len(files(target)) == 2, "the second is delivered")
        assert shippers(server.pid) != [before]
        wait_until(lambda: markers(server.data_dir) >= sealed(server.data_dir).keys(), "both are marked")
    assert "SIGTERM: stopping" in server.log
    assert sorted(message_ids(files(target))) == ["a", "b"]


def test_no_shipper_outlives_the_server(tmp_path: Path, target: Path) -> None:
    server = shipping(tmp_path, target).start()
    wait_until(lambda: shippers(server.pid), "there is a shipper")
    (pid,) = shippers(server.pid)
    # Of the group that `kill` ends it alone is left to see its standard input end.
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    wait_until(lambda: not Path(f"/proc/{pid}/cmdline").exists(), "the shipper has ended")
    assert "the supervisor has ended: stopping" in server.log


def test_a_place_that_is_none_is_refused_before_there_is_a_server(tmp_path: Path) -> None:
    for to, told in (("", "where to? Say --to URL, or ship_to"), ("ftp://x", "--to: say one of s3://")):
        config = tmp_path / "ingestd.toml"
        config.write_text(f'ship_to = "{to}"\n')
        found = run("serve", "--ship", "--config", config, cwd=tmp_path)
        assert found.returncode == 2
        assert told in found.stderr
    assert not (tmp_path / "data").exists()
