"""Which instance is asked next. Pure: no clock, no socket."""

from __future__ import annotations

from typing import Protocol, TypeVar

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.message import Call
from castlegate.rules.instances import Instance, Instances

I = TypeVar("I", bound=Instance)  # noqa: E741 - see `rules.instances`
I_co = TypeVar("I_co", bound=Instance, covariant=True)


class Balancer(Protocol[I_co]):
    """Chooses among the instances of a service."""

    def choose(self, call: Call, now: float) -> I_co:
        """The next one; of `call.tried`, on which the call failed before, only if there is no other. `now`: loop time.
        Raises `CallFailed`, not sent, if there is none at all.
        """


class RoundRobin(Balancer[I]):
    """One after the other."""

    __slots__ = ("_instances", "_latest")

    def __init__(self, instances: Instances[I]) -> None:
        self._instances = instances
        self._latest = -1

    def choose(self, call: Call, now: float) -> I:
        """The next in turn."""
        del now
        choices = self._instances.available
        if call.tried:
            choices = self._instances.untried(call.tried) or choices
        if not choices:
            raise nobody()
        at = self._latest = (self._latest + 1) % len(choices)
        return choices[at]


def nobody() -> CallFailed:
    """No instance may be chosen."""
    return CallFailed(Kinds.NO_INSTANCE, Outcome.NOT_SENT, "The service has no instance that may be asked.")
