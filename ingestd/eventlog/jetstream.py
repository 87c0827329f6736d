"""A stream of NATS JetStream, through nats-py: each message is acknowledged, and known again by its id.

`Nats-Msg-Id` is the event's messageId: what is sent again within the stream's duplicate window is stored
once, whoever sends it. So whatever has not been acknowledged in time is sent again, on another
connection if need be. nats-py's own publish_async takes three times the CPU (24 against 8 µs a message,
measured); acknowledgements are counted here instead, by the subject that they come to.

nats-py lives on a loop, and must answer the server's pings while nothing is sent: it has a thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import re
import ssl
import threading
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from ingestd.errors import UsageError, extra_missing
from ingestd.eventlog.address import CREDENTIALS, Address
from ingestd.eventlog.log import LogError, Message, require_fitting

_CHUNK: Final = 500
_IN_FLIGHT_MAX: Final = 2000
"""Messages on their way; a stream that is replicated falls behind more of them."""
_STALL_S: Final = 2.0
"""Without any acknowledgement: the server may be frozen, or the stream's leader be gone."""
_AGAIN_S: Final = 0.1
_CONNECT_S: Final = 2
_PING_S: Final = 10
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")
_NO_RESPONDERS: Final = "503"
_WORDS: Final = {
    # nats-server, errors.json.
    10077: "the stream is full (maximum bytes exceeded): make room, or raise its limits",
    10047: "the cluster has no storage left for the stream",
    10023: "the cluster has no resources left for the stream",
    10076: "JetStream is not enabled for the account",
    10039: "JetStream is not enabled for the account",
    10054: "the stream takes no message of this size: raise its max_msg_size, or lower message_bytes_max",
}


class _Ack(msgspec.Struct):
    """What a stream answers (NATS ADR-1, PubAck)."""

    stream: str = ""
    seq: int = 0
    """Its place there. Old servers say 0 for a repeat of what is not agreed on yet: it may be lost still."""
    error: dict[str, Any] | None = None


class JetStream:
    """The stream that takes one subject. Used by one thread, but for `close`."""

    def __init__(self, address: Address, environ: Mapping[str, str], message_bytes_max: int) -> None:
        """`environ` has the credentials, by the names that the `nats` command knows. Raises UsageError."""
        try:
            import nats
        except ModuleNotFoundError as e:
            raise extra_missing("NATS", "nats", e) from None
        self._nats: Any = nats
        self._address = address
        self._options = _options(environ)
        self._message_bytes_max = message_bytes_max
        self._decoder = msgspec.json.Decoder(_Ack)
        self._unacked: dict[int, Message] = {}
        """What is pending, by numbers that are never used again."""
        self._number = 0
        self._in_flight: set[int] = set()
        self._reason = ""
        self._client: Any = None
        self._inbox = ""
        self._moved = asyncio.Event()
        """An answer has come, or the connection has gone."""
        self._loop = asyncio.new_event_loop()
        self._calls: set[concurrent.futures.Future[None]] = set()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="nats", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def put(self, messages: Sequence[Message]) -> None:
        require_fitting(messages, self._message_bytes_max)
        self._call(self._put(messages))

    async def _put(self, messages: Sequence[Message]) -> None:
        first, self._number = self._number, self._number + len(messages)
        self._unacked.update(enumerate(messages, first))

    def settle(self, timeout_s: float) -> None:
        self._call(self._settle(timeout_s))

    def forget(self) -> None:
        self._call(self._forget())

    async def _forget(self) -> None:
        self._unacked.clear()

    def probe(self, timeout_s: float) -> None:
        self._call(self._probe(timeout_s))

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        for call in list(self._calls):
            call.cancel()
        with suppress(concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            asyncio.run_coroutine_threadsafe(self._disconnect(), self._loop).result(_CONNECT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CONNECT_S)

    def _call(self, what: Coroutine[Any, Any, None]) -> None:
        """Run it on the thread of nats-py. Raises LogError."""
        if self._is_closed:
            what.close()
            raise LogError("it was stopped")
        call = asyncio.run_coroutine_threadsafe(what, self._loop)
        self._calls.add(call)
        try:
            call.result()
        except concurrent.futures.CancelledError:
            raise LogError("it was stopped") from None
        finally:
            self._calls.discard(call)

    async def _settle(self, timeout_s: float) -> None:
        until = self._loop.time() + timeout_s
        try:
            async with asyncio.timeout_at(until):
                while self._unacked:
                    await self._send()
                    if self._unacked:
                        await asyncio.sleep(_AGAIN_S)
        except TimeoutError:
            raise LogError(self._reason or "the stream has not acknowledged in time") from None
        self._reason = ""

    async def _send(self) -> None:
        """Send what is not acknowledged, once, and wait for the answers as long as there are some."""
        try:
            client = await self._connected()
            self._in_flight.clear()
            waiting = list(self._unacked)
            for start in range(0, len(waiting), _CHUNK):
                for number in waiting[start : start + _CHUNK]:
                    message = self._unacked.get(number)
                    if message is not None:
                        self._in_flight.add(number)
                        await client.publish(
                            self._address.name, message.value, f"{self._inbox}.{number}", _headers(message)
                        )
                await self._answered(_IN_FLIGHT_MAX)
            await self._answered(0)
        except Exception as e:
            # Its parser, nkeys and the rest have errors of their own; none may end a thread.
            if not self._reason or not isinstance(e, self._nats.errors.NoServersError):
                # What every one of the servers has said is known already.
                self._reason = self._described(e)
            await self._disconnect()

    async def _answered(self, left_max: int) -> None:
        """Wait until no more than so many are on their way. Raises TimeoutError."""
        while len(self._in_flight) > left_max:
            self._moved.clear()
            if self._client is None or not self._client.is_connected:
                raise ConnectionError
            await asyncio.wait_for(self._moved.wait(), _STALL_S)

    async def _hear(self, answer: Any) -> None:
        """An acknowledgement, or an error in its place."""
        number = int(answer.subject.rpartition(".")[2])
        problem = ""
        if answer.headers and answer.headers.get("Status") == _NO_RESPONDERS:
            problem = f"no stream takes {self._address.name}: make one, such as 'nats stream add'"
        else:
            try:
                ack = self._decoder.decode(answer.data)
                if ack.error:
                    problem = _refusal(ack.error)
                elif not ack.stream or ack.seq < 1:
                    problem = "the stream has not agreed on it yet"
            except (msgspec.DecodeError, UnicodeDecodeError):
                problem = f"what answers for {self._address.name} is no stream"
        if problem:
            self._reason = problem
        else:
            self._unacked.pop(number, None)
        self._in_flight.discard(number)
        self._moved.set()

    async def _connected(self) -> Any:
        """The client, connected. Raises what nats-py raises."""
        if self._client is not None and self._client.is_connected:
            return self._client
        await self._disconnect()
        self._reason = ""
        client = self._client = self._nats.NATS()
        try:
            await self._connect(client)
        except BaseException:
            # Its socket is left open otherwise, also when it was the time that was over.
            await self._disconnect()
            raise
        return client

    async def _connect(self, client: Any) -> None:
        await client.connect(
            servers=[f"nats://{server}" for server in self._address.servers],
            name="ingestd",
            # What has to be sent again is known here only; another server is found by connecting anew.
            allow_reconnect=False,
            # Each server is tried twice, without a rest: how long to go on is for `settle` to say.
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=_CONNECT_S,
            ping_interval=_PING_S,
            error_cb=self._has_failed,
            disconnected_cb=self._has_gone,
            closed_cb=self._has_gone,
            **self._options,
        )
        if client.max_payload < self._message_bytes_max:
            raise LogError(
                f"max_payload of the servers is {client.max_payload}: lower message_bytes_max to that"
            )
        self._inbox = client.new_inbox()
        await client.subscribe(f"{self._inbox}.*", cb=self._hear)

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                await asyncio.wait_for(client.close(), _CONNECT_S)

    async def _has_gone(self) -> None:
        self._moved.set()

    async def _has_failed(self, error: Exception) -> None:
        self._reason = self._described(error)

    async def _probe(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                client = await self._connected()
                jetstream = client.jetstream(timeout=timeout_s)
                name = await jetstream.find_stream_name_by_subject(self._address.name)
                # The name is known to all; only the one that leads the stream answers this.
                await jetstream.stream_info(name)
        except Exception as e:
            raise LogError(self._described(e)) from None

    def _described(self, error: BaseException) -> str:
        """In our own words: those of a server may quote anything."""
        errors = self._nats.errors
        if isinstance(error, LogError):
            return str(error)
        if isinstance(error, self._nats.js.errors.NotFoundError):
            return f"no stream takes {self._address.name}: make one, such as 'nats stream add'"
        if "permissions violation" in str(error).lower():
            return f"the credentials do not allow to publish to {self._address.name}, or to hear the answers"
        if isinstance(error, errors.AuthorizationError) or "authorization" in str(error).lower():
            return f"the server does not take the credentials: see {CREDENTIALS['nats']}"
        if isinstance(error, ssl.SSLError):
            reason = error.reason or type(error).__name__
            return f"TLS has failed ({reason}): see NATS_CA, NATS_CERT and NATS_KEY"
        if isinstance(error, errors.NoServersError | ConnectionError | errors.ConnectionClosedError):
            return "no server can be reached, or the connection was cut"
        if isinstance(error, TimeoutError | errors.TimeoutError):
            return "the stream has not acknowledged in time"
        return f"the server has refused it ({type(error).__name__})"


def _refusal(error: Mapping[str, Any]) -> str:
    code = error.get("err_code")
    return f"{_WORDS.get(code, 'the stream has refused it') if isinstance(code, int) else 'refused'} ({code})"


def _options(environ: Mapping[str, str]) -> dict[str, Any]:
    """What nats-py is told beside where to connect. Raises UsageError."""
    names = {"user": "NATS_USER", "password": "NATS_PASSWORD", "token": "NATS_TOKEN"}
    files = {"user_credentials": "NATS_CREDS", "nkeys_seed": "NATS_NKEY"}
    for name in files.values():
        if environ.get(name):
            _require_readable(name, environ[name])
    names |= files
    found: dict[str, Any] = {option: environ[name] for option, name in names.items() if environ.get(name)}
    ca, cert, key = (environ.get(name, "") for name in ("NATS_CA", "NATS_CERT", "NATS_KEY"))
    if ca or cert or key:
        try:
            context = ssl.create_default_context(cafile=ca or None)
            if cert:
                context.load_cert_chain(cert, key or None)
        except (OSError, ssl.SSLError) as e:
            reason = e.strerror if isinstance(e, OSError) and e.strerror else type(e).__name__
            raise UsageError(f"NATS_CA, NATS_CERT and NATS_KEY: {reason}; name files in PEM") from None
        found["tls"] = context
    return found


def _require_readable(name: str, path: str) -> None:
    """Raises UsageError if the file, or what signs with it, is not there."""
    try:
        import nkeys  # noqa: F401

        with open(path, "rb"):
            pass
    except ModuleNotFoundError as e:
        raise extra_missing(name, "nats", e) from None
    except OSError as e:
        raise UsageError(f"{name}: {e.strerror}; name a readable file") from None


def _headers(message: Message) -> dict[str, str]:
    """With the id that the stream knows repeats by."""
    found = {name: _CONTROLS.sub(" ", value.decode()) for name, value in message.headers}
    if message.message_id:
        found["Nats-Msg-Id"] = message.message_id
    return found
