"""The table of states, pair by pair, and each of its arrows taken by a real connection."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from ingestd.http import lifecycle
from ingestd.http.lifecycle import (
    ACCEPT,
    ANSWERED,
    BEGIN,
    BODY,
    CLOSED,
    CLOSING,
    COMPLETE,
    DRAIN,
    END,
    EVENTS,
    GRANT,
    HEAD,
    IDLE,
    LAST,
    NEXT,
    READING,
    STARVE,
    STATES,
    WAIT,
)
from ingestd.http.protocol import Connection
from tests.support.requests import chunks, encoded, event, head, post
from tests.support.wire import Site, Wire

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "connection.md"
PAIRS: Final = list(itertools.product(STATES, EVENTS))
Arrow = tuple[str, str, str]

SMALL: Final = post(encoded(event("small")))
LAST_ONE: Final = post(encoded(event("last")), headers=["Connection: close"])
LARGE: Final = encoded(event("large", properties={"pad": "x" * 700_000}))


# -- the table --------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "event_"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_a_pair_leads_to_a_state_or_is_a_bug(state: str, event_: str) -> None:
    wire = Wire()
    connection = Connection(wire.site.hub)
    connection.connection_made(wire.transport)
    connection.state = state
    if (state, event_) in NEXT:
        connection.go(event_)
        assert connection.state == NEXT[state, event_]
        assert connection.state in STATES
    else:
        with pytest.raises(KeyError):
            connection.go(event_)
        assert connection.state == state


def test_the_table_has_no_pair_of_unknown_names() -> None:
    assert set(NEXT) <= set(PAIRS)
    assert set(NEXT.values()) <= set(STATES)
    assert {event_ for _, event_ in NEXT} == set(EVENTS)


def test_every_state_is_reached_from_the_first_and_leads_to_the_last() -> None:
    def reachable(start: str) -> set[str]:
        seen, found = {start}, [start]
        while found:
            state = found.pop()
            new = {after for (before, _), after in NEXT.items() if before == state} - seen
            seen |= new
            found += new
        return seen

    assert reachable(IDLE) == set(STATES)
    assert all(CLOSED in reachable(state) for state in STATES)


def test_closed_is_final_and_every_state_may_end() -> None:
    assert {after for (state, _), after in NEXT.items() if state == CLOSED} == {CLOSED}
    assert all(NEXT[state, END] == CLOSED for state in STATES)


def test_once_a_connection_has_ceased_to_read_requests_it_never_begins_again() -> None:
    for (state, event_), after in NEXT.items():
        if state not in READING:
            assert after not in READING, (state, event_)
        assert (event_ == LAST) <= (after == CLOSING), "the last request is followed by none"
    assert all((state, LAST) in NEXT for state in READING)


# -- each arrow by bytes ----------------------------------------------------------------------


def _crowded() -> Wire:
    """A connection to a site whose budget is nearly full."""
    site = Site(inflight_bytes_max=1_000_000)
    Wire(site).feed(post(LARGE)[:1000])
    return Wire(site)


def _starved() -> Wire:
    wire = _crowded()
    wire.feed(post(LARGE)[:1000])
    return wire


def _granted() -> Wire:
    wire = _starved()
    next(other for other in wire.site.wires if other is not wire).vanish(None)
    return wire


def _complete_without_room() -> Wire:
    wire = _crowded()
    Wire(wire.site).feed(post(LARGE[:170_000]))
    Wire(wire.site).feed(post(LARGE)[:500])
    body = encoded(event("c", properties={"pad": "x" * 70_000}))
    wire.feed(head("POST /v1/track HTTP/1.1", ["Transfer-Encoding: chunked"]) + chunks(body, 100_000))
    return wire


def _fed(data: bytes, then: Callable[[Wire], object] | None = None) -> Callable[[], Wire]:
    def run() -> Wire:
        wire = Wire()
        wire.feed(data)
        if then is not None:
            then(wire)
        return wire

    return run


def _after(first: Callable[[], Wire], then: Callable[[Wire], object]) -> Callable[[], Wire]:
    def run() -> Wire:
        wire = first()
        then(wire)
        return wire

    return run


def _vanish(wire: Wire) -> None:
    wire.vanish(ConnectionResetError())


def _commit(wire: Wire) -> None:
    wire.site.commit()


SCENARIOS: Final[dict[tuple[str, str], tuple[Callable[[], Wire], str]]] = {
    (IDLE, BEGIN): (_fed(b"P"), HEAD),
    (IDLE, LAST): (_fed(SMALL, Wire.half_close), CLOSING),
    (HEAD, ACCEPT): (_fed(SMALL[:-1]), BODY),
    (HEAD, LAST): (_fed(SMALL + b"BAD\r\n"), CLOSING),
    (BODY, STARVE): (_starved, WAIT),
    (BODY, COMPLETE): (_fed(SMALL), IDLE),
    (BODY, LAST): (_fed(LAST_ONE), CLOSING),
    (WAIT, GRANT): (_granted, BODY),
    (WAIT, COMPLETE): (_complete_without_room, IDLE),
    (WAIT, LAST): (_after(_starved, lambda wire: wire.site.tick(11)), DRAIN),
    (CLOSING, LAST): (_fed(LAST_ONE, Wire.half_close), CLOSING),
    (CLOSING, ANSWERED): (_fed(LAST_ONE, _commit), DRAIN),
    (IDLE, END): (_fed(b"", _vanish), CLOSED),
    (HEAD, END): (_fed(b"P", _vanish), CLOSED),
    (BODY, END): (_fed(SMALL[:-1], _vanish), CLOSED),
    (WAIT, END): (_after(_starved, _vanish), CLOSED),
    (CLOSING, END): (_fed(LAST_ONE, _vanish), CLOSED),
    (DRAIN, END): (_after(_fed(LAST_ONE, _commit), lambda wire: wire.site.tick(6)), CLOSED),
    (CLOSED, END): (_after(_fed(SMALL, _commit), lambda wire: wire.site.drain()), CLOSED),
}
"""How each arrow is taken, and the state in which the connection is then."""


def test_there_is_a_scenario_for_each_arrow() -> None:
    assert set(SCENARIOS) == set(NEXT)


@pytest.mark.parametrize("arrow", SCENARIOS, ids=["-".join(arrow) for arrow in SCENARIOS])
def test_a_connection_takes_the_arrow(arrow: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Arrow] = []
    original = Connection.go

    def go(self: Connection, event_: str) -> None:
        before = self.state
        original(self, event_)
        taken.append((before, event_, self.state))

    monkeypatch.setattr(Connection, "go", go)
    run, state = SCENARIOS[arrow]
    wire = run()
    assert (*arrow, NEXT[arrow]) in taken
    assert wire.state == state
    assert all(NEXT[before, event_] == after for before, event_, after in taken)


# -- the picture ------------------------------------------------------------------------------


def test_the_diagram_has_an_arrow_for_each_change_of_state() -> None:
    lines = [line.strip() for line in lifecycle.diagram().splitlines()]
    for (state, event_), after in NEXT.items():
        assert (f"{state} --> {after}: {event_}" in lines) is (state != after)
    assert len(lines) == 3 + sum(state != after for (state, _), after in NEXT.items())


def test_the_page_shows_the_diagram_of_the_table_and_tells_of_each_state() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "connection_diagram.py", "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = [line.split("`")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert told == list(STATES)
