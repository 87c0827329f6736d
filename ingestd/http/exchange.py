"""A request on its way to its answer.

A request is answered when its batch is acknowledged, perhaps after later ones have been read; the
connection keeps its exchanges in order, and answers leave only from the front.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from ingestd.errors import Rejection, internal
from ingestd.forms import ONE
from ingestd.http import responses
from ingestd.http.calls import Asked, Call

log = logging.getLogger("ingestd.http")


class Answerer(Protocol):
    """Writes answers in their order."""

    def flush(self) -> None:
        """Some exchange has got its answer."""

    def end_after(self, exchange: Exchange, rejection: Rejection) -> None:
        """The answer of this exchange will be an error, and the last one."""


class Exchange(Struct, gc=False, eq=False):
    """One request; `answer` is None until it is known. A Struct, for it is made for every request."""

    answerer: Answerer
    call: Call | None
    """None for a request that did not become one."""
    keep_alive: bool
    answer: bytes | None = None
    """Nothing (b"") if a request before it has ended the connection: then it must not be stored."""

    @property
    def asked(self) -> Asked:
        """What it was for."""
        return self.call.asked if self.call is not None else Asked()

    def accept(self, message_ids: list[str], start: bytes, invalid: Sequence[object] = ()) -> None:
        """The answer is 200, with these ids if it names any, and what was set aside.

        `start` is `responses.stored_start` of their commit.
        """
        form = self.call.form if self.call is not None else ONE
        if form is ONE or form is None:
            self.accept_one(message_ids[0], start)
        elif form.answers_ids:
            self.answer = responses.stored_many(message_ids, start, self._line(), invalid)
        else:
            self.answer = responses.success(start, self._line())

    def accept_one(self, message_id: str, start: bytes) -> None:
        """The same for one event."""
        self.answer = responses.stored_one(message_id, start, self._line())

    def reject(self, rejection: Rejection) -> None:
        """The answer is an error, and the last one: what follows an error is not read as a request."""
        if self.answer is not None:
            # An error before it has ended the connection already.
            return
        self.keep_alive = False
        self.answer = responses.rejected(rejection, self._line(), is_head=self._is_head())
        self.answerer.end_after(self, rejection)

    def fail(self, error: Exception) -> None:
        """The answer is the Rejection, or for a bug 500."""
        if not isinstance(error, Rejection):
            log.error("bug while serving a request", exc_info=error)
            error = internal("bug")
        self.reject(error)

    def show(self, call: Call) -> None:
        """The answer is the page that is asked for. Raises Rejection."""
        assert call.show is not None
        page = call.show()
        self.answer = responses.page(page.body, page.content_type, self._line(), is_head=self._is_head())

    def _is_head(self) -> bool:
        return self.call is not None and self.call.is_head

    def _line(self) -> bytes:
        if self.call is None:
            return responses.CLOSE
        return self.call.keep_alive_line if self.keep_alive else self.call.close_line
