"""`cat` and `verify` as an operator uses them, each as a real process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import zstandard

from tests.support.server import EVENT, Server, clean_environ, run

OK, WRONG = 0, 1


def test_cat_prints_folders_and_files_in_the_order_given(stopped: Server) -> None:
    [path] = stopped.segments()
    done = run("cat", path, "data", cwd=stopped.folder)
    assert done.returncode == OK
    assert [json.loads(line)["messageId"] for line in done.stdout.splitlines()] == ["a", "b"]


def test_cat_shows_an_open_segment_while_the_server_runs(tmp_path: Path) -> None:
    with Server(tmp_path) as server, server.client() as client:
        assert client.post("/v1/track", EVENT | {"messageId": "a"}).status == 200
        assert [event["messageId"] for event in server.events()] == ["a"]
        assert server.segments() == []


def test_cat_shows_each_message_id_once_across_workers_and_segments(tmp_path: Path) -> None:
    server = Server(tmp_path, workers=2)
    for _ in range(2):
        with server:
            # Connections are spread over the workers.
            for number in range(12):
                with server.client() as client:
                    events = [EVENT | {"messageId": one} for one in ("a", "b", f"c{number}")]
                    assert client.post("/v1/bulk-track", events).status == 200
            done = run("cat", "--dedup", "data", cwd=tmp_path)
            ids = [json.loads(line)["messageId"] for line in done.stdout.splitlines()]
            assert sorted(ids) == sorted(["a", "b", *(f"c{number}" for number in range(12))])
    assert done.returncode == OK
    # Of the first start there are segments, of the second what is not sealed yet.
    assert done.stderr == "ingestd: repeats left out: 58\n"
    assert len(run("cat", "data", cwd=tmp_path).stdout.splitlines()) == 72


def test_cat_that_follows_leaves_out_repeats_of_what_it_has_shown(tmp_path: Path) -> None:
    with Server(tmp_path) as server, server.client() as client:
        client.post("/v1/bulk-track", [EVENT | {"messageId": one} for one in ("a", "a", "b")])
        command = [sys.executable, "-m", "ingestd", "cat", "-f", "--dedup", "data"]
        with subprocess.Popen(
            command, cwd=tmp_path, env=clean_environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as following:
            assert following.stdout is not None
            assert following.stderr is not None
            shown = [following.stdout.readline() for _ in range(2)]
            client.post("/v1/bulk-track", [EVENT | {"messageId": one} for one in ("b", "a", "c")])
            shown.append(following.stdout.readline())
            following.send_signal(signal.SIGINT)
            assert following.wait(30) == 128 + signal.SIGINT
            assert [json.loads(line)["messageId"] for line in shown] == ["a", "b", "c"]
            assert following.stderr.read() == b"ingestd: repeats left out: 3\n"


def test_cat_of_invalid_events_compares_them_with_each_other_only(tmp_path: Path) -> None:
    with Server(tmp_path, on_invalid="skip") as server, server.client() as client:
        wrong = EVENT | {"messageId": "a", "event": 7}
        nameless = {"event": 7}
        events = [EVENT | {"messageId": "a"}, wrong, wrong, nameless, nameless]
        assert client.post("/v1/bulk-track", events).status == 200
    done = run("cat", "--dedup", "--quarantine", "data", cwd=tmp_path)
    assert [json.loads(line).get("messageId") for line in done.stdout.splitlines()] == ["a", None, None]
    assert done.stderr == "ingestd: repeats left out: 1\n"


def test_cat_prints_what_is_good_and_fails_for_what_is_not(tmp_path: Path) -> None:
    with Server(tmp_path) as server, server.client() as client:
        for name in ("a", "b"):
            # Too large to be packed, and with nothing in common.
            event = EVENT | {"properties": {"text": Random(name).randbytes(20_000).hex()}, "messageId": name}
            assert client.post("/v1/track", event).status == 200
    [path] = server.segments()
    whole = path.read_bytes()
    second = whole.index(b"\x28\xb5\x2f\xfd", 4)
    path.write_bytes(whole[: second + 10])
    done = run("cat", "data", cwd=tmp_path)
    assert done.returncode == WRONG
    assert [json.loads(line)["messageId"] for line in done.stdout.splitlines()] == ["a"]
    assert "what follows is not shown" in done.stderr


def test_cat_ends_quietly_when_interrupted(stopped: Server) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "ingestd", "cat", "-f", "data"],
        cwd=stopped.folder,
        env=clean_environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as following:
        assert following.stdout is not None
        assert following.stderr is not None
        assert b'"a"' in following.stdout.readline()
        following.send_signal(signal.SIGINT)
        assert following.wait(30) == 128 + signal.SIGINT
        assert following.stderr.read() == b""


def test_verify_says_what_it_checked(stopped: Server) -> None:
    done = run("verify", "data", cwd=stopped.folder)
    assert (done.returncode, done.stderr) == (OK, "")
    assert done.stdout == "1 segments, 1 commits, 2 events, 0 problems\n"


def test_verify_says_the_same_to_machines(stopped: Server) -> None:
    [path] = stopped.segments()
    (stopped.data_dir / "segments" / "notes").write_text("mine")
    done = run("verify", "data", "--json", cwd=stopped.folder)
    assert (done.returncode, done.stderr) == (OK, "")
    found = json.loads(done.stdout)
    [source] = found["sources"]
    invalid = found.pop("invalid")
    assert set(invalid) == set(found) - {"ok"}
    assert not any(invalid.values())
    assert found == {
        "ok": True,
        "segments": 1,
        "sealed": 1,
        "open": 0,
        "commits": 1,
        "events": 2,
        "content_bytes": len(zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()),
        "stored_bytes": path.stat().st_size,
        "torn_files": 0,
        "quarantined_files": 0,
        "sources": [{"node": source["node"], "worker": 0, "segments": 1, "events": 2}],
        "problems": [],
        "notes": [{"path": "data/segments/notes", "note": "not a file of ingestd"}],
    }
    assert f"-{source['node']}-w0-" in path.name


def test_verify_names_problems_to_machines_and_fails(stopped: Server) -> None:
    [path] = stopped.segments()
    path.write_bytes(path.read_bytes()[:-1])
    done = run("verify", "data", "--json", cwd=stopped.folder)
    assert done.returncode == WRONG
    found = json.loads(done.stdout)
    assert (found["ok"], found["events"]) == (False, 2)
    [problem] = found["problems"]
    assert problem["path"] == str(path.relative_to(stopped.folder))
    assert problem["problem"].startswith("torn: the footer at byte ")


def test_verify_finds_one_changed_byte_anywhere_in_a_segment(stopped: Server) -> None:
    [path] = stopped.segments()
    whole = path.read_bytes()
    for position in range(0, len(whole), max(1, len(whole) // 8)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        done = run("verify", "data", cwd=stopped.folder)
        assert done.returncode == WRONG, f"byte {position} of {len(whole)}"
        assert str(path.name) in done.stdout


def test_verify_finds_a_quarantined_file(stopped: Server) -> None:
    (stopped.data_dir / "quarantine").mkdir()
    (stopped.data_dir / "quarantine" / "x.ndjson.zst.open").write_bytes(zstandard.compress(b"{}\n"))
    done = run("verify", "data", cwd=stopped.folder)
    assert done.returncode == WRONG
    assert "quarantined" in done.stdout
