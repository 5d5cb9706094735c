"""A percentile of what is seen, followed as it changes. Pure.

Each observation above the estimate moves it up a little, each one below moves it down by so much less that they hold
the balance exactly where the wanted share is below. It keeps no observations: those that come in bursts, as many slow
calls that began together do, move it no further than they are many.
"""

from __future__ import annotations

_ENOUGH = 32  # observations, before which nothing is said
_STEP = 0.05  # of the estimate, in both directions together


class Percentile:
    """Of all observations, the latest most; `value` is None until there are enough of them."""

    __slots__ = ("_count", "_down", "_estimate", "_up", "value")

    def __init__(self, percent: float) -> None:
        self._up = 1 + _STEP * percent / 100
        self._down = 1 - _STEP * (1 - percent / 100)
        self._estimate = 0.0
        self._count = 0
        self.value: float | None = None

    def observe(self, seconds: float) -> None:
        """One more."""
        if self._count < _ENOUGH:
            self._count += 1
            self._estimate = max(self._estimate, seconds)
            return
        self._estimate *= self._up if seconds > self._estimate else self._down
        self.value = self._estimate
