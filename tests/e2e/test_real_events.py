"""270 real events, sent in every form and read back by every reader, compared value by value."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import duckdb
import polars
import pytest

from tests.support.server import Client, Server, run
from tests.support.tools import clickhouse, tool

_FILE = Path(__file__).parents[3] / "shared" / "data" / "webhook-events.ndjson"
_GLOB = "segments/**/*.ndjson.zst"
_FIELDS = ("event", "timestamp", "properties", "messageId", "receivedAt", "source")

Sender = Callable[[Client, list[bytes], Literal["plain", "gzip", "chunked"]], list[str]]
Reader = Callable[[Path], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def sent() -> list[bytes]:
    """The lines of the file, each an event."""
    if not _FILE.exists():
        pytest.skip(f"{_FILE.name} is not beside the repository, in ../shared/data")
    lines = _FILE.read_bytes().splitlines()
    assert len(lines) == 270
    return lines


# -- senders ---------------------------------------------------------------------------------


def _as_one(client: Client, lines: list[bytes], form: Literal["plain", "gzip", "chunked"]) -> list[str]:
    answer = client.post("/v1/bulk-track", b"[" + b",".join(lines) + b"]", form=form)
    assert answer.status == 200, answer.body
    ids: list[str] = answer.json["messageIds"]
    return ids


def _one_by_one(client: Client, lines: list[bytes], form: Literal["plain", "gzip", "chunked"]) -> list[str]:
    ids = []
    for line in lines:
        answer = client.post("/v1/track", line, form=form)
        assert answer.status == 200, answer.body
        ids.append(answer.json["messageId"])
    return ids


# -- readers ---------------------------------------------------------------------------------


def _by_zstd(data_dir: Path) -> list[dict[str, Any]]:
    lines = b""
    for path in sorted(data_dir.glob(_GLOB), key=lambda path: path.name):
        lines += subprocess.run([tool("zstd"), "-dc", path], capture_output=True, check=True).stdout
    return [json.loads(line) for line in lines.splitlines()]


def _by_cat(data_dir: Path) -> list[dict[str, Any]]:
    done = run("cat", data_dir, cwd=data_dir)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _by_duckdb(data_dir: Path) -> list[dict[str, Any]]:
    columns = {name: "JSON" if name == "properties" else "VARCHAR" for name in _FIELDS}
    query = f"select {', '.join(_FIELDS)} from read_json('{data_dir}/{_GLOB}', columns={columns})"
    with duckdb.connect() as connection:
        rows = connection.sql(query).fetchall()
    return [_row(row) for row in rows]


def _by_clickhouse(data_dir: Path) -> list[dict[str, Any]]:
    structure = ", ".join(f"{name} String" for name in _FIELDS)
    query = f"select {', '.join(_FIELDS)} from file('{data_dir}/{_GLOB}', JSONEachRow, '{structure}')"
    answer = clickhouse(query, "JSONCompactEachRow", data_dir)
    return [_row(json.loads(line)) for line in answer.splitlines()]


def _by_polars(data_dir: Path) -> list[dict[str, Any]]:
    return polars.read_ndjson(f"{data_dir}/{_GLOB}", infer_schema_length=None).to_dicts()


def _row(values: Any) -> dict[str, Any]:
    event = dict(zip(_FIELDS, values, strict=True))
    return event | {"properties": json.loads(event["properties"])}


# -- the comparison --------------------------------------------------------------------------


def _same(expected: Any, read: Any) -> bool:
    """Equal, but for what a table cannot keep apart.

    A table gives a column one type over all events: a member that an event does not have is read
    as null, and where one event has text and another has a number or an object, all are text.
    """
    if isinstance(expected, dict) and isinstance(read, dict):
        return all(_same(expected.get(name), read.get(name)) for name in expected.keys() | read.keys())
    if isinstance(expected, list) and isinstance(read, list):
        return len(expected) == len(read) and all(map(_same, expected, read))
    if isinstance(expected, dict | int) and isinstance(read, str):
        with suppress(ValueError):
            return _same(expected, json.loads(read))
    return bool(expected == read) or (expected == {} and read is None)


def _changed(value: Any) -> Iterator[Any]:
    """Copies of `value`, each with another leaf changed."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from (value | {name: changed} for changed in _changed(inner))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from ([*value[:i], changed, *value[i + 1 :]] for changed in _changed(inner))
    elif value is not None:
        yield "something else"


def _assert_stamped(event: dict[str, Any], started: datetime) -> None:
    received = datetime.fromisoformat(event["receivedAt"])
    assert event["receivedAt"].endswith("Z")
    assert started.replace(microsecond=0) <= received <= datetime.now(UTC)
    assert event["source"] == "default"


@pytest.mark.parametrize("form", ["plain", "gzip", "chunked"])
@pytest.mark.parametrize("send", [_as_one, _one_by_one])
def test_what_was_sent_is_read_back_equal(
    tmp_path: Path, sent: list[bytes], send: Sender, form: Literal["plain", "gzip", "chunked"]
) -> None:
    started = datetime.now(UTC)
    with Server(tmp_path) as server, server.client() as client:
        ids = send(client, sent, form)
    expected = [
        json.loads(line) | {"messageId": message_id} for line, message_id in zip(sent, ids, strict=True)
    ]
    without_id = [b'"messageId"' not in line for line in sent]
    assert sum(without_id) == 54
    assert len(set(ids)) == 270
    for reader in (_by_zstd, _by_cat, _by_duckdb, _by_clickhouse):
        events = reader(server.data_dir)
        assert len(events) == 270, reader.__name__
        for event, wanted in zip(events, expected, strict=True):
            _assert_stamped(event, started)
            stamps = {"receivedAt": event["receivedAt"], "source": "default"}
            assert event == wanted | stamps, reader.__name__
    events = _by_polars(server.data_dir)
    for event, wanted in zip(events, expected, strict=True):
        _assert_stamped(event, started)
        del event["receivedAt"], event["source"]
        assert _same(wanted, event), wanted["messageId"]


def test_lines_are_the_bytes_that_were_sent_with_the_stamps_added(tmp_path: Path, sent: list[bytes]) -> None:
    """Number spelling, escapes and the order of members are the client's."""
    with Server(tmp_path) as server, server.client() as client:
        _as_one(client, sent, "plain")
    lines = run("cat", server.data_dir, cwd=tmp_path).stdout.encode().splitlines()
    for line, stored in zip(sent, lines, strict=True):
        properties = line[line.index(b'"properties":') :]
        properties = properties.partition(b',"messageId"')[0].removesuffix(b"}")
        assert properties in stored


def test_the_comparison_notices_one_changed_value(sent: list[bytes]) -> None:
    for line in sent[::30]:
        event = json.loads(line)
        assert _same(event, event)
        for changed in islice(_changed(event), 0, None, 10):
            assert not _same(event, changed)
