"""The second home of a commit, with `ack = replicated`: a log that acknowledges it before it is written here.

While the log is away it is asked again about once a second, and events get 429 or, by setting, are kept
with `fsync` alone. Without it nothing waits for a timeout but the commit that found out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from ingestd import metrics
from ingestd.config import AckLevel, Settings
from ingestd.errors import Unreplicated, UsageError
from ingestd.eventlog.address import Address, address
from ingestd.eventlog.connect import connect
from ingestd.eventlog.log import EventLog, LogError
from ingestd.eventlog.messages import Messages
from ingestd.events import Batch
from ingestd.metrics import Histogram

log = logging.getLogger("ingestd.replica")

_PROBE_S: Final = 1.0
_REST_S_MAX: Final = 60.0
_TRY_PART: Final = 10
"""Where commits do without the log, trying it takes this part of the time at most."""


class Replica:
    """The flusher's thread owns it; others read its numbers."""

    def __init__(
        self,
        settings: Settings,
        event_log: EventLog,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises UsageError that names the setting."""
        self.problem = "the log has not been asked yet"
        """Why it takes nothing; empty if it took the last commit."""
        self.failures = 0
        """Commits that it has not acknowledged."""
        self.events_fallen_back = 0
        """Events whose commits went without it."""
        self.took_ns = Histogram(metrics.LATENCIES_NS)
        """Until a commit was acknowledged."""
        self._log = event_log
        self._messages = Messages(settings.message_key, settings.message_headers)
        self._timeout_s = settings.replicate_timeout_s
        self._falls_back = settings.replicate_fallback == "fsync"
        self._clock = clock
        self._probe_at = 0.0
        self._failed_in_row = 0
        """Commits; a probe that goes well does not end the row."""

    @property
    def refuses(self) -> bool:
        """True if events get 429."""
        return bool(self.problem) and not self._falls_back

    def send(self, batches: list[Batch]) -> AckLevel:
        """Have them there; how they are to be kept here. Raises Unreplicated."""
        self.look()
        if not self.problem and self._sent(batches):
            return "replicated"
        if not self._falls_back:
            # What the log says is for the operator: it is in the server's log, and at /readyz.
            raise Unreplicated("the log does not acknowledge: send it again later")
        self.events_fallen_back += sum(batch.events for batch in batches)
        return "fsync"

    def _sent(self, batches: list[Batch]) -> bool:
        started = self._clock()
        try:
            for batch in batches:
                self._log.put(self._messages.of(batch.lines))
            self._log.settle(self._timeout_s)
        except LogError as e:
            # It may have them, or get them yet; nobody was told so.
            self._log.forget()
            self.failures += 1
            self._failed_in_row += 1
            self._note(str(e))
            self._rest(started)
            return False
        except BaseException:
            self._log.forget()
            raise
        self.took_ns.observe(int((self._clock() - started) * 1e9))
        self._failed_in_row = 0
        return True

    def look(self) -> None:
        """If it was away, ask if it is there again, but not too often."""
        started = self._clock()
        if not self.problem or started < self._probe_at:
            return
        try:
            self._log.probe(_PROBE_S)
        except LogError as e:
            self._note(str(e))
        else:
            self._note("")
        self._rest(started)

    def _rest(self, started: float) -> None:
        """Ask again in a second; later, the more often it has answered and then has not taken a commit."""
        now = self._clock()
        rest_s = _PROBE_S * 2.0 ** max(0, min(self._failed_in_row, 10) - 1)
        if self._falls_back:
            rest_s = max(rest_s, _TRY_PART * (now - started))
        self._probe_at = now + min(_REST_S_MAX, rest_s)

    def close(self) -> None:
        """End what it holds."""
        self._log.close()

    def _note(self, problem: str) -> None:
        """Remember how it is, and say so when that changes."""
        if problem and problem != self.problem:
            outcome = "events are kept with ack = fsync" if self._falls_back else "events get 429"
            log.error("the log does not acknowledge, %s: %s", outcome, problem)
        elif self.problem and not problem:
            log.info("the log acknowledges")
        self.problem = problem


def required(settings: Settings) -> Address | None:
    """The log that the ack level needs, if it needs one. Raises UsageError."""
    if settings.ack != "replicated":
        return None
    if not settings.replicate_to:
        raise UsageError("ack = replicated needs replicate_to, such as kafka://HOST:PORT/TOPIC")
    return address(settings.replicate_to, "replicate_to")


def check(settings: Settings, environ: Mapping[str, str]) -> None:
    """See that a worker could have one. Raises UsageError."""
    found = replica(settings, environ)
    if found is not None:
        found.close()


def replica(settings: Settings, environ: Mapping[str, str]) -> Replica | None:
    """What the ack level needs; the log need not be there yet. Raises UsageError."""
    place = required(settings)
    return None if place is None else Replica(settings, connect(place, settings, environ))
