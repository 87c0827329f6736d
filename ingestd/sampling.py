"""How much of what happens again and again is said: so many a second, and of every kind at least one."""

from __future__ import annotations


class Sampler:
    """Lets happenings pass within a rate, and counts by kind those that it leaves out."""

    __slots__ = ("_per_s", "_seen", "_window_ends_at", "left_out")

    def __init__(self, per_s: int) -> None:
        """Beside the first of each kind, `per_s` pass in a second."""
        self._per_s = per_s
        self._window_ends_at = 0.0
        self._seen: dict[str, int] = {}
        self.left_out: dict[str, int] = {}
        """How many of which kind have not passed since this was last emptied."""

    def passes(self, kind: str, now: float) -> bool:
        """True if this one is to be told of; `kind` is one of few."""
        if now >= self._window_ends_at:
            self._window_ends_at = now + 1
            self._seen.clear()
        seen = self._seen
        if kind not in seen or sum(seen.values()) - len(seen) < self._per_s:
            seen[kind] = seen.get(kind, 0) + 1
            return True
        self.left_out[kind] = self.left_out.get(kind, 0) + 1
        return False

    def take_left_out(self, now: float) -> dict[str, int]:
        """What has been left out by the end of the last second, once; empty while that second goes on."""
        if not self.left_out or now < self._window_ends_at:
            return {}
        taken, self.left_out = self.left_out, {}
        return taken
