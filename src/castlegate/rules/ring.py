"""Consistent hashing: calls of one key go to one instance, the same in every worker. Pure: no clock, no socket.

Each instance stands at many points of a ring; a key belongs to the next point behind its own hash. An instance that is
out stays where it is and is gone past, so only its own keys move, and move back with it; one that comes takes its part
of the others' keys and leaves the rest where they are.
"""

from __future__ import annotations

from array import array
from bisect import bisect
from collections.abc import Callable, Iterable
from hashlib import blake2b
from struct import unpack
from typing import Generic, TypeVar

from castlegate.message import Call
from castlegate.rules.balancing import Balancer, least_tried, nobody
from castlegate.rules.instances import Instance, Instances

I = TypeVar("I", bound=Instance)  # noqa: E741 - see `rules.instances`

_POINTS = 160  # of an instance of weight 1: its part of the keys is then within a fifth or so of what is due
_MOST_POINTS = 2**18  # of a ring; where weights ask for more, each has fewer in proportion
_NUMBER = 0xFFFF  # the bits of a point that say whose it is
_GOES_ON = 64  # points that are gone past before one is taken whoever is next to it


class ConsistentHash(Generic[I]):
    """By a key that the call has. Slow start is not for it: a key belongs to one instance or to another."""

    __slots__ = ("_instances", "_key_of", "_keyless", "_ring", "_rings")

    def __init__(self, instances: Instances[I], key_of: Callable[[Call], bytes], keyless: Balancer[I]) -> None:
        """`keyless` chooses for calls without a key."""
        self._instances = instances
        self._key_of = key_of
        self._keyless = keyless
        self._rings: dict[int, _Ring[I]] = {}  # by priority
        self._ring: _Ring[I] = _Ring()
        instances.watch(self._changed)
        self._changed()

    def choose(self, call: Call, now: float) -> I:
        """The one that the key belongs to, or the next on the ring."""
        key = self._key_of(call)
        if not key:
            return self._keyless.choose(call, now)
        hashed = int.from_bytes(blake2b(key, digest_size=8).digest(), "little")
        points, owners, tried = self._ring.points, self._ring.owners, call.tried
        at = bisect(points, hashed)
        for step in range(at - len(points), min(at - len(points) + _GOES_ON, at)):
            owner = owners[points[step] & _NUMBER]
            if owner.available and owner not in tried:
                return owner
        choices = self._instances.untried(tried)
        if choices:
            return choices[hashed % len(choices)]
        if not self._instances.available:
            raise nobody(call)
        return least_tried(self._instances.available, tried)

    def _changed(self) -> None:
        by_priority: dict[int, list[I]] = {}
        for each in self._instances.members:
            by_priority.setdefault(each.priority, []).append(each)
        for priority, members in by_priority.items():
            self._rings.setdefault(priority, _Ring()).hold(members)
        group = self._instances.group
        self._ring = self._rings[group[0].priority] if group else _Ring()


class _Ring(Generic[I]):
    """The points of those of one priority, each with the number of its instance in its last bits."""

    __slots__ = ("_each", "owners", "points")

    def __init__(self) -> None:
        self.points = array("Q")  # in order
        self.owners: dict[int, I] = {}  # by number
        self._each = _POINTS  # for a weight of 1

    def hold(self, members: list[I]) -> None:
        """Have these on the ring and no others."""
        each = max(1, min(_POINTS, _MOST_POINTS // max(1, sum(member.weight for member in members))))
        if each != self._each:
            self.points, self.owners, self._each = array("Q"), {}, each
        held, wanted = set(self.owners.values()), set(members)
        if held == wanted:
            return
        gone = {number for number, owner in self.owners.items() if owner not in wanted}
        left: Iterable[int] = self.points
        if gone:
            left = [point for point in self.points if point & _NUMBER not in gone]
            self.owners = {number: owner for number, owner in self.owners.items() if number not in gone}
        points = list(left)
        free = (number for number in range(_NUMBER + 1) if number not in self.owners)
        added = [member for member in members if member not in held]
        for number, member in list(zip(free, added, strict=False)):
            self.owners[number] = member
            points += [point & ~_NUMBER | number for point in _points(member.name, each * member.weight)]
        points.sort()  # what was there is in order: the time it takes is that of going through it
        self.points = array("Q", points)


def _points(name: str, count: int) -> list[int]:
    """Where the instance of this name stands; the first of many are the same as few."""
    points: list[int] = []
    for part in range(-(-count // 8)):
        points += unpack("<8Q", blake2b(b"%d %b" % (part, name.encode())).digest())
    return points[:count]
