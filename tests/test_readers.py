"""Whatever is accepted makes lines that jq, DuckDB, Polars and ClickHouse read, from a zstd file.

Each reader is told the columns that the contract names, `properties` as JSON or text, and must
find the values that were sent. One reader's refusal of one line would cost its whole file.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import chdb
import duckdb
import polars
import pytest
import zstandard

from tests.support.requests import TIMESTAMP
from tests.support.tools import tool
from tests.support.wire import SOURCE, send

Row = tuple[str, str, str, Any]
"""event, timestamp, source, properties."""


def odd(properties: str = "{}", more: str = "", event: str = "e", timestamp: str = TIMESTAMP) -> str:
    """An event as text."""
    return f'{{"event":"{event}","properties":{properties},"timestamp":"{timestamp}"{more}}}'


ODD: dict[str, str] = {
    "plain": odd('{"a":1,"b":"x","c":[1,2],"d":{"e":null}}'),
    "empty properties": odd(),
    "an integer of 23 digits": odd('{"a":12345678901234567890123}'),
    "an integer of 38 digits": odd(f'{{"a":{"9" * 38},"b":-{"9" * 38}}}'),
    "an integer beyond 53 bits": odd('{"a":9007199254740993}'),
    "minus zero": odd('{"a":-0,"b":-0.0}'),
    "spelled numbers": odd('{"a":1.10,"b":1e5,"c":1E+2,"d":0.1e-7}'),
    "the largest double": odd('{"a":1.7976931348623157e308}'),
    "too small for a double": odd('{"a":1e-999,"b":5e-324}'),
    "400 digits after the point": odd(f'{{"a":0.{"1" * 400}}}'),
    "60 digits before the point": odd(f'{{"a":{"9" * 60}.5}}'),
    "mixed types in a list": odd('{"a":[1,"x",{"b":2},null,[1]]}'),
    "97 levels of lists": odd(f'{{"a":{"[" * 97}{"]" * 97}}}'),
    "97 levels of objects": odd('{"a":' * 97 + "1" + "}" * 97),
    "a name twice": odd('{"a":1,"b":{"c":1,"c":2},"a":3}', more=',"x":{"y":1,"\\u0079":2}'),
    "a named field twice": odd(more=',"event":"e","source":"mine","receivedAt":1,"source":2'),
    "names that differ in case": odd('{"a":1,"A":2,"b":{"c":1,"C":2}}', more=',"Event":3,"EVENT":4'),
    "an empty name": odd('{"":1}', more=',"":2'),
    "names with dots and quotes": odd('{"a.b":1,"a":{"b":2},"c\\"d\'e`f":3,"$g":4}'),
    "a name with NUL": odd('{"a\\u0000b":1}'),
    "names that look alike": odd('{"\u00e9":1,"e\u0301":2}'),
    "a lone surrogate": odd('{"a":"\\ud83d","\\udc00":1}', event="cut \\ud83d"),
    "a pair of surrogates": odd('{"a":"\\ud83d\\ude00","b":"\U0001f600"}'),
    "control characters as escapes": odd('{"a":"\\u0001\\b\\f\\n\\r\\t"}', event="a\\nb"),
    "NUL as an escape": odd('{"a":"x\\u0000y"}'),
    "line separators": odd('{"a":"\u2028\u2029\x85\x7f\ufeff"}'),
    "non-characters": odd('{"a":"\ufffe\uffff\U0010ffff"}'),
    "slashes": odd('{"a":"\\/\\\\\\""}'),
    "a string of 100,000": odd(f'{{"a":"{"x" * 100_000}"}}'),
    "white space everywhere": odd(' \t{ "a" :\t[ 1 ,\n\n2 ]\r\n} '),
    "a leap second": odd(timestamp="2016-12-31T23:59:60Z"),
    "the year 0000": odd(timestamp="0000-01-01T00:00:00Z"),
    "30 digits of a second": odd(timestamp="2025-10-29T22:00:00.123456789012345678901234567890Z"),
    "a source of another type": odd(more=',"source":{"a":[1]},"receivedAt":false'),
}


def number(text: str) -> float:
    """Readers may hold any number as a double."""
    return float(text)


def parsed(text: str | bytes) -> Any:
    """JSON, its integers as doubles; of a name that stands twice the last value."""
    return json.loads(text, parse_int=number)


def expected(sent: str) -> Row:
    """The row that the contract promises for an event."""
    mended = (
        sent.replace("\\ud83d\\ude00", "\U0001f600").replace("\\ud83d", "\ufffd").replace("\\udc00", "\ufffd")
    )
    value = parsed(mended)
    return value["event"], value["timestamp"], SOURCE, value["properties"]


def packed(directory: Path, sent: list[str]) -> Path:
    """A zstd file of the lines that became of these events, one frame for each."""
    path = directory / "events.ndjson.zst"
    lines = [send(one.encode()).line + b"\n" for one in sent]
    path.write_bytes(b"".join(zstandard.compress(line) for line in lines))
    return path


# -- the readers ------------------------------------------------------------------------------


def read_with_jq(path: Path) -> list[Row]:
    with path.open("rb") as f:
        lines = zstandard.ZstdDecompressor().stream_reader(f, read_across_frames=True).read()
    program = "[.event, .timestamp, .source, .properties]"
    done = subprocess.run([tool("jq"), "-c", program], input=lines, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return [tuple(parsed(line)) for line in done.stdout.splitlines()]


def read_with_duckdb(path: Path) -> list[Row]:
    columns = "{event: 'VARCHAR', timestamp: 'VARCHAR', source: 'VARCHAR', properties: 'JSON'}"
    with duckdb.connect() as connection:
        rows = connection.execute(
            f"SELECT * FROM read_json(?, format='newline_delimited', columns={columns})", [str(path)]
        ).fetchall()
    return [(event, timestamp, source, parsed(properties)) for event, timestamp, source, properties in rows]


def read_with_polars(path: Path) -> list[Row]:
    # Its text form of an object leaves the escapes out, so `properties` are compared as columns, below.
    names = ("event", "timestamp", "source", "properties")
    rows = polars.read_ndjson(path, schema=dict.fromkeys(names, polars.String)).rows()
    return [(event, timestamp, source, ANY) for event, timestamp, source, _ in rows]


def ask_clickhouse(query: str, form: str) -> bytes:
    """The answer of ClickHouse in this output format."""
    untyped: Any = chdb.query
    return bytes(untyped(query, form).bytes())


def read_with_clickhouse(path: Path) -> list[Row]:
    columns = "event String, timestamp String, source String, properties String"
    # By default an `Event` that no column is named after falls into the column `event`, as its repetition.
    exact = "SETTINGS input_format_column_name_matching_mode = 'match_case'"
    query = f"SELECT * FROM file('{path}', 'JSONEachRow', '{columns}') {exact}"
    rows = [json.loads(line) for line in ask_clickhouse(query, "JSONCompactEachRow").splitlines()]
    return [(event, timestamp, source, parsed(properties)) for event, timestamp, source, properties in rows]


READERS: dict[str, Callable[[Path], list[Row]]] = {
    "jq": read_with_jq,
    "DuckDB": read_with_duckdb,
    "Polars": read_with_polars,
    "ClickHouse": read_with_clickhouse,
}
each_reader = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


@each_reader
@pytest.mark.parametrize("name", ODD)
def test_an_odd_event_is_read_as_it_was_sent(
    name: str, read: Callable[[Path], list[Row]], tmp_path: Path
) -> None:
    assert read(packed(tmp_path, [ODD[name]])) == [expected(ODD[name])]


@each_reader
def test_a_file_of_all_odd_events_is_read_whole(read: Callable[[Path], list[Row]], tmp_path: Path) -> None:
    assert read(packed(tmp_path, list(ODD.values()))) == [expected(sent) for sent in ODD.values()]


@each_reader
@pytest.mark.parametrize("integer", [str(2**127 - 1), str(2**127), "-" + "9" * 40, str(2**128), "9" * 308])
def test_an_integer_beyond_128_bits_is_refused_or_read_by_all(
    integer: str, read: Callable[[Path], list[Row]], tmp_path: Path
) -> None:
    sent = odd(f'{{"a":{integer}}}')
    if send(sent.encode()).answer.status != 400:
        assert read(packed(tmp_path, [sent])) == [expected(sent)]


@pytest.mark.parametrize("name", [name for name in ODD if "mixed" not in name])
def test_polars_reads_the_properties_of_an_odd_event_as_columns(name: str, tmp_path: Path) -> None:
    (row,) = polars.read_ndjson(packed(tmp_path, [ODD[name]])).to_dicts()
    assert parsed(json.dumps(row["properties"])) == expected(ODD[name])[3]


def test_readers_find_the_columns_of_usual_events_by_themselves(tmp_path: Path) -> None:
    usual = [odd('{"plan":"basic","seats":3}', f',"userId":"u-{i}"', timestamp=TIMESTAMP) for i in range(100)]
    path = packed(tmp_path, usual)
    with duckdb.connect() as connection:
        relation = connection.execute(f"SELECT userId, properties.seats, source FROM '{path}'")
        assert relation.fetchall() == [(f"u-{i}", 3, SOURCE) for i in range(100)]
    frame = polars.read_ndjson(path)
    assert frame["userId"].to_list() == [f"u-{i}" for i in range(100)]
    assert frame["properties"].struct.field("seats").sum() == 300
    query = f"SELECT count(), sum(properties.seats) FROM file('{path}', 'JSONEachRow')"
    assert ask_clickhouse(query, "CSV").strip() == b"100,300"
