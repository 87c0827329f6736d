"""The judge of test_kill.py is judged: each kind of fault, made by hand, is found, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ingestd.storage.disk import Disk
from ingestd.storage.segment import open_directory
from tests.e2e.kill_ledger import Counts, Ledger, Shelf, Stream
from tests.storage.samples import Sample

_NAME = "20260101T000000.000Z-host-w0-%06d"


def _event(connection: int, number: int) -> bytes:
    return b'{"properties":{"c":%d,"n":%d},"event":"x"}' % (connection, number)


def _line(connection: int, number: int) -> bytes:
    return _event(connection, number)[:-1] + b',"receivedAt":"2026-01-01T00:00:00.000Z","source":"load"}'


def _sent() -> tuple[Ledger, Stream]:
    """Requests of 1, 3 and 1 events, of which the first two are acknowledged, and one that is refused."""
    ledger = Ledger("load", Counts())
    stream = ledger.connect()
    for first, end, is_valid in ((0, 1, True), (1, 4, True), (4, 5, True), (5, 6, False), (6, 7, True)):
        stream.sent([_event(1, number) for number in range(first, end)], is_valid=is_valid)
    stream.acknowledged = 4
    return ledger, stream


def _lines(*numbers: int) -> list[bytes]:
    return [_line(1, number) for number in numbers]


@pytest.mark.parametrize("stored", [_lines(0, 1, 2, 3), _lines(0, 1, 2, 3, 4)])
def test_what_is_acknowledged_must_be_stored_and_what_is_sent_may_be(stored: list[bytes]) -> None:
    ledger, _ = _sent()
    for line in stored:
        ledger.read(line)
    assert ledger.settle() == []
    counts = ledger.counts
    assert (counts.events_acknowledged, counts.events_unanswered) == (4, 1)
    assert (counts.events_stored, counts.lost, counts.invented) == (len(stored), 0, 0)


@pytest.mark.parametrize(
    ("stored", "findings", "lost", "invented"),
    [
        ([], ["lost"], 4, 0),
        (_lines(0), ["lost"], 3, 0),
        (_lines(0, 1, 2), ["lost"], 1, 0),
        (_lines(0, 2, 3), ["lost", "gap"], 1, 0),
        (_lines(0, 1, 2, 3, 3), ["repeated"], 0, 0),
        (_lines(0, 1, 3, 2), ["disordered"], 0, 0),
        (_lines(0, 1, 2, 3, 5), ["invented"], 0, 1),
        (_lines(0, 1, 2, 3, 6), ["invented"], 0, 1),
        (_lines(0, 1, 2, 3, -1), ["invented"], 0, 1),
        ([*_lines(0, 1, 2, 3), _line(2, 0)], ["invented"], 0, 1),
        ([*_lines(0, 1, 2, 3), _line(1, 4)[:-5]], ["invented"], 0, 1),
        ([*_lines(0, 1, 2, 3), _line(1, 4).replace(b'"x"', b'"y"')], ["invented"], 0, 1),
        ([*_lines(0, 1, 2, 3), _line(1, 4).replace(b"load", b"other")], ["invented"], 0, 1),
        ([*_lines(0, 1, 2, 3), _event(1, 4)], ["invented"], 0, 1),
    ],
)
def test_each_fault_is_found(stored: list[bytes], findings: list[str], lost: int, invented: int) -> None:
    ledger, _ = _sent()
    for line in stored:
        ledger.read(line)
    assert [finding.partition(":")[0] for finding in ledger.settle()] == findings
    assert (ledger.counts.lost, ledger.counts.invented) == (lost, invented)


def test_half_a_request_is_found() -> None:
    ledger, stream = _sent()
    stream.acknowledged = 0
    for line in _lines(0, 1, 2):
        ledger.read(line)
    [finding] = ledger.settle()
    assert finding.startswith("split: ")


def test_an_event_that_comes_back_after_a_later_kill_is_found() -> None:
    ledger, _ = _sent()
    for line in _lines(0, 1, 2, 3):
        ledger.read(line)
    assert ledger.settle() == []
    ledger.read(_line(1, 4))
    assert len(ledger.settle()) == 1


def _segment(data_dir: Path, sequence: int, *numbers: int) -> Sample:
    Disk().make_directory(open_directory(data_dir))
    segment = Sample(Disk(), data_dir, _NAME % sequence, 1)
    segment.commit(b"".join(line + b"\n" for line in _lines(*numbers)), [""] * len(numbers), 0, 0, sync=False)
    return segment


def test_segments_are_read_once_in_order_and_known_again_when_sealed(tmp_path: Path) -> None:
    ledger, _ = _sent()
    shelf = Shelf(tmp_path)
    first, second = _segment(tmp_path, 1, 0, 1), _segment(tmp_path, 2, 2, 3)
    first.seal()
    assert shelf.read(ledger) == []
    assert ledger.settle() == []
    second.seal()
    for everything in (False, True):
        assert shelf.read(ledger, everything=everything) == []
        assert ledger.settle() == []
    assert shelf.read_together() == []
    assert (len(shelf), ledger.counts.events_stored) == (2, 4)


def _replace(path: Path) -> None:
    path.write_bytes(path.read_bytes())


def _swap(path: Path) -> None:
    data_dir = path.parents[3]
    path.unlink()
    _segment(data_dir, 1, 0, 1, 2).seal()


@pytest.mark.parametrize(
    ("fault", "findings", "lost"), [(_replace, 1, 0), (_swap, 1, 0), (Path.unlink, 1, 4)]
)
def test_a_sealed_segment_that_changes_or_goes_is_found(
    tmp_path: Path, fault: Callable[[Path], None], findings: int, lost: int
) -> None:
    ledger, _ = _sent()
    shelf = Shelf(tmp_path)
    path = _segment(tmp_path, 1, 0, 1, 2, 3).seal()
    assert shelf.read(ledger) == []
    fault(path)
    assert len(shelf.read(ledger)) == findings
    assert ledger.counts.lost == lost


def test_a_segment_that_recovery_shortens_is_found(tmp_path: Path) -> None:
    ledger, _ = _sent()
    shelf = Shelf(tmp_path)
    _segment(tmp_path, 1, 0, 1, 2, 3)
    assert shelf.read(ledger) == []
    [path] = open_directory(tmp_path).iterdir()
    path.unlink()
    _segment(tmp_path, 1, 0, 1).seal()
    [finding] = shelf.read(ledger)
    assert finding.startswith("changed: ")
    assert ledger.counts.lost == 2
