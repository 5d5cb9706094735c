"""A circuit breaker. Pure: `now` is passed in, in seconds.

    closed ──too many of the last calls failed──▶ open ──its pause is over──▶ half open ──all trials went well──▶ closed
                                                   ▲                            │
                                                   └────one of them failed──────┘  for twice as long

Failures are counted over a sliding window of ten steps. What was admitted in one state says nothing in a later one:
each call has the number of the state that admitted it.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

_STEPS = 10


class Rule(NamedTuple):
    """When a breaker opens, and for how long."""

    window: float  # seconds that it looks back
    least: int  # calls in the window, below which nothing is concluded
    share: float  # of them that must have failed, 0 to 1
    pause: float  # seconds that it is open, the first time
    longest_pause: float  # seconds; every trial that fails doubles the pause up to this
    trials: int  # calls that may be tried at once when it is half open, and must all go well


class State(Enum):
    """Of a breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half open"


class Breaker:
    """One breaker. Changed by its methods alone."""

    __slots__ = (
        "_calls", "_failed", "_latest", "_pause", "_per_step", "_rule", "_succeeded", "_total_calls", "_total_failed",
        "_under_trial", "number", "open_until", "since", "state",
    )  # fmt: skip

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._per_step = _STEPS / rule.window
        self.state = State.CLOSED
        self.number = 0  # of the state: it grows with every change
        self.since = 0.0  # when the state began; 0 for a breaker that never changed
        self.open_until = 0.0
        # While closed.
        self._latest = 0  # step
        self._calls = [0] * _STEPS
        self._failed = [0] * _STEPS
        self._total_calls = 0
        self._total_failed = 0
        # While half open.
        self._under_trial = 0
        self._succeeded = 0
        self._pause = rule.pause  # for the next time

    @property
    def counts(self) -> tuple[int, int]:
        """Calls that failed, and all, of the window as it was when it last changed."""
        return self._total_failed, self._total_calls

    def admit(self, now: float) -> int | None:
        """The number under which a call may go, to be told in `record` or `release`; None if it may not."""
        if self.state is State.CLOSED:
            return self.number
        if self.state is State.OPEN:
            if now < self.open_until:
                return None
            self._change(State.HALF_OPEN, now)
            self._under_trial = self._succeeded = 0
        if self._under_trial + self._succeeded >= self._rule.trials:
            return None
        self._under_trial += 1
        return self.number

    def record(self, number: int, now: float, *, failed: bool) -> None:
        """How a call ended that was admitted under this number."""
        if number != self.number:
            return
        if self.state is State.CLOSED:
            self._count(now, failed=failed)
        elif self.state is State.HALF_OPEN:
            self._under_trial -= 1
            if failed:
                self._open(now)
                return
            self._succeeded += 1
            if self._succeeded >= self._rule.trials:
                self._close(now)

    def release(self, number: int) -> None:
        """A call ended that says nothing of the service."""
        if number == self.number and self.state is State.HALF_OPEN:
            self._under_trial -= 1

    def _count(self, now: float, *, failed: bool) -> None:
        step = int(now * self._per_step)
        if step != self._latest:
            self._move_to(step)
        place = step % _STEPS
        self._calls[place] += 1
        self._total_calls += 1
        if failed:
            self._failed[place] += 1
            self._total_failed += 1
            rule = self._rule
            if self._total_calls >= rule.least and self._total_failed >= rule.share * self._total_calls:
                self._open(now)

    def _move_to(self, step: int) -> None:
        """Forget what the window has passed."""
        for passed in range(max(self._latest + 1, step - _STEPS + 1), step + 1):
            place = passed % _STEPS
            self._total_calls -= self._calls[place]
            self._total_failed -= self._failed[place]
            self._calls[place] = self._failed[place] = 0
        self._latest = step

    def _open(self, now: float) -> None:
        self._change(State.OPEN, now)
        self.open_until = now + self._pause
        self._pause = min(self._rule.longest_pause, self._pause * 2)

    def _close(self, now: float) -> None:
        self._change(State.CLOSED, now)
        self._pause = self._rule.pause
        self._calls = [0] * _STEPS
        self._failed = [0] * _STEPS
        self._total_calls = self._total_failed = 0
        self._latest = int(now * self._per_step)

    def _change(self, state: State, now: float) -> None:
        self.state = state
        self.number += 1
        self.since = now
