"""Which instance is asked next. Pure: no clock, no socket.

A choice costs the same however many instances there are; what depends on their number is done when they change. Each
balancer registers with its `Instances` first, so that whoever watches them after it finds it up to date.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Mapping, Sequence
from heapq import heapify, heapreplace
from itertools import accumulate
from random import random
from typing import Generic, Protocol, TypeVar

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.message import Call
from castlegate.rules.instances import Instance, Instances

I = TypeVar("I", bound=Instance)  # noqa: E741 - see `rules.instances`
I_co = TypeVar("I_co", bound=Instance, covariant=True)

_DRAWS = 8  # of one that was not tried before, until all are looked through


class Balancer(Protocol[I_co]):
    """Chooses among the instances of a service."""

    def choose(self, call: Call, now: float) -> I_co:
        """The next one; of `call.tried`, on which the call failed before, only if there is no other, and then
        `least_tried`. `now`: loop time. Raises `CallFailed`, not sent, if there is none at all.
        """


class RoundRobin(Generic[I]):
    """One after the other; a heavier one as much more often, and evenly spread.

    Each instance is due at a time of its own clock, which goes on by the reciprocal of its pull with each call: the
    one that is due first is next (earliest deadline first).
    """

    __slots__ = ("_due", "_instances", "_latest", "_now")

    def __init__(self, instances: Instances[I]) -> None:
        self._instances = instances
        self._latest = -1
        self._now = 0.0  # of the clock
        self._due: list[tuple[float, int, I]] = []  # a heap, empty while all get the same
        instances.watch(self._changed)
        self._changed()

    def choose(self, call: Call, now: float) -> I:
        """The next in turn."""
        instances = self._instances
        if now >= instances.next_step:
            instances.advance(now)
        chosen = self._next(call)
        if call.tried and chosen in call.tried:
            for _ in call.tried:
                chosen = self._next(call)
                if chosen not in call.tried:
                    return chosen
            others = instances.untried(call.tried)
            return others[0] if others else least_tried(instances.available, call.tried)
        return chosen

    def _next(self, call: Call) -> I:
        due = self._due
        if due:
            self._now, number, chosen = due[0]
            heapreplace(due, (self._now + 1 / chosen.pull, number, chosen))
            return chosen
        choices = self._instances.available
        if not choices:
            raise nobody(call)
        at = self._latest = (self._latest + 1) % len(choices)
        return choices[at]

    def _changed(self) -> None:
        if self._instances.even:
            self._due.clear()
            return
        before = {id(chosen): due for due, _, chosen in self._due}
        self._due = []
        for number, each in enumerate(self._instances.available):
            begin = self._now + 0.5 / each.pull
            self._due.append((min(before.get(id(each), begin), self._now + 1 / each.pull), number, each))
        heapify(self._due)


class _OfTwo(Generic[I]):
    """Two drawn by chance, in proportion to their pull; the one that is less busy is chosen."""

    __slots__ = ("_ends", "_instances", "_total")

    def __init__(self, instances: Instances[I]) -> None:
        self._instances = instances
        self._total = 0.0
        self._ends: list[float] = []  # of each one's part of the line from 0 to `_total`; empty while all are alike
        instances.watch(self._changed)
        self._changed()

    def _draw(self, call: Call) -> tuple[I, I]:
        """Two, of which neither is the other if all get the same and there are two."""
        choices = self._instances.available
        count = len(choices)
        if self._ends:
            ends, last, total = self._ends, count - 1, self._total
            one = bisect(ends, random() * total, 0, last)  # noqa: S311 - not a secret
            other = bisect(ends, random() * total, 0, last)  # noqa: S311
            return choices[one], choices[other]
        if count < 2:
            if not count:
                raise nobody(call)
            return choices[0], choices[0]
        one = int(random() * count)  # noqa: S311
        other = int(random() * (count - 1))  # noqa: S311
        return choices[one], choices[other if other < one else other + 1]

    def _among(self, call: Call) -> list[I]:
        """What is drawn from for a call that was tried before: a few that it was not tried on, if there are. Raises
        `CallFailed`, not sent, if there is nobody.
        """
        instances, tried = self._instances, call.tried
        choices = instances.available
        if choices:
            fresh = [each for _ in range(_DRAWS) for each in self._draw(call) if each not in tried]
            if fresh:
                return fresh
        untried = instances.untried(tried)
        if not untried and not choices:
            raise nobody(call)
        return untried or [least_tried(choices, tried)]

    def _changed(self) -> None:
        if self._instances.even:
            self._ends = []
        else:
            self._ends = list(accumulate(each.pull for each in self._instances.available))
            self._total = self._ends[-1]


class LeastRequest(_OfTwo[I]):
    """Of two by chance the one with fewer calls in flight, in proportion to its pull.

    Close to the best of all without looking at all, and unlike that it does not send everything to the one that has
    just become idle (Mitzenmacher, "The Power of Two Choices").
    """

    __slots__ = ()

    def choose(self, call: Call, now: float) -> I:
        """The less busy one."""
        instances = self._instances
        if now >= instances.next_step:
            instances.advance(now)
        if call.tried:
            return min(self._among(call), key=lambda each: each.in_flight / each.pull)
        one, other = self._draw(call)
        return other if other.in_flight * one.pull < one.in_flight * other.pull else one


class PeakEwma(_OfTwo[I]):
    """Of two by chance the one with the shorter wait to expect: its latency times the calls that are there already.

    The latency is a moving average that jumps up to a slower answer at once and comes down slowly, so that an instance
    that begins to stall is left alone after its first slow answer. While nobody asks it, its past counts less and less.
    """

    __slots__ = ("_decay",)

    def __init__(self, instances: Instances[I], decay: float = 10.0) -> None:
        """`decay`: seconds after which a measurement counts a third."""
        super().__init__(instances)
        self._decay = decay

    def choose(self, call: Call, now: float) -> I:
        """The one with the shorter wait."""
        instances = self._instances
        if now >= instances.next_step:
            instances.advance(now)
        if call.tried:
            return min(self._among(call), key=lambda each: self._wait(each, now))
        one, other = self._draw(call)
        return other if self._wait(other, now) < self._wait(one, now) else one

    def learn(self, instance: I, seconds: float, now: float) -> None:
        """A call was answered after so long, or failed, which counts as long as it could have taken."""
        if seconds > instance.latency:
            instance.latency = seconds
        else:
            weight = math.exp((instance.latency_at - now) / self._decay)
            instance.latency = instance.latency * weight + seconds * (1 - weight)
        instance.latency_at = now

    def _wait(self, instance: I, now: float) -> float:
        """Seconds to expect, for a pull of one."""
        latency, busy = instance.latency, instance.in_flight
        if not latency:
            return busy * _UNKNOWN  # one that has never answered is given one call to show itself
        return latency * math.exp((instance.latency_at - now) / self._decay) * (busy + 1) / instance.pull


_UNKNOWN = 1e6  # seconds


def least_tried(choices: Sequence[I], tried: Mapping[object, int]) -> I:
    """Of `choices`, all of which were tried, the one that was least often; of several the one that was longest ago."""
    order = {each: number for number, each in enumerate(tried)}
    return min(choices, key=lambda each: (tried.get(each, 0), order.get(each, -1)))


def nobody(call: Call) -> CallFailed:
    """No instance may be chosen."""
    call.instance = None  # so that nobody takes it for a failure of the one before
    return CallFailed(Kinds.NO_INSTANCE, Outcome.NOT_SENT, "The service has no instance that may be asked.")
