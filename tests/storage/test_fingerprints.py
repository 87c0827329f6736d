"""Fingerprints: of one id always the same, whatever stands beside it, from ids and from lines."""

from __future__ import annotations

import json
import uuid
from zlib import crc32

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.storage.fingerprints import message_ids, of_id, of_ids, of_lines
from ingestd.uuid7 import uuid7s

UUID4 = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"
UUID7 = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
UUIDS = st.uuids(version=4).map(str)
ALIKE = st.text("47-ab\n", min_size=34, max_size=38)
"""Of about the size of a UUID, with digits where the version stands, and line breaks."""
ROWS = st.integers(36, 40).flatmap(
    lambda size: st.lists(st.text("47a\n", min_size=size, max_size=size), min_size=8, max_size=20)
)
IDS = st.one_of(
    UUIDS, UUIDS.map(str.upper), ALIKE, st.text(), st.just(UUID7), UUIDS.map("node-next-1698-".__add__)
)


@given(
    st.one_of(st.lists(UUIDS, max_size=40), st.lists(ALIKE, max_size=40), ROWS, st.lists(IDS, max_size=40))
)
def test_an_id_has_the_same_fingerprint_whatever_stands_beside_it(ids: list[str]) -> None:
    assert of_ids(ids) == b"".join(of_id(message_id) for message_id in ids)


def test_so_it_is_for_more_ids_than_are_taken_at_once() -> None:
    ids = uuid7s(4001, 1)
    assert of_ids(ids) == b"".join(map(of_id, ids)) == bytes.fromhex("".join(one[-6:] for one in ids))


@pytest.mark.parametrize(
    ("message_id", "expected"),
    [
        (UUID4, "cca427"),
        (UUID4.upper(), "cca427"),
        (UUID7, "07398f"),
        (f"ajs-next-1698241-{UUID4}", "cca427"),
        ("x" * 14 + "4" + "x" * 15 + "zxabcd", "a8abcd"),
    ],
)
def test_an_id_that_ends_as_a_random_uuid_has_its_last_digits(message_id: str, expected: str) -> None:
    assert of_id(message_id) == bytes.fromhex(expected)
    assert of_ids([message_id] * 9) == bytes.fromhex(expected) * 9


@pytest.mark.parametrize(
    "message_id",
    [
        "",
        "1",
        "ü" * 36,
        "€" * 12,
        UUID4[1:],
        str(uuid.UUID(int=1, version=1)),
        str(uuid.UUID(int=1, version=5)),
    ],
)
def test_any_other_id_has_a_part_of_its_checksum(message_id: str) -> None:
    expected = (crc32(message_id.encode()) & 0xFFFFFF).to_bytes(3, "little")
    assert of_id(message_id) == expected
    assert of_ids([message_id] * 9) == expected * 9


@given(st.lists(IDS))
def test_lines_have_the_fingerprints_of_their_ids(ids: list[str]) -> None:
    events = [{"properties": {"messageId": "not this"}, "messageId": one, "source": "s"} for one in ids]
    escaped = "".join(json.dumps(event) + "\n" for event in events).encode()
    for lines in (escaped, msgspec.json.Encoder().encode_lines(events)):
        assert message_ids(lines) == ids
        assert of_lines(lines) == of_ids(ids)


@pytest.mark.parametrize(
    "line", [b"", b"x", b"7", b'"text"', b"{}", b'{"messageId":7}', b"[" * 2000, b"\xff{"]
)
def test_what_is_no_event_has_the_id_of_none(line: bytes) -> None:
    assert message_ids(line + b'\n{"messageId":"a"}\n') == ["", "a"]
