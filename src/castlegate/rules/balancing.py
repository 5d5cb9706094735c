"""Which instance is asked next. Pure: no clock, no socket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from castlegate.message import Call

T_co = TypeVar("T_co", covariant=True)


class Balancer(Protocol[T_co]):
    """Chooses among the instances of a service."""

    def choose(self, call: Call) -> T_co:
        """The next instance; one of `call.tried`, on which the call failed before, only if there is no other."""


class RoundRobin(Balancer[T_co]):
    """One after the other."""

    __slots__ = ("_instances", "_latest")

    def __init__(self, instances: Sequence[T_co]) -> None:
        self._instances = list(instances)
        self._latest = len(instances) - 1

    def choose(self, call: Call) -> T_co:
        """The next in turn."""
        instances, tried, at = self._instances, call.tried, self._latest
        for _ in instances:
            at = (at + 1) % len(instances)
            if not tried or instances[at] not in tried:
                break
        self._latest = at
        return instances[at]
