"""Partial acceptance by the real process: what is set aside outlives kills and is shown by the commands."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.scrape import scrape
from tests.support.server import EVENT, Client, Server, run, wait_until

BAD = {"messageId": "bad", "event": "no timestamp", "properties": {}}


def post(client: Client, number: int, target: str = "/v1/bulk-track") -> Any:
    events = [EVENT | {"messageId": f"good {number}"}, BAD | {"messageId": f"bad {number}"}]
    answer = client.post(target, events)
    assert answer.status == 200
    assert answer.json["messageIds"] == [f"good {number}"]
    [invalid] = answer.json["invalid"]
    assert (invalid["index"], invalid["code"]) == (1, "invalid_event")
    return answer.json


def set_aside(server: Server) -> list[Any]:
    done = run("cat", "--quarantine", "data", cwd=server.folder)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_invalid_events_are_kept_as_sent_and_survive_a_kill(tmp_path: Path) -> None:
    server = Server(tmp_path, workers=1, on_invalid="skip")
    with server:
        with server.client() as client:
            for number in range(3):
                told = post(client, number)
            [last] = [line for line in set_aside(server) if line["messageId"] == "bad 2"]
            assert json.loads(last["event"]) == BAD | {"messageId": "bad 2"}
            assert last["source"] == "default"
            assert {name: last[name] for name in ("index", "code", "detail")} == told["invalid"][0]
            server.kill()
        server.start()
        with server.client() as client:
            post(client, 3, "/v1/bulk-track?on_invalid=skip")
            answer = client.post("/v1/bulk-track?on_invalid=reject", [EVENT, BAD])
            assert answer.status == 400
            server.send(signal.SIGUSR1)
            sealed = server.data_dir / "invalid" / "segments"
            wait_until(lambda: len(list(sealed.rglob("*.ndjson.zst"))) == 2, "both are sealed")
    assert [line["messageId"] for line in set_aside(server)] == [f"bad {n}" for n in range(4)]
    assert [event["messageId"] for event in server.events()] == [f"good {n}" for n in range(4)]
    done = run("find", "--message-id", "bad 1", "data", cwd=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["detail"] == "$[1]: object missing required field `timestamp`"
    done = run("verify", "data", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "set aside as invalid: 2 segments, 4 commits, 4 events, 0 problems"


def test_damage_of_what_was_set_aside_is_found(tmp_path: Path) -> None:
    with Server(tmp_path, on_invalid="skip", workers=1) as server, server.client() as client:
        post(client, 0)
    [path] = (server.data_dir / "invalid" / "segments").rglob("*.ndjson.zst")
    path.write_bytes(path.read_bytes()[:-1])
    done = run("verify", "--json", "data", cwd=tmp_path)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["ok"], found["problems"], len(found["invalid"]["problems"])) == (False, [], 1)


def test_without_being_asked_to_nothing_is_set_aside(stopped: Server) -> None:
    assert set_aside(stopped) == []
    assert run("cat", "--quarantine", "nowhere", cwd=stopped.folder).returncode == 2


@pytest.mark.parametrize("workers", [2])
def test_what_is_set_aside_is_counted(tmp_path: Path, workers: int) -> None:
    with Server(tmp_path, on_invalid="skip", workers=workers, admin="127.0.0.1:0") as server:
        with server.client() as client:
            for number in range(5):
                post(client, number)
        wait_until(lambda: scrape(server)["events_quarantined_total"] == 5, "they are counted")
        assert scrape(server)["events_stored_total"] == 5
