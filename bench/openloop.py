"""Latency at a fixed rate, without coordinated omission.

A closed loop sends the next request when it has the answer to the one before: while the server
stands still it asks nothing, and the wait of all who would have asked is left out. Here requests
are due at times that were drawn beforehand (gaps exponential, so that they come as independent
clients' do), and each is timed from when it was *due* to its last byte, whether or not a connection
was free by then and however late this process was itself. That lateness is told apart as well.

It polls without sleeping, so that no timer delays a request; it needs a core of its own.

`python -m bench.openloop` reads an Order as JSON and prints a Timing.
"""

from __future__ import annotations

import random
import select
import socket
import sys
import time
from collections import deque
from contextlib import ExitStack
from typing import Final

import msgspec

_SEED: Final = 20260102
_GRACE_S: Final = 10.0
"""How long answers may come after the last request was due."""
_READ_BYTES: Final = 65536


class Order(msgspec.Struct):
    """What to send, and how fast."""

    port: int
    requests: list[bytes]
    """Whole ones, sent in turn."""
    rate: float
    seconds: float
    warm_up_s: float
    """As long as this, before the seconds that count."""
    connections: int


class Timing(msgspec.Struct):
    """Of the requests that count; `late_p99_ms` of sending, when due and a connection was free."""

    requests: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    late_p99_ms: float


class Failed(Exception):
    """An answer that is not 200, or none."""


def percentile(ordered: list[float], share: float) -> float:
    """The least value that `share` of the values do not exceed."""
    return ordered[max(0, min(len(ordered) - 1, -(-int(share * 1e6) * len(ordered) // 1_000_000) - 1))]


def schedule(order: Order) -> list[float]:
    """When requests are due, in seconds from the start, warm-up included."""
    rng = random.Random(_SEED)
    due, at = [], 0.0
    while (at := at + rng.expovariate(order.rate)) < order.warm_up_s + order.seconds:
        due.append(at)
    return due


def run(order: Order) -> Timing:
    """Send all that is due; raises Failed."""
    with ExitStack() as stack, select.epoll() as poll:
        by_fd: dict[int, socket.socket] = {}
        for _ in range(order.connections):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", order.port)))
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            poll.register(one.fileno(), select.EPOLLIN)
            by_fd[one.fileno()] = one
        return _drive(order, schedule(order), poll, by_fd)


def _drive(order: Order, due: list[float], poll: select.epoll, by_fd: dict[int, socket.socket]) -> Timing:
    clock, requests, count = time.perf_counter, order.requests, len(order.requests)
    free = deque(by_fd)
    free_since = dict.fromkeys(by_fd, 0.0)
    asked: dict[int, float] = {}
    """When the request was due that each busy connection has sent."""
    received: dict[int, bytes] = {}
    took: list[float] = []
    late: list[float] = []
    sent, answered, start = 0, 0, clock() + 0.01
    counts_from = start + order.warm_up_s
    end = counts_from + order.seconds + _GRACE_S
    while answered < len(due):
        now = clock()
        while free and sent < len(due) and start + due[sent] <= now:
            fd = free.popleft()
            asked[fd] = due_at = start + due[sent]
            by_fd[fd].sendall(requests[sent % count])
            if due_at >= counts_from:
                late.append(clock() - max(due_at, free_since[fd]))
            sent += 1
        for fd, _ in poll.poll(0):
            piece = by_fd[fd].recv(_READ_BYTES)
            if not piece:
                raise Failed("the server has closed a connection")
            data = received.pop(fd, b"") + piece
            if not _is_whole(data):
                received[fd] = data
                continue
            due_at, free_since[fd] = asked.pop(fd), clock()
            if due_at >= counts_from:
                took.append(free_since[fd] - due_at)
            free.append(fd)
            answered += 1
        if now > end:
            raise Failed(f"{len(due) - answered} of {len(due)} requests had no answer")
    return _timing(took, late)


def _is_whole(data: bytes) -> bool:
    """True for a whole answer. Raises Failed if it is not a 200."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    if not data.startswith(b"HTTP/1.1 200"):
        raise Failed(data[:200].decode(errors="replace"))
    head = data[:end].lower()
    at = head.find(b"content-length:")
    if at < 0:
        return data.endswith(b"0\r\n\r\n")
    return len(data) >= end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])


def _timing(took: list[float], late: list[float]) -> Timing:
    took.sort()
    late.sort()
    p50, p90, p99, p999 = (percentile(took, share) * 1e3 for share in (0.5, 0.9, 0.99, 0.999))
    late_p99 = percentile(late, 0.99) * 1e3 if late else 0.0
    return Timing(len(took), p50, p90, p99, p999, took[-1] * 1e3, late_p99)


def main() -> int:
    """Command line."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    try:
        sys.stdout.buffer.write(msgspec.json.encode(run(order)))
    except (Failed, OSError) as e:
        print(e, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
