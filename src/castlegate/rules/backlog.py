"""How long a request will wait on a topic before its service reads it. Pure: `now` is passed in, in seconds.

Two things are known. The lag of the service's consumer group, looked at now and then, and how fast it reads: so long
will it take to get there. And how long the last reply took. Groups commit what they have read every few seconds only,
so the lag is taken as the least that was seen over a horizon longer than that; and as long as replies come sooner, they
are believed and the lag is not.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple


class _Look(NamedTuple):
    """What was seen of a group."""

    at: float
    lag: int  # records that it has yet to read
    read: int  # the sum of its positions


class Backlog:
    """Of one topic."""

    __slots__ = ("_answered_at", "_horizon", "_looks", "_took", "unanswered")

    def __init__(self, horizon: float) -> None:
        """`horizon`: seconds that are looked back."""
        self._horizon = horizon
        self._looks: deque[_Look] = deque()
        self._answered_at = -math.inf
        self._took = 0.0
        self.unanswered = 0  # requests since the last reply

    @property
    def lag(self) -> int:
        """As it was seen last."""
        return self._looks[-1].lag if self._looks else 0

    def saw(self, now: float, lag: int, read: int) -> None:
        """A look at the group."""
        looks = self._looks
        looks.append(_Look(now, lag, read))
        while len(looks) > 2 and looks[1].at <= now - self._horizon:
            looks.popleft()

    def answered(self, now: float, seconds: float) -> None:
        """A reply came, so long after its request."""
        self._answered_at = now
        self._took = seconds
        self.unanswered = 0

    def timed_out(self) -> None:
        """A request had no reply in time: what earlier ones took says nothing any more."""
        self._answered_at = -math.inf

    def wait(self, now: float) -> float:
        """Seconds that a request is expected to wait, as far as that is known; infinite where nobody reads."""
        looks, horizon = self._looks, self._horizon
        if not looks or looks[-1].lag == 0 or now - looks[-1].at > horizon or looks[-1].at - looks[0].at < horizon:
            return 0.0
        lag = min(look.lag for look in looks)
        read, seconds = looks[-1].read - looks[0].read, looks[-1].at - looks[0].at
        by_lag = 0.0 if not lag else lag * seconds / read if read > 0 else math.inf
        return min(by_lag, self._took) if now - self._answered_at <= horizon else by_lag
