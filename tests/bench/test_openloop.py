"""The open loop times every request from when it was due."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.openloop import Failed, Order, percentile, run, schedule

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def _server(answer: bytes, *, stands_still_s: float = 0.0, pieces: int = 1) -> Iterator[int]:
    """Answers one request after the other on one connection; before the tenth it stands still."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            one, _ = listening.accept()
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with one:
                count = 0
                while one.recv(65536):
                    count += 1
                    if count == 10:
                        time.sleep(stands_still_s)
                    size = -(-len(answer) // pieces)
                    for i in range(0, len(answer), size):
                        one.sendall(answer[i : i + size])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(30)


def _order(port: int, **changed: float) -> Order:
    told = {"rate": 500.0, "seconds": 1.0, "warm_up_s": 0.0, **changed}
    return Order(port, [_REQUEST], told["rate"], told["seconds"], told["warm_up_s"], 1)


def test_what_waits_while_the_server_stands_still_is_counted() -> None:
    """A closed loop would find one slow request; of these, half wait, 0.25 s on average."""
    with _server(_ANSWER, stands_still_s=0.5) as port:
        timing = run(_order(port))
    assert timing.requests == len(schedule(_order(port)))
    assert timing.max_ms >= 490
    assert timing.p90_ms >= 300


def test_an_answer_may_come_in_pieces() -> None:
    with _server(_ANSWER, pieces=7) as port:
        assert run(_order(port)).requests == len(schedule(_order(port)))


def test_an_answer_that_is_no_200_ends_it() -> None:
    refusal = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"
    with _server(refusal) as port, pytest.raises(Failed, match="429"):
        run(_order(port))


def test_the_warm_up_does_not_count() -> None:
    order = _order(1, warm_up_s=1.0)
    with _server(_ANSWER) as port:
        order.port = port
        timing = run(order)
    due = schedule(order)
    assert timing.requests == sum(at >= 1.0 for at in due)
    assert timing.requests < len(due)


def test_requests_are_due_at_the_same_times_in_every_run_at_the_rate_asked_for() -> None:
    due = schedule(_order(1, rate=1000.0, seconds=20.0))
    assert due == schedule(_order(1, rate=1000.0, seconds=20.0))
    assert due == sorted(due)
    assert 19_000 < len(due) < 21_000


@pytest.mark.parametrize(
    ("share", "value"), [(0.5, 50.0), (0.99, 99.0), (0.999, 100.0), (1.0, 100.0), (0.001, 1.0)]
)
def test_a_percentile_is_a_value_that_was_measured(share: float, value: float) -> None:
    assert percentile([float(i) for i in range(1, 101)], share) == value
