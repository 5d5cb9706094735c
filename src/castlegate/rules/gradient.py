"""How many calls of a service may be under way at once, learned from how long they take. Pure.

A service that is asked more than it can do makes calls wait for one another: they take longer, and nothing more gets
done. So the limit follows the gradient, the time that calls take without waiting divided by the time that they take now
(as Netflix's concurrency-limits and Envoy's adaptive concurrency do): it shrinks where calls have begun to wait, and
else grows by a little more than is in use. It begins at the least, and grows quickly until calls have waited once.

The time without waiting is the least that was seen lately. It is forgotten slowly, and learned anew whenever so few
calls are under way that none of them can have waited: a service that has become slower, and not busier, is not held
at its least limit.
"""

from __future__ import annotations

import math

_STEP = 0.1  # seconds of calls that one change of the limit is made of, at least
_ENOUGH = 10  # calls, the same
_TOLERANCE = 1.5  # times as long as without waiting is still well
_STEEPEST = 0.5  # the limit is at most halved at once,
_SMOOTHING = 0.3  # and goes so much of the way
_QUICKLY = 1.5  # times as much, a step
_FORGET = 1.0001  # a step: twice as much in a quarter of an hour


class Gradient:
    """The limit of one service."""

    __slots__ = ("_began", "_count", "_fastest", "_least", "_limit", "_most", "_peak", "_quickly", "_total", "limit")

    def __init__(self, least: int, most: int) -> None:
        self._least = least
        self._most = most
        self._limit = float(least)
        self.limit = least
        self._quickly = True
        self._fastest = math.inf  # seconds, without waiting
        # Of the step that is under way.
        self._began = -math.inf
        self._total = 0.0
        self._count = 0
        self._peak = 0  # calls at once

    def observe(self, seconds: float, in_flight: int, now: float) -> None:
        """A call took so long, with so many under way when it ended, itself included."""
        if self._count == 0:
            self._began = now
        self._total += seconds
        self._count += 1
        if in_flight > self._peak:
            self._peak = in_flight
        if self._count >= _ENOUGH and now - self._began >= _STEP:
            self._step()

    def _step(self) -> None:
        mean, peak = self._total / self._count, self._peak
        self._total, self._count, self._peak = 0.0, 0, 0
        if peak <= self._least:
            # None of them waited for another.
            self._fastest = mean if math.isinf(self._fastest) else (self._fastest + mean) / 2
        else:
            self._fastest = min(self._fastest * _FORGET, mean)
        gradient = max(_STEEPEST, min(1.0, _TOLERANCE * self._fastest / mean)) if mean > 0 else 1.0
        if gradient == 1.0 and peak < self._limit / 2:
            return  # it is not used, so nothing is known of a larger one
        self._quickly = self._quickly and gradient == 1.0
        if self._quickly:
            self._limit *= _QUICKLY
        else:
            aim = self._limit * gradient + math.sqrt(self._limit)
            self._limit += (aim - self._limit) * _SMOOTHING
        self._limit = max(float(self._least), min(float(self._most), self._limit))
        self.limit = int(self._limit)
