"""Clients that keep their connections and send through a balancer until they are told to stop."""

from __future__ import annotations

import http.client
import itertools
import json
import ssl
import threading
import time
from types import TracebackType
from typing import Final, Self

from tests.support.server import EVENT, Answer

_ANSWER_S: Final = 60.0
_LATER_S: Final = 0.05
_EVENTS: Final = 3


class Session:
    """One connection over TLS, opened again when it has ended."""

    def __init__(self, port: int, key: str, tls: ssl.SSLContext) -> None:
        self._connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=_ANSWER_S, context=tls)
        self._key = key

    def post(self, path: str, body: object, **headers: str) -> Answer:
        """POST JSON, or bytes as they are; raises OSError or HTTPException if there is no answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json", **headers}
        try:
            self._connection.request("POST", path, data, sent)
            response = self._connection.getresponse()
            return Answer(response.status, response.msg, response.read())
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Senders:
    """Threads of clients. What gets no 200 is sent again, with the same ids, until it has one."""

    def __init__(self, port: int, key: str, tls: ssl.SSLContext, threads: int = 4) -> None:
        self._sessions = [Session(port, key, tls) for _ in range(threads)]
        self._threads = [
            threading.Thread(target=self._run, args=(number, session))
            for number, session in enumerate(self._sessions)
        ]
        self._stopped = threading.Event()
        self.sent: set[str] = set()
        self.acknowledged: set[str] = set()
        self.failures: list[object] = []
        """Answers that were no 200, and errors in their place."""

    def _run(self, number: int, session: Session) -> None:
        for turn in itertools.count():
            if self._stopped.is_set():
                return
            ids = [f"{number}-{turn}-{event}" for event in range(_EVENTS)]
            body = [EVENT | {"messageId": name} for name in ids]
            self.sent.update(ids)
            while not self._is_taken(session, body):
                if self._stopped.is_set():
                    return
                time.sleep(_LATER_S)
            self.acknowledged.update(ids)

    def _is_taken(self, session: Session, body: object) -> bool:
        try:
            answer = session.post("/v1/bulk-track", body)
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(error)
            return False
        if answer.status != 200:
            self.failures.append((answer.status, answer.body))
        return answer.status == 200

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        for session in self._sessions:
            session.close()
