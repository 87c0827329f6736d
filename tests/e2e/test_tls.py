"""TLS of the real process: versions, ends, certificates that are renewed, crowds that never shake hands."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.messages import head, post
from tests.support import certificates
from tests.support.certificates import Pair
from tests.support.server import DEADLINE_S, EVENT, Answer, Server, run, wait_until
from tests.support.tools import tool

BODY: Final = json.dumps(EVENT).encode()
LISTEN: Final = "127.0.0.1:0, tls:127.0.0.1:0"
CROWD: Final = 1000


class TlsClient:
    """One connection, on which the test writes the bytes itself."""

    def __init__(
        self, server: Server, context: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> None:
        raw = socket.create_connection(("127.0.0.1", port_of(server)), timeout=DEADLINE_S)
        try:
            self.socket = context.wrap_socket(raw, server_hostname="localhost", session=session)
        except BaseException:
            raw.close()
            raise
        self._file = self.socket.makefile("rb")

    def ask(self, data: bytes) -> Answer:
        """Send a request and read its answer."""
        self.socket.sendall(data)
        return self.answer()

    def answer(self) -> Answer:
        line = self._file.readline()
        assert line.startswith(b"HTTP/1.1 "), line
        headers = http.client.parse_headers(self._file)
        body = self._file.read(int(headers["Content-Length"]))
        return Answer(int(line.split()[1]), headers, body)

    def rest(self) -> bytes:
        """All that still comes; an end that TLS has not announced is an error."""
        return self._file.read()

    @property
    def certificate(self) -> bytes:
        """The server's, in DER."""
        der = self.socket.getpeercert(binary_form=True)
        assert der is not None
        return der

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def __enter__(self) -> TlsClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def port_of(server: Server) -> int:
    """Where the server speaks TLS."""
    [port] = re.findall(r"https://127\.0\.0\.1:(\d+)", server.log)
    return int(port)


@pytest.fixture(name="pair", scope="module")
def _pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(name="served", scope="module")
def _served(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for tests that only talk to it."""
    with Server(tmp_path_factory.mktemp("server"), listen=LISTEN, **pair.settings) as server:
        yield server


def a_client(pair: Pair, version: ssl.TLSVersion) -> ssl.SSLContext:
    """One that speaks this version of TLS and no other, however old."""
    context = pair.client()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    return context


# -- versions --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_events_are_taken_over_tls(served: Server, pair: Pair, version: ssl.TLSVersion) -> None:
    with TlsClient(served, a_client(pair, version)) as client:
        assert client.socket.version() == version.name.replace("_", ".")
        assert client.socket.selected_alpn_protocol() == "http/1.1"
        answers = [client.ask(post(BODY, served.key)) for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_older_versions_are_refused(served: Server, pair: Pair, version: ssl.TLSVersion) -> None:
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        TlsClient(served, a_client(pair, version))
    served.wait_for_log('no TLS handshake why="unsupported protocol"')


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed(served: Server, pair: Pair, version: ssl.TLSVersion) -> None:
    context = a_client(pair, version)
    with TlsClient(served, context) as first:
        # The tickets of TLS 1.3 come with the first answer.
        first.ask(head("GET /healthz HTTP/1.1"))
        session = first.socket.session
    with TlsClient(served, context, session) as second:
        assert second.ask(head("GET /healthz HTTP/1.1")).status == 200
        assert second.socket.session_reused


def test_curl_trusts_it(served: Server, pair: Pair) -> None:
    done = subprocess.run(
        [
            tool("curl"), "--silent", "--show-error", "--fail", "--cacert", str(pair.cert),
            "-H", f"Authorization: Bearer {served.key}", "-d", BODY.decode(),
            f"https://localhost:{port_of(served)}/v1/track",
        ],
        capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)["status"]) == (0, "ok"), done.stderr


def test_plain_http_is_answered_and_closed(served: Server) -> None:
    with socket.create_connection(("127.0.0.1", port_of(served)), timeout=DEADLINE_S) as client:
        client.sendall(post(BODY, served.key))
        answer = b""
        while part := client.recv(1000):
            answer += part
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"tls_required"' in answer


@pytest.mark.parametrize("size", [1, 10, 5000])
def test_noise_is_closed(served: Server, size: int) -> None:
    with socket.create_connection(("127.0.0.1", port_of(served)), timeout=DEADLINE_S) as client:
        client.sendall(b"\xff" * size)
        client.shutdown(socket.SHUT_WR)
        while client.recv(1000):
            pass


# -- ends ------------------------------------------------------------------------------------


def test_ten_megabytes_pass_and_more_is_refused_to_a_client_that_goes_on_sending(
    served: Server, pair: Pair
) -> None:
    with TlsClient(served, pair.client()) as client:
        body = json.dumps([EVENT | {"properties": {"pad": "x" * 10_000}}] * 1000).encode()
        assert client.ask(post(body, served.key, "/v1/bulk-track")).status == 200
        client.socket.sendall(head("POST /v1/track HTTP/1.1", f"Content-Length: {1 << 40}", key=served.key))
        for _ in range(9):
            client.socket.sendall(b"x" * 1_000_000)
        assert client.answer().status == 413
        assert client.rest() == b""


def test_a_stop_answers_what_is_in_flight(tmp_path: Path, pair: Pair) -> None:
    with Server(tmp_path, listen=LISTEN, **pair.settings) as server:
        with TlsClient(server, pair.client()) as busy, TlsClient(server, pair.client()) as idle:
            assert idle.ask(head("GET /healthz HTTP/1.1")).status == 200
            request = post(BODY, server.key)
            busy.socket.sendall(request[:-5])
            assert idle.ask(head("GET /healthz HTTP/1.1")).status == 200
            server.send(signal.SIGTERM)
            assert idle.rest() == b""
            busy.socket.sendall(request[-5:])
            answer = busy.answer()
            assert (answer.status, answer.headers["Connection"]) == (200, "close")
            assert busy.rest() == b""
        assert server.wait() == 0
        assert len(server.events()) == 1


# -- certificates ----------------------------------------------------------------------------


def test_a_new_certificate_is_taken_up_and_no_connection_is_dropped(tmp_path: Path, pair: Pair) -> None:
    used = Pair(tmp_path / "used.crt", tmp_path / "used.key")
    new = certificates.make(tmp_path, "new", "rsa")
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE

    def put(certificate: Path, key: Path) -> None:
        shutil.copy(certificate, used.cert)
        shutil.copy(key, used.key)

    put(pair.cert, pair.key)
    with Server(tmp_path, listen=LISTEN, workers=2, **used.settings) as server:

        def shown() -> set[bytes]:
            found = set()
            for _ in range(20):
                with TlsClient(server, anybody) as client:
                    assert client.ask(post(BODY, server.key)).status == 200
                    found.add(client.certificate)
            return found

        with TlsClient(server, pair.client()) as older:
            before = older.certificate
            assert older.ask(post(BODY, server.key)).status == 200
            put(new.cert, pair.key)
            server.send(signal.SIGHUP)
            wait_until(lambda: server.log.count("the old one stays") == 2, "both workers refuse it")
            assert f"tls_key_file {used.key}: not the key of the certificate" in server.log
            assert shown() == {before}
            put(new.cert, new.key)
            server.send(signal.SIGHUP)
            wait_until(lambda: server.log.count("certificate loaded") == 4, "both workers take it up")
            assert shown() == {ssl.PEM_cert_to_DER_cert(new.cert.read_text())}
            assert older.ask(post(BODY, server.key)).status == 200


def test_a_certificate_that_cannot_be_used_ends_the_start(tmp_path: Path, pair: Pair) -> None:
    def problem(*flags: str) -> str:
        done = run("serve", *flags, cwd=tmp_path)
        assert done.returncode == 2
        return done.stderr

    text = tmp_path / "ingestd.toml"
    assert "tls_cert_file: name a PEM file" in problem("--listen", "tls:127.0.0.1:0")
    text.write_text(f"tls_cert_file = '{pair.cert}'\ntls_key_file = '{tmp_path}/gone'\n")
    for listen in ("tls:127.0.0.1:0", "tls:[::1]:0"):
        said = problem("--listen", "127.0.0.1:0", "--listen", listen, "--config", str(text))
        assert f"tls_key_file {tmp_path}/gone: No such file or directory" in said
    text.write_text(f"tls_cert_file = '{pair.cert}'\ntls_key_file = '{pair.key}'\n")
    said = problem("--listen", "127.0.0.1:0", "--config", str(text))
    assert f"tls_cert_file {pair.cert}: no address speaks TLS; say tls:HOST:PORT in listen" in said


@pytest.mark.parametrize("address", ["tls:", "tls:8443", "tls:127.0.0.1", "tls:127.0.0.1:x", "tls:unix:x"])
def test_an_address_that_is_none_is_told_in_a_sentence(tmp_path: Path, address: str) -> None:
    done = run("serve", "--listen", address, cwd=tmp_path)
    assert (done.returncode, done.stderr.startswith(f"ingestd: --listen {address}: say HOST:PORT")) == (
        2,
        True,
    )


# -- crowds ----------------------------------------------------------------------------------


def test_a_thousand_clients_that_never_shake_hands_hurt_nobody(tmp_path: Path, pair: Pair) -> None:
    with Server(tmp_path, listen=LISTEN, tls_handshake_timeout_s=3, **pair.settings) as server:
        port = port_of(server)
        hello = ssl.MemoryBIO()
        half = pair.client().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            half.do_handshake()
        first = hello.read()
        with ExitStack() as stack:
            crowd = []
            for number in range(CROWD):
                one = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S))
                # Nothing, a part of the first message, or all of it.
                one.sendall(first[: (0, 100, len(first))[number % 3]])
                crowd.append(one)
            with TlsClient(server, pair.client()) as client, server.client() as plain:
                for _ in range(20):
                    assert client.ask(post(BODY, server.key)).status == 200
                    assert plain.post("/v1/track", EVENT).status == 200
            # None is left to wait for ever.
            for one in crowd:
                while one.recv(10_000):
                    pass
        assert 'why="it took too long"' in server.log
        server.wait_for_log(" more were refused tls_handshake=")


def test_handshakes_count_as_connections(tmp_path: Path, pair: Pair) -> None:
    with (
        Server(tmp_path, listen=LISTEN, connections_max=10, **pair.settings) as server,
        ExitStack() as stack,
    ):
        port = port_of(server)
        crowd = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S))
            for _ in range(20)
        ]
        # The later ones are closed at once, the first are waited for.
        for one in crowd[10:]:
            assert one.recv(1) == b""
        with pytest.raises(OSError, match=r"."):
            TlsClient(server, pair.client())
        for one in crowd:
            one.close()

        def is_served() -> bool:
            try:
                with TlsClient(server, pair.client()) as client:
                    return client.ask(post(BODY, server.key)).status == 200
            except OSError:
                return False

        wait_until(is_served, "there is room again")
