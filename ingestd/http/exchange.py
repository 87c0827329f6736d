"""A request on its way to its answer.

A request is answered when its batch is acknowledged, perhaps after later ones have been read; the
connection keeps its exchanges in order, and answers leave only from the front.
"""

from __future__ import annotations

import logging
from typing import Final, Protocol

from ingestd.errors import Rejection, internal
from ingestd.events import MANY
from ingestd.http import responses
from ingestd.http.calls import Call

log = logging.getLogger("ingestd.http")

_CLOSE: Final = responses.connection_line(keep_alive=False, is_http10=False)


class Answerer(Protocol):
    """Writes answers in their order."""

    def flush(self) -> None:
        """Some exchange has got its answer."""


class Exchange:
    """One request; `answer` is None until it is known."""

    __slots__ = ("_answerer", "_call", "answer", "keep_alive")

    def __init__(self, answerer: Answerer, call: Call | None, *, keep_alive: bool) -> None:
        """`call` is None for a request that did not become one."""
        self.answer: bytes | None = None
        self.keep_alive = keep_alive
        self._answerer = answerer
        self._call = call

    def accept(self, message_ids: list[str]) -> None:
        """The answer is 200 with these ids."""
        if self._call is not None and self._call.form is MANY:
            self.answer = responses.stored_many(message_ids, self._line())
        else:
            self.answer = responses.stored_one(message_ids[0], self._line())

    def reject(self, rejection: Rejection, *, is_head: bool = False) -> None:
        """The answer is an error."""
        self.answer = responses.rejected(rejection, self._line(), is_head=is_head)

    def fail(self, error: Exception, *, is_head: bool = False) -> None:
        """The answer is the Rejection, or for a bug 500; after a bug the connection is not trusted."""
        if not isinstance(error, Rejection):
            log.error("bug while serving a request", exc_info=error)
            self.keep_alive = False
            error = internal("bug")
        self.reject(error, is_head=is_head)

    def confirm(self, *, is_head: bool) -> None:
        """The answer is that all is well: /healthz, /readyz."""
        self.answer = responses.probe(200, b'{"status":"ok"}', self._line(), is_head=is_head)

    def flush(self) -> None:
        """The answer is known: write it when its turn has come."""
        self._answerer.flush()

    def _line(self) -> bytes:
        return self._call.keep_alive_line if self.keep_alive and self._call is not None else _CLOSE
