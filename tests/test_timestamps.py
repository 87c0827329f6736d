"""The `timestamp` of an event: what RFC 3339 allows is kept as it is spelled, all else is 400."""

from __future__ import annotations

import json

import pytest

from tests.support.requests import TIMESTAMP
from tests.support.wire import send


def timed(timestamp: str) -> bytes:
    """An event of this time."""
    return b'{"event":"e","properties":{},"timestamp":"%s"}' % timestamp.encode()


def words(table: str) -> list[str]:
    """What stands in a table, in rows and columns."""
    return table.split()


VALID = words("""
2025-10-29T22:00:00Z          2025-10-29T22:00:00.778Z     2025-10-29T22:00:00.1Z
2025-10-29T22:00:00.123456789012345678901234567890Z        2025-10-29t22:00:00z
2025-10-29T22:00:00+02:00     2025-10-29T22:00:00-08:30    2025-10-29T22:00:00-00:00
2025-10-29T22:00:00+23:59     2025-10-29T22:00:00-23:59    2024-02-29T00:00:00Z
2000-02-29T00:00:00Z          1970-01-01T00:00:00Z         1900-01-01T00:00:00Z
0001-01-01T00:00:00+23:59     9999-12-31T23:59:59-23:59    9999-12-31T23:59:59.999999999Z
0000-01-01T00:00:00Z          0000-02-29T12:00:00.5+01:00  0000-12-31T23:59:60Z
2016-12-31T23:59:60Z          2016-12-31t23:59:60z         2016-12-31T23:59:60.999Z
2017-01-01T01:59:60+02:00     2016-12-31T15:59:60-08:00    2017-01-01T05:29:60+05:30
9999-12-31T23:59:60Z          9999-12-31T22:59:60-01:00    0001-01-01T00:59:60+01:00
""")

INVALID = [
    *words("""
2025-10-29T22:00:00           2025-10-29                   2025-10-29T22:00Z
2025-10-29T22Z                2025-10-29T22:00:00.Z        2025-10-29T22:00:00,5Z
2025-10-29T24:00:00Z          2025-10-29T22:60:00Z         2025-10-29T22:00:60Z
2025-10-29T23:59:61Z          2025-10-29T23:59:60+02:00    2025-10-29T22:59:60Z
2025-10-29T23:59:60           2025-10-29T22:00:00+24:00    2025-10-29T22:00:00+12:60
2025-10-29T22:00:00+02        2025-10-29T22:00:00+2:00     2025-10-29T22:00:00+02:00Z
2025-10-29T22:00:00Z+02:00    2025-10-29T22:00:00UTC       2025-10-29_22:00:00Z
2023-02-29T00:00:00Z          1900-02-29T00:00:00Z         2025-02-29T23:59:60Z
2025-13-01T00:00:00Z          2025-00-01T00:00:00Z         2025-01-00T00:00:00Z
2025-04-31T00:00:00Z          25-01-01T00:00:00Z           +2025-01-01T00:00:00Z
-2025-01-01T00:00:00Z         12025-01-01T00:00:00Z        20251029T220000Z
2025-W44-3T22:00:00Z          2025-302T22:00:00Z           2025-1-2T3:4:5Z
1761775200                    now                          0000-13-01T00:00:00Z
２０２５-10-29T22:00:00Z      2025-10-29T22:00:00−02:00    2025-10-29T22:00:٠٠Z
"""),
    "",
    " 2025-10-29T22:00:00Z",
    "2025-10-29T22:00:00Z ",
    "2025-10-29T22:00:00 Z",
    "2025-10-29  22:00:00Z",
    "2016-12-31T23:59:60Z ",
    "2016-12-31T23:59:60Z\\n",
    "2025-10-29T22:00:00Z\\u0000",
    "Wed, 29 Oct 2025 22:00:00 GMT",
]


@pytest.mark.parametrize("timestamp", VALID)
def test_a_valid_time_is_kept_as_it_is_spelled(timestamp: str) -> None:
    assert b'"timestamp":"%s"' % timestamp.encode() in send(timed(timestamp)).line
    bulk = send(b"[%s,%s]" % (timed(timestamp), timed(TIMESTAMP)), "/v1/bulk-track")
    assert json.loads(bulk.lines[0])["timestamp"] == timestamp


@pytest.mark.parametrize("timestamp", INVALID)
def test_an_invalid_time_is_400_with_its_place(timestamp: str) -> None:
    single = send(timed(timestamp)).answer
    assert (single.status, single.code) == (400, "invalid_event")
    assert single.detail.startswith("$.timestamp: expected an RFC 3339 date-time")
    for before in (timed(TIMESTAMP), timed("2016-12-31T23:59:60Z")):
        bulk = send(b"[%s,%s]" % (before, timed(timestamp)), "/v1/bulk-track").answer
        assert (bulk.status, bulk.code) == (400, "invalid_event")
        assert bulk.detail.startswith("$[1].timestamp: expected an RFC 3339 date-time")


def test_a_time_with_a_space_is_taken_as_rfc_3339_allows() -> None:
    assert json.loads(send(timed("2025-10-29 22:00:00Z")).line)["timestamp"] == "2025-10-29 22:00:00Z"


def test_a_time_that_is_spelled_with_escapes_is_read_for_what_it_says() -> None:
    assert send(timed("2025-10-29T22:00:00\\u005a")).answer.status == 200
    assert send(timed("2025-10-29T22:00:00\\u0041")).answer.status == 400
    assert send(timed("2016-12-31T23:59:6\\u0030Z")).answer.status == 200


def test_a_leap_second_does_not_excuse_another_fault() -> None:
    leap = timed("2016-12-31T23:59:60Z")
    for fault in (b'{"event":1}', b"{}", leap.replace(b"{}", b"[]"), leap[:-1]):
        assert send(b"[%s,%s]" % (leap, fault), "/v1/bulk-track").answer.status == 400
