"""From the rows of workers to the text of /metrics, in memory that is shared with nobody."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ingestd import __version__
from ingestd.config import Settings
from ingestd.http.hub import Hub
from ingestd.metrics import OTHER_ROUTE
from ingestd.service import readiness, reporter, scoreboard
from ingestd.service.brief import Brief
from ingestd.service.collector import Collector
from ingestd.service.families import COUNTED, DISTRIBUTIONS, FAMILIES
from ingestd.service.replica import Replica
from ingestd.service.reporter import KEYS_MAX, Reporter
from ingestd.service.scoreboard import (
    FLUSHER_BEAT_MS,
    IS_READY,
    IS_UP,
    LOOP_BEAT_MS,
    MOMENTARY,
    NOT_READY,
    RESTARTS,
    SharedMemory,
    monotonic_ms,
)
from ingestd.service.standing import SILENT_MS, Standing
from ingestd.storage.flusher import Flusher
from ingestd.storage.sealer import Sealer
from tests.storage.samples import DATA, new_disk
from tests.support.requests import encoded, event, post
from tests.support.scrape import Scrape
from tests.support.wire import Site, Wire

WORKERS = 3


class Board:
    """The shared memory of three workers that serve, and what is read from it."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.memory = scoreboard.make(WORKERS)
        self.standing = Standing(self.memory, WORKERS)
        for row, place in zip(self.standing.rows, self.standing.places, strict=True):
            row[LOOP_BEAT_MS] = row[FLUSHER_BEAT_MS] = monotonic_ms()
            place[IS_UP] = place[IS_READY] = 1

    def scrape(self) -> Scrape:
        return Scrape(Collector(self.settings, self.memory, self.standing).text().decode())

    def column(self, name: str, *values: int) -> None:
        """One column of all rows."""
        for row, value in zip(self.standing.rows, values, strict=True):
            row[name] = value


class Counting:
    """One worker's counting parts, without a process, a socket or a thread."""

    def __init__(self, memory: SharedMemory, worker: int = 0, **settings: Any) -> None:
        self.site = Site(**settings)
        disk = new_disk()
        self.sealer = Sealer(self.site.settings, disk)
        self.flusher = Flusher(
            self.site.settings, disk, self.site.ring, lambda *_: None, self.sealer, "node", worker
        )
        brief = Brief(
            self.site.settings,
            worker,
            WORKERS,
            sockets=[],
            tls_sockets=[],
            admin_sockets=[],
            memory=memory.fd,
        )
        self.reporter = Reporter(brief, memory, self.site.hub, self.site.ring, self.flusher, self.sealer)

    def send(self, *requests: bytes) -> None:
        for request in requests:
            wire = Wire(self.site)
            wire.feed(request)
            self.site.commit()


def test_counters_are_summed_and_gauges_as_their_meaning_asks() -> None:
    board = Board()
    board.column("events_stored", 1, 10, 100)
    board.column("connections", 1, 2, 3)
    board.column("ring_fill_parts", 250_000, 750_000, 1)
    board.column("disk_free_bytes", 7, 5, 9)
    seen = board.scrape()
    assert seen["events_stored_total"] == 111
    assert seen["connections"] == 6
    assert seen["ring_fill_ratio"] == 0.75
    assert seen["disk_free_bytes"] == 5
    assert seen["connections_limit"] == 3 * board.settings.connections_max
    assert seen.by("build_info", "version", "python").popitem()[0][0] == __version__


def test_every_column_is_shown_and_has_a_help_and_a_name_of_its_kind() -> None:
    board = Board()
    for number, column in enumerate((*COUNTED, *MOMENTARY)):
        if column not in (LOOP_BEAT_MS, FLUSHER_BEAT_MS, NOT_READY):
            board.column(column, number + 1, number + 1, number + 1)
    seen = board.scrape()
    empty = Board().scrape()
    assert set(seen.families) == set(empty.families)
    for family in FAMILIES:
        name = family.name + ("_total" if family.kind == "counter" else "")
        labels = [family.label[0]] if family.label else []
        shown = seen.by(name, *labels)[(family.label[1],) if family.label else ()]
        assert shown > 0
    for shown_family in seen.families.values():
        assert shown_family.documentation.endswith(".")
        assert shown_family.name.startswith("ingestd_")


def test_a_histogram_is_cumulative_and_in_base_units() -> None:
    board = Board()
    latency = next(found for found in DISTRIBUTIONS if found.name == "commit_seconds")
    board.column(latency.columns[0], 1, 0, 2)
    board.column(latency.columns[3], 0, 4, 0)
    board.column("commit_seconds_above", 0, 0, 5)
    board.column("commit_seconds_sum", 1_500_000_000, 0, 1)
    seen = board.scrape()
    buckets = list(seen.by("commit_seconds_bucket", "le").items())
    assert [le for (le,), _ in buckets] == sorted((le for (le,), _ in buckets), key=float)
    assert (buckets[0], buckets[2][1], buckets[3][1]) == ((("0.0001",), 3), 3, 7)
    assert buckets[-2:] == [(("10.0",), 7), (("+Inf",), 12)]
    assert seen["commit_seconds_count"] == 12
    assert seen["commit_seconds_sum"] == pytest.approx(1.500000001)


def test_what_tells_of_now_is_not_taken_from_a_worker_that_is_gone() -> None:
    board = Board()
    board.column("disk_free_bytes", 7, 5, 9)
    board.column("connections", 1, 2, 3)
    board.column("events_stored", 1, 10, 100)
    board.standing.rows[1].clear(MOMENTARY)
    board.standing.places[1][IS_UP] = 0
    seen = board.scrape()
    assert (seen["disk_free_bytes"], seen["connections"], seen["events_stored_total"]) == (7, 4, 111)
    assert seen.by("worker_up", "worker") == {("0",): 1, ("1",): 0, ("2",): 1}
    assert ("1", "loop") not in seen.by("worker_silence_seconds", "worker", "thread")


def silent(board: Board) -> None:
    board.standing.rows[1][LOOP_BEAT_MS] -= SILENT_MS + 1


def gone(board: Board) -> None:
    board.standing.places[1][IS_UP] = 0


def recovering(board: Board) -> None:
    board.standing.rows[1].clear(MOMENTARY)
    board.standing.places[1][IS_READY] = 0


def asked_to_end(board: Board) -> None:
    board.standing.places[1][IS_READY] = 0


def of_a_newer_version(board: Board) -> None:
    board.standing.rows[1][NOT_READY] = 99


def failing(board: Board) -> None:
    board.standing.rows[1][NOT_READY] = readiness.REASONS.index("storage fails")


@pytest.mark.parametrize(
    ("happen", "reason"),
    [
        (silent, "not answering"),
        (gone, "not running"),
        (recovering, "starting"),
        (asked_to_end, "starting or draining"),
        (of_a_newer_version, "not ready"),
        (failing, "storage fails"),
    ],
)
def test_the_server_is_ready_if_all_workers_are_and_else_says_who_is_not(
    happen: Callable[[Board], None], reason: str
) -> None:
    board = Board()
    assert board.standing.described() == ""
    assert board.scrape()["ready"] == 1
    happen(board)
    assert board.standing.described() == f"{reason} (worker 1)"
    seen = board.scrape()
    assert seen["ready"] == 0
    assert seen.by("worker_ready", "worker") == {("0",): 1, ("1",): 0, ("2",): 1}


def test_workers_with_the_same_reason_are_named_together() -> None:
    board = Board()
    for number in (0, 2):
        board.standing.rows[number][NOT_READY] = readiness.REASONS.index("draining")
    gone(board)
    assert board.standing.described() == "draining (workers 0, 2); not running (worker 1)"


def test_restarts_are_shown_for_each_worker() -> None:
    board = Board()
    board.standing.places[2][RESTARTS] = 4
    assert board.scrape().by("worker_restarts_total", "worker") == {("0",): 0, ("1",): 0, ("2",): 4}


def test_several_workers_report_and_one_takes_anothers_place() -> None:
    board = Board()
    one, two = Counting(board.memory, 0), Counting(board.memory, 1)
    one.send(post(encoded(event())), post(b"{"))
    two.send(post(encoded([event()] * 5), "/v1/bulk-track"), b"nonsense\r\n\r\n")
    one.flusher.commit_events.observe(5)
    for worker in (one, two):
        worker.reporter.report()
    before = board.scrape().counts()
    successor = Counting(board.memory, 1)
    successor.reporter.report()
    assert board.scrape().counts() == before
    successor.send(post(encoded(event())), post(b"{"))
    successor.flusher.commit_events.observe(70)
    for worker in (successor, one):
        worker.reporter.report()
        worker.reporter.report()
    seen = board.scrape()
    assert seen.by("requests_total", "route", "status") == {
        ("/v1/track", "200"): 2,
        ("/v1/track", "400"): 2,
        ("/v1/bulk-track", "200"): 1,
        (OTHER_ROUTE, "400"): 1,
    }
    assert seen.by("refusals_total", "code") == {("invalid_json",): 2, ("bad_request",): 1}
    assert seen.by("key_events_total", "key") == {("web",): 7}
    assert (seen["events_received_total"], seen["connections_accepted_total"]) == (7, 6)
    assert (seen["commit_events_count"], seen["commit_events_sum"]) == (2, 75)


def test_the_names_of_keys_have_a_bound_and_nothing_is_lost_by_it() -> None:
    board = Board()
    counting = Counting(board.memory)
    events = counting.site.hub.traffic.key_events
    for number in range(KEYS_MAX + 50):
        events[f"key-{number:03d}"] = 1
        counting.reporter.report()
    counting.reporter.report()
    # Its successor has the same names, and new ones go where there is no room for names.
    successor = Counting(board.memory)
    successor.site.hub.traffic.key_events.update({"key-000": 2, "late": 3})
    successor.reporter.report()
    shown = board.scrape().by("key_events_total", "key")
    assert len(shown) == KEYS_MAX + 1
    assert shown["key-000",] == 3
    assert shown[reporter.OTHER_KEYS,] == 50 + 3


def test_a_worker_says_in_its_row_why_it_takes_no_events() -> None:
    board = Board()
    counting = Counting(board.memory)
    counting.reporter.report()
    # Its flusher was never started.
    assert board.standing.described() == "the flusher has ended (worker 0)"
    counting.site.drain()
    counting.reporter.report()
    assert board.standing.described() == "draining (worker 0)"


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"alive": False}, "the flusher has ended"),
        ({"error": "no space left"}, "storage fails: no space left"),
        ({"committing_since": -1e9}, "the disk has not taken a commit for "),
        ({"no_room": SimpleNamespace(detail="3 MiB are free")}, "3 MiB are free"),
        ({"is_draining": True, "alive": False}, "draining"),
        ({"refuses": True, "problem": "no broker"}, "the log does not acknowledge: no broker"),
        ({"no_room": SimpleNamespace(detail="x"), "refuses": True}, "x"),
        ({}, ""),
    ],
)
def test_each_reason_has_a_sentence_and_a_number(state: dict[str, object], reason: str) -> None:
    flusher = SimpleNamespace(alive=True, error=None, committing_since=None)
    hub = SimpleNamespace(is_draining=False, no_room=None)
    replica = SimpleNamespace(refuses=False, problem="")
    for name, value in state.items():
        setattr(next((one for one in (hub, replica) if hasattr(one, name)), flusher), name, value)
    number, sentence = readiness.look(cast(Hub, hub), cast(Flusher, flusher), cast(Replica, replica))
    assert sentence.startswith(reason)
    assert bool(sentence) is bool(readiness.REASONS[number]) is (number != readiness.READY)


def test_the_storage_s_own_numbers_are_told() -> None:
    board = Board()
    counting = Counting(board.memory)
    counting.flusher.stored_bytes = 11
    counting.sealer.refusals = 12
    counting.sealer.recoveries.in_doubt_bytes = 13
    counting.sealer.recoveries.files["left in place"] = 14
    counting.sealer.take_abandoned(DATA / "open" / "x")
    counting.reporter.report()
    seen = board.scrape()
    assert (seen["stored_bytes_total"], seen["seal_refusals_total"]) == (11, 12)
    assert seen["recovery_in_doubt_bytes_total"] == 13
    assert seen.by("recovery_files_total", "action")["left_in_place",] == 14
    assert seen["sealing_waiting_files"] == 1
