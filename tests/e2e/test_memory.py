"""What many, large or hostile clients cost a real process in memory, and what others feel of it.

Figures are of VmRSS and VmHWM (the highest VmRSS so far) in /proc.
"""

from __future__ import annotations

import json
import resource
import selectors
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestd.config import Settings
from ingestd.http.decoder import compressed_bytes_max
from tests.e2e.messages import head, post
from tests.support.server import DEADLINE_S, EVENT, Raw, Server, wait_until

MIB = 1024 * 1024
DEFAULTS = Settings()
SMALL = json.dumps(EVENT).encode()


def memory(server: Server, name: str = "VmRSS") -> int:
    """Bytes of the server's memory."""
    lines = Path(f"/proc/{server.worker_pid}/status").read_text().splitlines()
    [found] = [line for line in lines if line.startswith(f"{name}:")]
    return int(found.split()[1]) * 1024


def forget_peak(server: Server) -> None:
    """VmHWM begins again at what is used now."""
    Path(f"/proc/{server.worker_pid}/clear_refs").write_text("5")


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Server]:
    """A server whose memory only this test has used."""
    with Server(tmp_path) as server:
        with server.client() as client:
            assert client.post("/v1/track", SMALL).status == 200
        yield server


class Upload:
    """A client that sends one large request, as much of it as it is told and the server takes."""

    def __init__(self, server: Server, request: memoryview, watch: selectors.BaseSelector) -> None:
        self._socket = socket.create_connection((server.host, server.port), timeout=DEADLINE_S)
        self._socket.setblocking(False)
        self._request = request
        self._watch = watch
        self.sent = 0
        self.status = 0
        watch.register(self._socket, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def go_on(self, events: int, sent_max: int) -> None:
        """Read an answer or send a little more."""
        if events & selectors.EVENT_READ:
            self.status = int(self._socket.recv(4096).split()[1])
            self.close()
        elif self.sent < sent_max:
            self.sent += self._socket.send(self._request[self.sent : min(sent_max, self.sent + 65_536)])
        else:
            self._watch.modify(self._socket, selectors.EVENT_READ, self)

    def finish(self) -> None:
        """It may send its last bytes now."""
        if not self.status:
            self._watch.modify(self._socket, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def close(self) -> None:
        """Go away."""
        if self._socket.fileno() >= 0:
            self._watch.unregister(self._socket)
            self._socket.close()


def test_two_hundred_slow_large_uploads_leave_memory_bounded_and_others_served(fresh: Server) -> None:
    size = 9 * MIB
    body = json.dumps(EVENT | {"pad": "x" * (size - len(SMALL) - 11)}).encode()
    request = memoryview(post(body, fresh.key))
    at_once = DEFAULTS.inflight_bytes_max * 7 // 8 // len(body)
    with selectors.DefaultSelector() as watch, fresh.raw() as other:
        uploads = [Upload(fresh, request, watch) for _ in range(200)]

        def rotate(sent_max: int) -> bool:
            """Let each upload send a little, and one small request beside them."""
            for key, events in watch.select(1.0):
                upload: Upload = key.data
                upload.go_on(events, sent_max)
            other.send(post(SMALL, fresh.key))
            assert other.answer().status == 200
            return True

        try:
            # As many as the budget admits have all but their last byte in the server's memory.
            all_but_one = len(request) - 1
            wait_until(
                lambda: rotate(all_but_one) and sum(u.sent == all_but_one for u in uploads) >= at_once,
                "the budget is full",
            )
            held = memory(fresh)
            for upload in uploads:
                upload.finish()
            wait_until(
                lambda: rotate(len(request)) and all(u.status for u in uploads), "all are answered", 60
            )
        finally:
            for upload in uploads:
                upload.close()
    statuses = [upload.status for upload in uploads]
    peak = memory(fresh, "VmHWM")
    print(f"held: {held // MIB} MiB, peak: {peak // MIB} MiB, stored: {statuses.count(200)} of 200")
    assert set(statuses) <= {200, 429}
    assert statuses.count(200) >= at_once
    assert held > at_once * size, "the uploads were not in memory, so nothing was measured"
    assert peak < 600 * MIB


def test_ten_thousand_idle_connections_cost_less_than_a_hundred_mebibytes(tmp_path: Path) -> None:
    count, needed = 10_000, 10_200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"{needed} files must be open, and the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    idle: list[socket.socket] = []
    try:
        with Server(tmp_path, segment_age_max_s=3600) as server:
            with server.client() as client:
                assert client.post("/v1/track", SMALL).status == 200
            before = memory(server)
            while len(idle) < count:
                # Connections are accepted in order: once the last one is answered, all are there.
                some = [socket.create_connection((server.host, server.port)) for _ in range(1000)]
                idle += some
                some[-1].sendall(head("GET /healthz HTTP/1.1"))
                assert some[-1].recv(4096).startswith(b"HTTP/1.1 200 ")
            connected = memory(server)
            for one in idle:
                one.sendall(post(SMALL, server.key))
            for one in idle:
                assert one.recv(4096).startswith(b"HTTP/1.1 200 ")
            used = memory(server)
            print(
                f"idle: {(connected - before) // count} bytes each, "
                f"after a request: {(used - before) // count} bytes each"
            )
            assert connected - before < 100 * MIB
            assert used - before < 100 * MIB
    finally:
        for one in idle:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def zeros_in_gzip(gibibytes: int) -> bytes:
    """One gzip member that inflates to this much; a block that ends in a full flush can be repeated."""
    packer = zlib.compressobj(9, wbits=31)
    start = packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(16 * MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    assert zlib.decompressobj(wbits=31).decompress(start + block * 2) == bytes(32 * MIB)
    return start + block * (64 * gibibytes)


def cost_of_bomb(fresh: Server, coding: str, bomb: bytes) -> int:
    """By how much memory grows at most while it is sent three times, and refused each time."""
    limit = DEFAULTS.body_bytes_max
    assert len(bomb) < compressed_bytes_max(limit), "it would be refused for what it weighs itself"
    start = head(
        "POST /v1/track HTTP/1.1",
        f"Content-Length: {len(bomb)}",
        f"Content-Encoding: {coding}",
        key=fresh.key,
    )
    forget_peak(fresh)
    before = memory(fresh)
    for _ in range(3):
        with fresh.raw() as raw:
            raw.send(start + bomb)
            assert raw.answer().status == 413
    growth = memory(fresh, "VmHWM") - before
    print(f"the {coding} bomb costs {growth / MIB:.1f} MiB")
    return growth


def test_a_gzip_bomb_is_413_and_costs_no_more_than_twice_the_limit(fresh: Server) -> None:
    limit = DEFAULTS.body_bytes_max
    bomb = zeros_in_gzip(10)
    assert cost_of_bomb(fresh, "gzip", bomb) < 2 * limit


def test_a_zstd_bomb_is_413_and_costs_no_more_than_three_times_the_limit(fresh: Server) -> None:
    """Its output, its window and what a growing buffer leaves behind."""
    limit = DEFAULTS.body_bytes_max
    block = (128 * 1024 << 3 | 0b010).to_bytes(3, "little") + b"a"
    # A frame without its size, a window of 8 MiB, and 320 GiB in blocks of 4 bytes (RFC 8878 §3.1.1).
    bomb = bytes.fromhex("28b52ffd 00 68") + block * (limit // len(block))
    assert cost_of_bomb(fresh, "zstd", bomb) < 3 * limit


def silences(server: Server, stop: threading.Event, found: list[float]) -> None:
    """Ask /healthz again and again, and note how long each answer takes."""
    with Raw(server.host, server.port) as raw:
        while not stop.is_set():
            begin = time.perf_counter()
            raw.send(head("GET /healthz HTTP/1.1"))
            assert raw.answer().status == 200
            found.append(time.perf_counter() - begin)


def test_others_are_answered_while_ten_mebibytes_of_tiny_events_are_validated(fresh: Server) -> None:
    tiny = b'{"event":"","properties":{},"timestamp":"2025-10-29T22:00:00Z"}'
    count = DEFAULTS.body_bytes_max // (len(tiny) + 1) - 1
    body = b"[" + b",".join([tiny] * count) + b"]"
    stop, found = threading.Event(), list[float]()
    asking = threading.Thread(target=silences, args=(fresh, stop, found))
    with fresh.raw() as raw:
        asking.start()
        try:
            raw.send(post(body, fresh.key, "/v1/bulk-track"))
            answered_before = len(found)
            begin = time.perf_counter()
            answer = raw.answer()
            taken = time.perf_counter() - begin
            answered = len(found) - answered_before
        finally:
            stop.set()
            asking.join(DEADLINE_S)
    assert answer.status == 200
    assert len(answer.json["messageIds"]) == count
    assert not asking.is_alive()
    print(
        f"{count} events in {taken:.2f} s; {answered} answers to /healthz meanwhile, "
        f"the longest wait {max(found) * 1000:.0f} ms"
    )
    assert answered >= 5
