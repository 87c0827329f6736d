"""A topic of Kafka, through confluent-kafka: `acks=all`, with an idempotent producer (KIP-98).

librdkafka tries again by itself for as long as it lives, and the brokers know its numbers, so
nothing is doubled or changes places while this process runs. A new process is a new producer: what
was on its way when the one before ended may be there twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from ingestd.errors import UsageError, extra_missing
from ingestd.eventlog.address import Address
from ingestd.eventlog.log import LogError, Lost, Message, require_fitting
from ingestd.eventlog.messages import MESSAGE_ID

_NO_BOUND_KBYTES: Final = 2**31 - 1
"""Whoever puts has bounds of its own: a commit, or a megabyte."""
_WAIT_S: Final = 0.1
"""So soon a stop is heard."""
_OURS: Final = frozenset(
    (
        *("bootstrap.servers", "metadata.broker.list", "acks", "request.required.acks", "enable.idempotence"),
        *("message.timeout.ms", "delivery.timeout.ms", "message.max.bytes", "transactional.id"),
        *("queue.buffering.max.messages", "queue.buffering.max.kbytes"),
        *("delivery.report.only.error", "default.topic.config", "logger"),
    )
)
"""Properties that carry what is promised."""
_SECONDARY: Final = ("_ALL_BROKERS_DOWN",)
"""Says less than what came before it."""
_WORDS: Final = {
    "_ALL_BROKERS_DOWN": "no broker can be reached",
    "_TRANSPORT": "a broker cannot be reached, or has cut the connection",
    "_RESOLVE": "the name of a broker is not known",
    "_AUTHENTICATION": "the brokers do not take the credentials: see sasl.… in kafka_config_file",
    "_SSL": "TLS has failed: see ssl.… and security.protocol in kafka_config_file",
    "_TIMED_OUT": "the brokers have not answered in time",
    "_UNKNOWN_TOPIC": "there is no such topic: make it",
    "UNKNOWN_TOPIC_OR_PART": "there is no such topic: make it",
    "TOPIC_AUTHORIZATION_FAILED": "the credentials do not allow writing to the topic",
    "CLUSTER_AUTHORIZATION_FAILED": "the credentials do not allow idempotent writing",
    "NOT_ENOUGH_REPLICAS": "too few brokers are in sync (min.insync.replicas)",
    "NOT_ENOUGH_REPLICAS_AFTER_APPEND": "too few brokers are in sync (min.insync.replicas)",
    "MSG_SIZE_TOO_LARGE": "the topic takes no message of this size: raise its max.message.bytes, or lower "
    "message_bytes_max",
}
"""What librdkafka's words mean to whoever runs this; its own texts may quote what they are about."""


def properties(path: Path) -> dict[str, str]:
    """librdkafka's properties of a file, `name=value` a line, `#` before a comment. Raises UsageError.

    No value is in an error's text: some are secrets.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8"
        raise UsageError(f"kafka_config_file: {path}: {reason}; name a readable file of properties") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, is_there, value = (part.strip() for part in text.partition("="))
        if not is_there or not name:
            raise UsageError(f"{path}: line {number}: say name=value")
        if name in _OURS or name.endswith("_cb"):
            raise UsageError(f"{path}: line {number}: {name} is ingestd's to set")
        found[name] = value
    return found


class Kafka:
    """One topic. Used by one thread, but for `close`."""

    def __init__(self, address: Address, config: dict[str, str], message_bytes_max: int) -> None:
        """`config` are more properties of librdkafka. Raises UsageError."""
        try:
            import confluent_kafka
        except ModuleNotFoundError as e:
            raise extra_missing("Kafka", "kafka", e) from None
        self._api: Any = confluent_kafka
        self._topic = address.name
        self._message_bytes_max = message_bytes_max
        self._config: dict[str, Any] = {
            "client.id": "ingestd",
            "compression.type": "lz4",
            "linger.ms": 5,
            # Its own lines would have no end while a broker is away; what matters comes by the callbacks.
            "log_level": 0,
            **config,
            "bootstrap.servers": ",".join(address.servers),
            "enable.idempotence": True,
            "acks": "all",
            "message.max.bytes": message_bytes_max,
            # For as long as this process lives: given up, a message could be doubled by being put again.
            "message.timeout.ms": 0,
            "queue.buffering.max.messages": 0,
            "queue.buffering.max.kbytes": _NO_BOUND_KBYTES,
            "delivery.report.only.error": True,
            "on_delivery": self._undelivered,
            "error_cb": self._has_failed,
        }
        self._pending: list[Message] = []
        self._refused: list[bytes] = []
        """Values of messages that the brokers have refused for good."""
        self._reason = ""
        self._is_fatal = False
        self._is_closed = False
        self._producer = self._made()

    def _made(self) -> Any:
        try:
            return self._api.Producer(self._config)
        except self._api.KafkaException as e:
            # It names a property, and quotes no value but those of properties that have few.
            raise UsageError(f"kafka_config_file: {e.args[0].str()}") from None
        except (TypeError, ValueError, AttributeError) as e:
            raise UsageError(f"kafka_config_file: not what librdkafka takes ({type(e).__name__})") from None

    def put(self, messages: Sequence[Message]) -> None:
        require_fitting(messages, self._message_bytes_max)
        self._pending += messages
        self._produce(messages)

    def _produce(self, messages: Sequence[Message]) -> None:
        produce, topic = self._producer.produce, self._topic
        for message in messages:
            headers = [(MESSAGE_ID, message.message_id.encode()), *message.headers]
            if self._is_closed:
                raise LogError("it was stopped")
            try:
                produce(topic, message.value, key=message.key, headers=headers)
            except BufferError:
                self._reason = "librdkafka has no room for what is put"
                self._renew()
            except self._api.KafkaException as e:
                self._has_failed(e.args[0])
                if self._is_fatal:
                    self._renew()
                self._refused.append(message.value)

    def settle(self, timeout_s: float) -> None:
        if self._refused:
            with suppress(LogError):
                # librdkafka refuses by itself what was refused once, until it has heard of the topic again.
                self.probe(min(timeout_s, 1.0))
            refused, self._refused = set(self._refused), []
            self._produce([message for message in self._pending if message.value in refused])
        until = time.monotonic() + timeout_s
        while True:
            left = self._producer.flush(_WAIT_S)
            if self._is_fatal:
                self._renew()
            if not left:
                break
            if self._is_closed:
                raise LogError("it was stopped")
            if time.monotonic() >= until:
                raise LogError(self._reason or _WORDS["_TIMED_OUT"])
        if self._refused:
            raise LogError(self._reason)
        self._pending.clear()
        self._reason = ""

    def _renew(self) -> None:
        """Go on with another producer: this one's numbers have come to nothing. Raises Lost."""
        reason = self._reason
        self.forget()
        try:
            self._producer, self._is_fatal = self._made(), False
        except UsageError as e:
            # A file that it names has gone, perhaps.
            reason = str(e)
        raise Lost(reason)

    def forget(self) -> None:
        self._producer.purge()
        self._producer.flush(_WAIT_S)
        self._pending.clear()
        self._refused.clear()

    def probe(self, timeout_s: float) -> None:
        try:
            topic = self._producer.list_topics(self._topic, timeout_s).topics[self._topic]
        except self._api.KafkaException as e:
            self._producer.poll(0)
            raise LogError(self._reason or self._worded(e.args[0])) from None
        if topic.error is not None:
            raise LogError(self._worded(topic.error))

    def close(self) -> None:
        self._is_closed = True

    def _undelivered(self, error: Any, message: Any) -> None:
        """Called from `poll` and `flush`, for what librdkafka gives up only."""
        if error.code() not in (self._api.KafkaError._PURGE_QUEUE, self._api.KafkaError._PURGE_INFLIGHT):
            self._reason = self._worded(error)
            self._refused.append(message.value())

    def _has_failed(self, error: Any) -> None:
        self._is_fatal = self._is_fatal or error.fatal()
        if not self._reason or error.name() not in _SECONDARY:
            self._reason = self._worded(error)

    def _worded(self, error: Any) -> str:
        return f"{_WORDS.get(error.name(), 'the brokers have refused it')} ({error.name()})"
