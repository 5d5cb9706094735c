"""What a service and its routes say of guards: what goes together, and what is most likely not meant."""

from __future__ import annotations

from typing import Protocol

import msgspec

from castlegate.config.report import Place
from castlegate.config.units import write_seconds
from castlegate.guards.breaker import BreakerSettings
from castlegate.guards.concurrency import ConcurrencySettings
from castlegate.guards.hedge import HedgeSettings
from castlegate.guards.retry import RepeatBudgetSettings, Retries, check_retries, check_time


class Repeats(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """When a call is made more than once."""

    retry: Retries | None = None
    """When it is tried again; else as the service says."""
    hedge: HedgeSettings | None = None
    """When another instance is asked as well, because no answer has come; else as the service says."""


NO_REPEATS = Repeats()


class Guarded(Protocol):
    """What a service says of its guards."""

    @property
    def retry(self) -> Retries | None:
        """When a call that failed is tried again."""

    @property
    def repeats(self) -> RepeatBudgetSettings:
        """How much of its calls may be repetitions."""

    @property
    def breaker(self) -> BreakerSettings | None:
        """When it is left alone."""

    @property
    def hedge(self) -> HedgeSettings | None:
        """When another instance is asked as well."""

    @property
    def concurrency(self) -> ConcurrencySettings | None:
        """How many calls may be under way at once."""


def check_guards(service: Guarded, at: Place, *, kafka: bool) -> None:
    """What a service of this protocol can have."""
    if service.retry is not None:
        check_retries(service.retry, at.field("retry"), kafka=kafka)
    if service.breaker is not None and service.breaker.per == "instance" and kafka:
        at.field("breaker", "per").mistake("a service behind Kafka has no instances that the gateway knows of")
    check_hedge(service.hedge, at, kafka=kafka)


def check_hedge(hedge: HedgeSettings | None, at: Place, *, kafka: bool) -> None:
    """Whether a service of this protocol can have it."""
    if hedge is not None and kafka:
        at.field("hedge").mistake("what stands on a topic is not written a second time; this is for services over HTTP")


def check_repeats(route: Repeats, service: Guarded, timeout: float, at: Place, at_service: Place, name: str) -> None:
    """What a route says, and whether it or what its service says fits in the route's timeout (seconds)."""
    hedge, place = (route.hedge, at) if route.hedge is not None else (service.hedge, at_service)
    if hedge is not None and hedge.after is not None and hedge.after >= timeout:
        place.field("hedge").warning(
            f"is never sent on '{name}', whose timeout of {write_seconds(timeout)} is over before"
        )
    if route.retry is not None:
        check_time(route.retry, timeout, at.field("retry"), name)
    elif service.retry is not None:
        check_time(service.retry, timeout, at_service.field("retry"), name)
