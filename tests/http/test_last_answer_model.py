"""Whatever clients send and storage does: answers in order, an error last, nothing stored behind it."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

from ingestd import events, slices
from ingestd.errors import StorageError
from ingestd.events import Batch
from ingestd.http import protocol
from tests.support.requests import SECRET, chunks, cut, encoded, event, head
from tests.support.wire import Answer, Site, Wire, key

SLICED_BYTES_MIN: Final = 3000
SECRETS: Final = {"web": SECRET, "b": "ing_b"}
KINDS: Final = {"small": 6, "bulk": 2, "sliced": 2, "large": 1, "probe": 1}
CODINGS: Final = {"plain": 5, "gzip": 1, "chunked": 1}
STEPS: Final = {"feed": 5, "turn": 3, "round": 1, "commit": 1, "fail": 1}


@pytest.fixture(scope="module", autouse=True)
def small_slices() -> Iterator[None]:
    """Bodies of a few thousand bytes are validated in slices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "SLICED_BYTES_MIN", SLICED_BYTES_MIN)
        patch.setattr(events, "SLICED_BYTES_MIN", SLICED_BYTES_MIN)
        patch.setattr(slices, "_SLICE_BYTES", 500)
        yield


def choice(rng: random.Random, weights: dict[str, int]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


class Sent(NamedTuple):
    """One request of a client."""

    kind: str
    is_bad: bool
    raw: bytes


def a_request(rng: random.Random, name: str) -> Sent:
    """Any request; its events have this message id."""
    kind, coding, is_bad = choice(rng, KINDS), choice(rng, CODINGS), rng.random() < 0.15
    if kind == "probe":
        return Sent(kind, False, head("GET /healthz HTTP/1.1", auth=False))
    if kind == "small":
        target, body = "/v1/track", b"{" if is_bad else encoded(event(name))
    else:
        count = {"bulk": 1, "sliced": 40, "large": 700}[kind]
        target, body = "/v1/bulk-track", encoded([event(name)] * count + [7] * is_bad)
    lines = [f"Authorization: Bearer {SECRETS[rng.choice(['web', 'web', 'b'])]}"]
    if coding == "gzip":
        body = gzip.compress(body)
        lines.append("Content-Encoding: gzip")
    if coding == "chunked":
        body = chunks(body, 30_000)
        lines.append("Transfer-Encoding: chunked")
    else:
        lines.append(f"Content-Length: {len(body)}")
    return Sent(kind, is_bad, head(f"POST {target} HTTP/1.1", lines, auth=False) + body)


def in_pieces(rng: random.Random, requests: list[Sent]) -> list[bytes]:
    """Their bytes, cut between requests and within."""
    places, at = [], 0
    for request in requests:
        if rng.random() < 0.5:
            places.append(at)
        if rng.random() < 0.4:
            places.append(at + rng.randrange(len(request.raw)))
        at += len(request.raw)
    return cut(b"".join(request.raw for request in requests), places)


class Flusher:
    """Commits batch by batch, and remembers what it had when it first failed one of a client's."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._taken: list[Batch] = []
        self.had: dict[int, set[int]] = {}
        """For each client with a failed request: those of its requests that were handed over by then."""

    def commit(self, *, fails: bool = False) -> None:
        """End one commit, if there is something to commit."""
        self._taken += self._site.take()
        if not self._taken:
            return
        batch = self._taken.pop(0)
        if fails:
            handed = [place_of(one) for taken in self._taken for one in taken.message_ids]
            for client, _ in map(place_of, batch.message_ids):
                self.had.setdefault(client, {i for other, i in handed if other == client})
        self._site.acknowledge([batch], StorageError("no space left") if fails else None)


def place_of(message_id: str) -> tuple[int, int]:
    """The client and the number of its request."""
    client, _, number = message_id.partition("-")
    return int(client), int(number)


def run(rng: random.Random, site: Site, wires: list[Wire], held: list[list[bytes]]) -> Flusher:
    """All is read, and all that is taken is answered, in an order that `rng` finds."""
    flusher = Flusher(site)
    while any(held):
        with site.one_round():
            while any(held) and (step := choice(rng, STEPS)) != "round":
                n = rng.randrange(len(wires))
                if step == "turn":
                    site.turn()
                elif step == "feed" and held[n]:
                    wires[n].feed(b"", [held[n].pop(0)])
                elif step in ("commit", "fail"):
                    flusher.commit(fails=step == "fail")
    while site.ring.batches:
        flusher.commit()
    return flusher


def assert_told(requests: list[Sent], answers: list[Answer], stored: set[int], handed: set[int]) -> None:
    """The answers are those of the first requests in their order, and what is stored agrees with them."""
    good = [answer for answer in answers if answer.status == 200]
    assert answers[: len(good)] == good
    expected = [i for i, request in enumerate(requests[: len(good)]) if request.kind != "probe"]
    for i in expected:
        assert not requests[i].is_bad
        ids = good[i].json.get("messageIds") or [good[i].json["messageId"]]
        assert {place_of(one)[1] for one in ids} == {i}
    assert all(answer.headers["Connection"] is None for answer in good)
    if len(good) == len(requests):
        assert (stored, len(answers)) == (set(expected), len(good))
        return
    [last] = answers[len(good) :]
    assert last.headers["Connection"] == "close"
    if last.status == 500:
        assert len(good) not in stored
        assert set(expected) <= stored <= {*expected, *handed}
    else:
        assert last.status in (400, 429)
        assert last.status == 429 or requests[len(good)].is_bad
        assert stored == set(expected)


@pytest.mark.parametrize("seed", range(300))
def test_an_error_is_the_last_answer_and_nothing_behind_it_is_taken(seed: int) -> None:
    rng = random.Random(seed)
    site = Site(
        ring_batches_max=rng.choice([1, 2, 1000, 1000]),
        inflight_bytes_max=rng.choice([100_000, 1 << 30]),
        pipeline_max=rng.choice([2, 128]),
    )
    site.keyring.replace([key(secret, name) for name, secret in SECRETS.items()])
    clients = [
        [a_request(rng, f"{n}-{i}") for i in range(rng.randint(3, 8))] for n in range(rng.randint(1, 2))
    ]
    wires = [Wire(site) for _ in clients]
    flusher = run(rng, site, wires, [in_pieces(rng, requests) for requests in clients])
    lines = [place_of(stored["messageId"]) for stored in site.stored]
    for n, (wire, requests) in enumerate(zip(wires, clients, strict=True)):
        mine = [i for client, i in lines if client == n]
        assert mine == sorted(mine)
        assert_told(requests, wire.answers(), set(mine), flusher.had.get(n, set()))
        assert wire.is_ended() is (wire.answers()[-1].status != 200)
    site.tick(6)
    assert [wire.is_closed() for wire in wires] == [wire.answers()[-1].status != 200 for wire in wires]
    assert (site.inflight_bytes, site.ring.batches, site.ring.is_gathering) == (0, 0, False)
