"""`find` as an operator uses it: what it prints, how it exits, and that a receipt lasts."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.server import EVENT, Client, Server, run, wait_until

FOUND, NOT_FOUND, USAGE, UNKNOWN_SEGMENT, NOT_ALL_READ = range(5)
UNKNOWN = "20260102T030405.678Z-node-w0-000001:0"


def find(server: Server, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run("find", *arguments, "data", cwd=server.folder)


def post(client: Client, message_id: str) -> str:
    """Returns the receipt."""
    answer = client.post("/v1/track", EVENT | {"messageId": message_id})
    assert (answer.status, answer.headers["Ingest-Ack"]) == (200, "fsync")
    receipt = answer.headers["Ingest-Receipt"]
    assert receipt is not None
    return receipt


def ids(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [json.loads(line)["messageId"] for line in done.stdout.splitlines()]


def test_a_receipt_finds_its_event_open_recovered_and_packed(tmp_path: Path) -> None:
    server = Server(tmp_path, workers=1)
    with server:
        with server.client() as client:
            lost = post(client, "before the kill")
            assert ids(find(server, "--receipt", lost)) == ["before the kill"]
            server.kill()
        server.start()
        assert ids(find(server, "--receipt", lost)) == ["before the kill"]
        with server.client() as client:
            receipts = {name: post(client, name) for name in map(str, range(50))}
            assert ids(find(server, "--receipt", receipts["17"])) == ["17"]
            server.send(signal.SIGUSR1)
            wait_until(lambda: ", packed" in server.log, "the segment is packed")
        for name in ("0", "17", "49"):
            done = find(server, "--receipt", receipts[name])
            assert (done.returncode, ids(done)) == (FOUND, [name])
    assert ids(find(server, "--receipt", lost)) == ["before the kill"]


def test_the_event_goes_to_standard_output_and_its_place_to_standard_error(stopped: Server) -> None:
    [path] = stopped.segments()
    done = find(stopped, "--message-id", "b")
    assert (done.returncode, ids(done)) == (FOUND, ["b"])
    name = path.name.removesuffix(".ndjson.zst")
    place = f"ingestd: {path.relative_to(stopped.folder)}: line 2, receipt {name}:1\n"
    assert done.stderr == place
    shown = subprocess.run(["zstd", "-dc", path], capture_output=True, text=True, check=True).stdout
    assert done.stdout == shown.splitlines(keepends=True)[1]


def test_machines_get_one_object_for_each_event(stopped: Server) -> None:
    [path] = stopped.segments()
    name = path.name.removesuffix(".ndjson.zst")
    done = run("find", "--message-id", "b", "--json", "data", stopped.data_dir, cwd=stopped.folder)
    assert (done.returncode, done.stderr) == (FOUND, "")
    first, second = map(json.loads, done.stdout.splitlines())
    assert first.pop("path") == str(path.relative_to(stopped.folder))
    assert second.pop("path") == str(path)
    assert first == second
    event = first.pop("event")
    assert (event["messageId"], event["event"]) == ("b", EVENT["event"])
    assert first == {"segment": name, "line": 2, "commit": 1, "receipt": f"{name}:1"}


def test_receipt_and_id_together_find_one_event_of_many(tmp_path: Path) -> None:
    with Server(tmp_path) as server, server.client() as client:
        answer = client.post("/v1/bulk-track", [EVENT | {"messageId": name} for name in ("a", "b", "b")])
        receipt = answer.headers["Ingest-Receipt"]
        assert receipt is not None
        assert ids(find(server, "--receipt", receipt)) == ["a", "b", "b"]
        assert ids(find(server, "--receipt", receipt, "--message-id", "b")) == ["b", "b"]
        assert find(server, "--receipt", receipt, "--message-id", "c").returncode == NOT_FOUND


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("--message-id", "c"), NOT_FOUND, "ingestd: not found\n"),
        (("--receipt", UNKNOWN), UNKNOWN_SEGMENT, "its segment is not here: expired, taken away"),
        (("--receipt", "17"), USAGE, "'17' is not a receipt; one looks like"),
        ((), USAGE, "say what to find"),
        (("--message-id", "\udcff"), USAGE, "argument --message-id: invalid"),
    ],
)
def test_what_is_not_found_is_said_with_a_status_of_its_own(
    stopped: Server, arguments: tuple[str, ...], status: int, says: str
) -> None:
    done = find(stopped, *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert says in done.stderr


def test_a_commit_that_the_segment_does_not_have_is_not_found(stopped: Server) -> None:
    [path] = stopped.segments()
    done = find(stopped, "--receipt", f"{path.name.removesuffix('.ndjson.zst')}:2")
    assert (done.returncode, done.stderr) == (NOT_FOUND, "ingestd: not found\n")


def test_what_is_not_found_where_not_all_could_be_read_may_still_be_there(stopped: Server) -> None:
    [path] = stopped.segments()
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    for arguments in (("--message-id", "b"), ("--receipt", f"{path.name.removesuffix('.ndjson.zst')}:1")):
        done = find(stopped, *arguments)
        assert (done.returncode, done.stdout) == (NOT_ALL_READ, "")
        assert str(path.name) in done.stderr
        assert done.stderr.endswith("ingestd: not found in what could be read\n")


def test_a_directory_that_is_no_data_directory_is_told(stopped: Server) -> None:
    for folder in ("nowhere", "."):
        done = run("find", "--message-id", "a", "data", folder, cwd=stopped.folder)
        assert (done.returncode, done.stdout) == (USAGE, "")
        assert folder in done.stderr
