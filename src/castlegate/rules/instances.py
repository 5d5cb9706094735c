"""The instances of a service: who may be chosen, and how busy each is. Pure: no clock, no socket.

An instance is out while anybody says so: a check, an ejection, a breaker, each under a name of its own; it is back when
the last of them has taken that back. Where too few are left, all are chosen whatever checks and ejections say; but one
that is drained gets nothing new, nor one whose breaker is open, whatever else holds. `Instances` keeps the
list of those that may be chosen, made anew when something changes and never for a choice. Only `Instances` changes
what decides about that; `in_flight` and the latency belong to who sends calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, NamedTuple, TypeVar

BREAKER = "breaker"  # by which breakers take instances out
_FIRST_SHARE = 0.1  # of its weight that an instance begins with in its slow start
_STEPS = 20  # in which its share grows


class Out(NamedTuple):
    """Why an instance is out."""

    why: str
    since: float  # loop time


class Instance:
    """What balancers know of one."""

    __slots__ = (
        "available", "drained_since", "in_flight", "latency", "latency_at", "name", "outs", "priority", "pull",
        "share", "started", "weight",
    )  # fmt: skip

    def __init__(self, name: str, weight: int = 1, priority: int = 0) -> None:
        self.name = name  # as people and metrics call it, unique in its service: `host:port`
        self.weight = weight
        self.priority = priority  # 0 is asked first
        # Of who sends calls.
        self.in_flight = 0  # calls that wait for a connection or an answer, or whose answer's body has not ended
        self.latency = 0.0  # seconds, an estimate; 0 while nothing is known
        self.latency_at = 0.0  # loop time of it
        # Of `Instances`.
        self.available = False  # whether it is among those that may be chosen now
        self.outs: dict[str, Out] = {}  # by who says so
        self.drained_since: float | None = None
        self.started: float | None = None  # loop time at which its slow start began, while that lasts
        self.share = 1.0  # of its weight that it has in its slow start
        self.pull = float(weight)  # what it is to get in proportion to others

    @property
    def well(self) -> bool:
        """Whether nobody has anything against it."""
        return not self.outs and self.drained_since is None

    @property
    def barred(self) -> bool:
        """Whether it is not chosen even if no other is left."""
        return self.drained_since is not None or BREAKER in self.outs


I = TypeVar("I", bound=Instance)  # noqa: E741 - the one kind of thing here


class Instances(Generic[I]):
    """Those of one service, which come and go while calls run."""

    __slots__ = (
        "_groups", "_held", "_least", "_slow_start", "_starting", "_watchers", "available", "breakers", "even", "group",
        "members", "next_step", "panicking",
    )  # fmt: skip

    def __init__(self, members: Sequence[I] = (), *, least: float = 0.0, slow_start: float = 0.0) -> None:
        """`least`: the share of a priority that must be well for it to serve, one instance at any rate.
        `slow_start`: seconds in which one that has come, or come back, gets its full share.
        """
        self._least = least
        self._slow_start = slow_start
        self._watchers: list[Callable[[], None]] = []
        self._starting: list[I] = []
        self._groups: list[list[I]] = []  # by priority
        self._held = False  # many changes are made, which count together
        self.members: list[I] = list(members)
        """All, the drained ones as well."""
        self.available: list[I] = []
        """Those that may be chosen; replaced when that changes, never changed."""
        self.group: list[I] = []
        """All of the priority that serves; replaced in the same way."""
        self.even = True
        """Whether all that may be chosen are to get the same."""
        self.panicking = False
        """Whether so few are well that nobody looks at it: all that are not barred may be chosen."""
        self.next_step = math.inf
        """Loop time from which on `advance` has something to do."""
        self.breakers: object = None
        """Whose breakers say who is out: those of the generation that serves, if it has any."""
        self._regroup()

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever `members`, `available` or the pull of one has changed."""
        self._watchers.append(changed)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Have all changes made inside count as one: so many instances cost no more than one of them."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
            self._regroup()

    def named(self, name: str) -> I | None:
        """The member of this name."""
        return next((each for each in self.members if each.name == name), None)

    def add(self, instance: I, now: float) -> None:
        """One more."""
        self.members.append(instance)
        self._start(instance, now)
        self._regroup()

    def remove(self, instance: I) -> None:
        """It gets nothing new; what is in flight there goes on."""
        self.members.remove(instance)
        instance.available = False
        if instance in self._starting:
            self._starting.remove(instance)
        self._regroup()

    def take_out(self, instance: I, by: str, why: str, now: float) -> None:
        """`by` says that it is not to be chosen; what it said before is replaced, but since when."""
        before = instance.outs.get(by)
        instance.outs[by] = Out(why, now if before is None else before.since)
        if before is None:
            self._refresh()

    def put_back(self, instance: I, by: str, now: float) -> None:
        """`by` has nothing against it any more."""
        if instance.outs.pop(by, None) is not None:
            if instance.well:
                self._start(instance, now)
            self._refresh()

    def drain(self, instance: I, now: float) -> None:
        """It gets nothing new until `resume`, even if no other is left."""
        if instance.drained_since is None:
            instance.drained_since = now
            self._refresh()

    def resume(self, instance: I, now: float) -> None:
        """It is drained no longer."""
        if instance.drained_since is not None:
            instance.drained_since = None
            if instance.well:
                self._start(instance, now)
            self._refresh()

    def advance(self, now: float) -> None:
        """Give those in their slow start the share that is due."""
        for instance in self._starting:
            assert instance.started is not None, "it is among those that start"
            instance.share = min(1.0, max(_FIRST_SHARE, (now - instance.started) / self._slow_start))
            instance.pull = instance.weight * instance.share
            if instance.share >= 1.0:
                instance.started = None
        self._starting = [each for each in self._starting if each.started is not None]
        self.next_step = now + self._slow_start / _STEPS if self._starting else math.inf
        self._refresh()

    def untried(self, tried: Collection[object]) -> list[I]:
        """Those that may be chosen but `tried`; else well ones of other priorities; else any that is not barred, since
        it may be well by now and the call is lost without it. Else none is left.
        """
        left = [each for each in self.available if each not in tried]
        if left:
            return left
        for group in self._groups:
            left = [each for each in group if each.well and each not in tried]
            if left:
                return left
        return [each for each in self.members if not each.barred and each not in tried]

    def _start(self, instance: I, now: float) -> None:
        if self._slow_start and instance not in self._starting:
            self._starting.append(instance)
        if self._slow_start:
            instance.started = now
            instance.share = _FIRST_SHARE
            instance.pull = instance.weight * _FIRST_SHARE
            self.next_step = min(self.next_step, now + self._slow_start / _STEPS)

    def _regroup(self) -> None:
        if self._held:
            return
        priorities = sorted({each.priority for each in self.members})
        self._groups = [[each for each in self.members if each.priority == priority] for priority in priorities]
        self._refresh()

    def _refresh(self) -> None:
        """Who may be chosen now, and who of those no longer."""
        if self._held:
            return
        for instance in self.available:
            instance.available = False
        self.group, self.available, self.panicking = self._serving()
        for instance in self.available:
            instance.available = True
        pulls = {each.pull for each in self.available}
        self.even = len(pulls) <= 1
        for changed in self._watchers:
            changed()

    def _serving(self) -> tuple[list[I], list[I], bool]:
        """The first priority of which enough are well; without one, all of that of which the most are."""
        best: tuple[float, list[I], list[I]] = (-1.0, [], [])
        for group in self._groups:
            usable = [each for each in group if each.drained_since is None]
            well = [each for each in usable if not each.outs]
            if well and len(well) >= self._least * len(usable):
                return group, well, False
            left = [each for each in usable if not each.barred]
            if left and len(well) / len(usable) > best[0]:
                best = len(well) / len(usable), group, left
        return best[1], best[2], bool(best[2])
