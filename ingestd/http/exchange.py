"""A request on its way to its answer.

A request is answered when its batch is acknowledged, perhaps after later ones have been read; the
connection keeps its exchanges in order, and answers leave only from the front.
"""

from __future__ import annotations

from typing import Final, Protocol

from ingestd.errors import Rejection, StorageError, internal
from ingestd.events import MANY, Batch
from ingestd.http import responses
from ingestd.http.calls import Call

_CLOSE: Final = responses.connection_line(keep_alive=False, is_http10=False)


class Answerer(Protocol):
    """Writes answers in their order."""

    def flush(self) -> None:
        """Some exchange has got its answer."""


class Exchange:
    """One request; `answer` is None until it is known."""

    __slots__ = ("_answerer", "_batch", "_call", "answer", "keep_alive")

    def __init__(self, answerer: Answerer, call: Call | None, *, keep_alive: bool) -> None:
        """`call` is None for a request that did not become one."""
        self.answer: bytes | None = None
        self.keep_alive = keep_alive
        self._answerer = answerer
        self._call = call
        self._batch: Batch | None = None

    def expect(self, batch: Batch) -> None:
        """The batch whose acknowledgement is the answer."""
        self._batch = batch
        batch.ack = self.acknowledge

    def acknowledge(self, error: StorageError | None) -> None:
        """The batch is kept, or storage failed: answer."""
        self.settle(error)
        self._answerer.flush()

    def settle(self, error: StorageError | None) -> None:
        """Know the answer, but do not write it yet."""
        batch, self._batch = self._batch, None
        assert batch is not None
        if error is not None:
            self.reject(internal("storage_failed"))
        elif self._call is not None and self._call.form is MANY:
            self.answer = responses.stored_many(batch.message_ids, self._line())
        else:
            self.answer = responses.stored_one(batch.message_ids[0], self._line())

    def reject(self, rejection: Rejection, *, is_head: bool = False) -> None:
        """The answer is an error."""
        self.answer = responses.rejected(rejection, self._line(), is_head=is_head)

    def confirm(self, *, is_head: bool) -> None:
        """The answer is that all is well: /healthz, /readyz."""
        self.answer = responses.probe(200, b'{"status":"ok"}', self._line(), is_head=is_head)

    def _line(self) -> bytes:
        return self._call.keep_alive_line if self.keep_alive and self._call is not None else _CLOSE
