"""How all workers stand, read from the shared memory: any worker can answer for all of them."""

from __future__ import annotations

from typing import Final

from ingestd.service import readiness, scoreboard
from ingestd.service.scoreboard import Row, SharedMemory

SILENT_MS: Final = 5_000
"""A loop goes round four times a second, and no request keeps it for as long as this."""


class Standing:
    """The rows of all workers, and why which of them takes no events."""

    def __init__(self, memory: SharedMemory, workers: int) -> None:
        told, places = memory.table(scoreboard.WORKERS), memory.table(scoreboard.PLACES)
        self.rows = [told.row(number) for number in range(workers)]
        self.places = [places.row(number) for number in range(workers)]

    def reasons(self) -> list[str]:
        """For each worker why it takes no events; empty if it does."""
        now_ms = scoreboard.monotonic_ms()
        return [_reason(row, place, now_ms) for row, place in zip(self.rows, self.places, strict=True)]

    def described(self) -> str:
        """What `reasons` says in one line; empty if all workers take events."""
        numbers: dict[str, list[int]] = {}
        for number, reason in enumerate(self.reasons()):
            if reason:
                numbers.setdefault(reason, []).append(number)
        return "; ".join(f"{reason} ({_who(which)})" for reason, which in numbers.items())


def _reason(row: Row, place: Row, now_ms: int) -> str:
    if not place[scoreboard.IS_UP]:
        return "not running"
    beat_ms, number = row[scoreboard.LOOP_BEAT_MS], row[scoreboard.NOT_READY]
    if not beat_ms:
        return "starting"
    if now_ms - beat_ms > SILENT_MS:
        return "not answering"
    if number != readiness.READY:
        # Of a number that an older version does not know, at least this.
        return readiness.REASONS[number] if number < len(readiness.REASONS) else "not ready"
    if place[scoreboard.IS_READY]:
        return ""
    # It is to end and does not know yet; or it is about to say that it serves.
    return "starting or draining"


def _who(numbers: list[int]) -> str:
    return f"worker{'s'[len(numbers) == 1 :]} {', '.join(map(str, numbers))}"
