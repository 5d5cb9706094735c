"""Which instance is asked next. Pure: no clock, no socket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Balancer(Protocol[T]):
    """Chooses among instances; `tried` are those that this call has already failed on."""

    def choose(self, tried: Sequence[T]) -> T | None:
        """The next instance, None if all were tried."""


class RoundRobin(Balancer[T]):
    """One after the other."""

    __slots__ = ("_instances", "_next")

    def __init__(self, instances: Sequence[T]) -> None:
        self._instances = list(instances)
        self._next = 0

    def choose(self, tried: Sequence[T]) -> T | None:
        """The next in turn that was not tried."""
        count = len(self._instances)
        for _ in range(count):
            at = self._next
            self._next = at + 1 if at + 1 < count else 0
            instance = self._instances[at]
            if instance not in tried:
                return instance
        return None
