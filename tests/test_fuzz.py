"""What fuzzing checks, without the fuzzer: on all seeds, and on what it has found."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import checks
from fuzz.checks import CHECKS, check_inflate, check_protocol, inflated, outcome, packed, unpacked
from fuzz.seeds import FOLDER, seeds
from ingestd.http.inflate import ISAL, ZLIB, Gunzip, Inflater
from ingestd.http.protocol import Connection
from tests.http.guard_cases import BODY
from tests.support.requests import bytewise, cut, head, post

PACKED = gzip.compress(BODY, mtime=0)


@pytest.mark.parametrize("target", CHECKS)
def test_all_seeds_pass_as_kept_and_as_the_script_makes_them(target: str) -> None:
    kept = [path.read_bytes() for path in sorted((FOLDER / target).iterdir())]
    made = [data for name, data in seeds().items() if name.startswith(f"{target}/")]
    assert len(kept) > 50
    assert len(made) > 50
    for data in {*kept, *made}:
        CHECKS[target](data)


@given(st.binary(max_size=60), st.lists(st.integers(0, 59), max_size=7))
def test_an_input_is_a_stream_and_its_cuts(stream: bytes, places: list[int]) -> None:
    wanted = [place % len(stream) for place in places] if stream else []
    assert unpacked(packed(stream, places)) == (stream, wanted)


@given(st.binary(max_size=40))
def test_any_bytes_are_an_input(data: bytes) -> None:
    stream, places = unpacked(data)
    assert len(places) <= 7
    assert data.endswith(stream)


# -- the checks themselves ------------------------------------------------------------------------


def test_the_check_of_gzip_finds_an_inflater_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def deaf(**_options: Any) -> Any:
        return zlib.decompressobj(wbits=-15)

    monkeypatch.setattr(checks, "ISAL", Inflater(deaf, zlib.error))
    with pytest.raises(AssertionError):
        check_inflate(packed(PACKED))


def _forgetful(self: Connection, data: bytes) -> None:
    """Looks at one piece only."""
    if not self.jobs.waiting:
        _data_received(self, data[:1] if len(data) > 40 else data)


def _leaking(self: Connection, data: bytes) -> None:
    """Takes of the budget and never gives back."""
    self._hub.budget.take(1)
    _data_received(self, data)


def _failing(self: Connection, data: bytes) -> None:
    """Has a bug."""
    raise ZeroDivisionError(self, data)


_data_received = Connection.data_received


@pytest.mark.parametrize(
    ("broken", "error"),
    [(_forgetful, AssertionError), (_leaking, AssertionError), (_failing, ZeroDivisionError)],
)
def test_the_check_of_the_protocol_finds_a_connection_that_is_broken(
    broken: Callable[[Connection, bytes], None], error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_protocol(packed(post(BODY), [50, 120]))
    monkeypatch.setattr(Connection, "data_received", broken)
    with pytest.raises(error):
        check_protocol(packed(post(BODY), [50, 120]))


# -- findings -------------------------------------------------------------------------------------


def test_the_refusal_of_a_head_has_no_body_however_it_is_cut() -> None:
    stream = head("HEAD /v1/tra\xe9ck HTTP/1.1")
    assert outcome([stream]) == outcome(bytewise(stream))


def test_the_refusal_of_a_post_has_its_body_although_a_head_follows() -> None:
    refused = head("POST /v1/track HTTP/1.1", [f"Content-Length: {len(BODY)}"], auth=False) + BODY
    stream = refused + head("HEAD /healthz HTTP/1.1")
    assert outcome([stream]) == outcome(bytewise(stream))
    assert outcome([stream]).answers[0][1] != b""


def with_inflater(inflater: Inflater) -> Callable[[int], Gunzip]:
    """How a Gunzip is made that uses this one."""
    return lambda limit_bytes: Gunzip(limit_bytes, inflater)


each_inflater = pytest.mark.parametrize(
    "inflater",
    [ZLIB, ISAL],
    ids=["zlib", "isal"],
)


@each_inflater
@pytest.mark.parametrize("flags", [0x20, 0x40, 0x80])
def test_reserved_flags_in_the_header_of_a_member_are_refused(inflater: Inflater, flags: int) -> None:
    """RFC 1952 §2.3.1.2: a reserved bit may tell of a field that would be taken for data."""
    assert isinstance(inflated([PACKED[:3] + bytes([flags]) + PACKED[4:]], with_inflater(inflater)), str)


def with_fields(flags: int) -> bytes:
    """PACKED with these optional fields in its header (RFC 1952 §2.3)."""
    fields = {4: b"\2\0xy", 8: b"events.json\0", 16: b"made by a test\0"}
    header = PACKED[:3] + bytes([flags]) + PACKED[4:10]
    header += b"".join(field for flag, field in fields.items() if flags & flag)
    if flags & 2:
        header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")
    return header + PACKED[10:]


@each_inflater
@pytest.mark.parametrize("flags", [2, 3, 10, 12, 20, 24, 28, 30])
def test_a_header_of_several_fields_is_read_wherever_it_is_cut(inflater: Inflater, flags: int) -> None:
    packed_body = with_fields(flags)
    assert inflated([packed_body], with_inflater(inflater)) == BODY
    for place in range(1, len(packed_body) - len(PACKED) + 10):
        assert inflated(cut(packed_body, [place]), with_inflater(inflater)) == BODY, place


@pytest.mark.parametrize("flags", [0, 1, 4, 5, 8, 9, 16, 17])
@pytest.mark.parametrize("inflater", [made for made in (ZLIB, ISAL) if made])
def test_a_header_of_one_field_is_read_wherever_it_is_cut(inflater: Inflater, flags: int) -> None:
    packed_body = with_fields(flags)
    for place in range(1, len(packed_body) - len(PACKED) + 10):
        assert inflated(cut(packed_body, [place]), with_inflater(inflater)) == BODY, place
