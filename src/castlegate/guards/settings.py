"""What a service and its routes say of guards: what goes together, and what is most likely not meant."""

from __future__ import annotations

from typing import Protocol

import msgspec

from castlegate.config.report import Place
from castlegate.guards.retry import RepeatBudgetSettings, Retries, check_retries, check_time


class Repeats(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """When a call is made more than once."""

    retry: Retries | None = None
    """When it is tried again; else as the service says."""


NO_REPEATS = Repeats()


class Guarded(Protocol):
    """What a service says of its guards."""

    @property
    def retry(self) -> Retries | None:
        """When a call that failed is tried again."""

    @property
    def repeats(self) -> RepeatBudgetSettings:
        """How much of its calls may be repetitions."""


def check_guards(service: Guarded, at: Place, *, kafka: bool) -> None:
    """What a service of this protocol can have."""
    if service.retry is not None:
        check_retries(service.retry, at.field("retry"), kafka=kafka)


def check_repeats(route: Repeats, service: Guarded, timeout: float, at: Place, at_service: Place, name: str) -> None:
    """What a route says, and whether it or what its service says fits in the route's timeout (seconds)."""
    if route.retry is not None:
        check_time(route.retry, timeout, at.field("retry"), name)
    elif service.retry is not None:
        check_time(service.retry, timeout, at_service.field("retry"), name)
