"""The budget of bytes in flight against a model: first come, first served, and nothing is lost."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from ingestd.http.budget import Budget
from tests.http.test_splits import UNHURRIED


class Body:
    """Holds what it was given; waits while it wants more."""

    def __init__(self, granted: list[Body]) -> None:
        self.held = 0
        self.wanted_bytes: int | None = None
        self._granted = granted

    def granted(self) -> None:
        assert self.wanted_bytes is not None
        self.held += self.wanted_bytes
        self.wanted_bytes = None
        self._granted.append(self)


class BudgetMachine(RuleBasedStateMachine):
    """Bodies come, wait, are granted, grow and go in any order."""

    bodies = Bundle("bodies")

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(1000)
        self.all: list[Body] = []
        self.queue: list[Body] = []
        """Those that wait, in the order of their coming."""
        self.granted: list[Body] = []

    @rule(target=bodies, size=st.integers(0, 1000))
    def large(self, size: int) -> Body:
        body = Body(self.granted)
        self.all.append(body)
        if self.budget.has_room(size):
            assert not self.queue
            self.budget.take(size)
            body.held = size
        else:
            body.wanted_bytes = size
            self.queue.append(body)
            self.budget.wait(body)
        return body

    @rule(target=bodies, size=st.integers(0, 100))
    def small(self, size: int) -> Body:
        body = Body(self.granted)
        self.all.append(body)
        body.held = size
        assert self.budget.take(size) is (sum(one.held for one in self.all) <= 1000)
        return body

    @rule(body=bodies, size=st.integers(0, 50))
    def grow(self, body: Body, size: int) -> None:
        self.budget.take(size)
        body.held += size

    @rule(body=consumes(bodies))
    def end(self, body: Body) -> None:
        """Answered, refused or gone: it wants nothing any more, and gives back what it holds."""
        body.wanted_bytes = None
        held, body.held = body.held, 0
        self.all.remove(body)
        if body in self.queue:
            self.queue.remove(body)
        self.budget.give(held)

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        # Whoever was granted had waited longest,
        assert self.granted == self.queue[: len(self.granted)]
        del self.queue[: len(self.granted)]
        self.granted.clear()
        # what is taken is what is held,
        assert self.budget.bytes == sum(body.held for body in self.all)
        # and nobody waits for what is there.
        if self.queue:
            wanted = self.queue[0].wanted_bytes
            assert wanted is not None
            assert self.budget.bytes
            assert self.budget.bytes + wanted > 875


BudgetMachine.TestCase.settings = settings(UNHURRIED, max_examples=100, stateful_step_count=30)
TestBudget = BudgetMachine.TestCase
