"""What is asked of a log, whichever it is: take messages in order, and say when all of them are safe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from ingestd.config import MESSAGE_HEAD_BYTES_MAX

_OVERHEAD_BYTES: Final = 64
"""What the protocols add to a message and to each header is less."""


class LogError(Exception):
    """The log has refused, or has not acknowledged in time: the text says why. It may have taken some."""

    is_lost: bool = False
    """True if nobody knows any more what of it was taken: it must be put again."""


class Lost(LogError):
    """The log's client cannot go on with what was put."""

    is_lost = True


class TooLarge(LogError):
    """A message is larger than `message_bytes_max`. Nothing of what was put with it is sent."""

    is_lost = True


class Message(NamedTuple):
    """One event, and what a log is told of it."""

    value: bytes
    """Its line, without the line break."""
    message_id: str
    key: bytes | None
    """Events of one key stay in order, in Kafka's partitions; None: there is none."""
    headers: list[tuple[str, bytes]]

    @property
    def size(self) -> int:
        """Bytes of all of it; not less than what a log counts."""
        told = sum(len(name) + len(value) + _OVERHEAD_BYTES for name, value in self.headers)
        return len(self.value) + len(self.key or b"") + len(self.message_id) + told + _OVERHEAD_BYTES


def require_fitting(messages: Sequence[Message], message_bytes_max: int) -> None:
    """Raises TooLarge if one of them is larger than that."""
    for message in messages:
        if (
            len(message.value) + MESSAGE_HEAD_BYTES_MAX > message_bytes_max
            and message.size > message_bytes_max
        ):
            raise TooLarge(
                f"the event {message.message_id!r} makes a message of {message.size} bytes; "
                f"message_bytes_max is {message_bytes_max}"
            )


class EventLog(Protocol):
    """One topic or stream. What is put is *pending* until `settle` returns; used by one thread."""

    def put(self, messages: Sequence[Message]) -> None:
        """Have them sent, after what is pending. Raises LogError."""
        ...

    def settle(self, timeout_s: float) -> None:
        """Return when the log has acknowledged all that is pending.

        Raises LogError if it does not in that time; then it is still pending, unless the error says
        that it is lost, and the next call goes on with it.
        """
        ...

    def forget(self) -> None:
        """Nobody waits for what is pending any more; the log may have taken it or take it yet."""
        ...

    def probe(self, timeout_s: float) -> None:
        """See that the log answers and has a place for messages. Raises LogError."""
        ...

    def close(self) -> None:
        """End, soon, on any thread; a call that waits raises LogError."""
        ...
