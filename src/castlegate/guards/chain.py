"""The guards around the calls of a service, outermost first: those that it or the route asks for, and no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from castlegate.guards.backlog import LAG, UNANSWERED, Queue, Waits
from castlegate.guards.breaker import (
    OPEN_BREAKERS,
    Breakers,
    BreakerSettings,
    CircuitBreaker,
    InstanceBreakers,
)
from castlegate.guards.concurrency import CALLS, Concurrency, ConcurrencySettings, Places
from castlegate.guards.hedge import Hedge, HedgeSettings
from castlegate.guards.retry import RepeatBudgetSettings, Retry
from castlegate.guards.settings import Guarded, Repeats
from castlegate.means import Means
from castlegate.resources import Kept
from castlegate.rules.budget import RepeatBudget
from castlegate.rules.instances import BREAKER, Instances
from castlegate.rules.percentile import Percentile
from castlegate.sketch import DescribedGuard

V = TypeVar("V")

_GAUGES = (OPEN_BREAKERS, CALLS, LAG, UNANSWERED)


class Chain:
    """Makes them, for one generation."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._breakers: dict[tuple[str, str], CircuitBreaker | InstanceBreakers] = {}
        self._limits: dict[str, Concurrency] = {}
        self._waits: dict[tuple[str, str], Waits] = {}
        self._instances: dict[str, Instances[Any]] = {}

    def watch(self) -> None:
        """These are the ones that serve from now on, and the only ones that gauges tell of."""
        families = self._means.registry.families
        before = [(family, dict(family.watched)) for name in _GAUGES if (family := families.get(name)) is not None]
        for breaker in self._breakers.values():
            breaker.watch()
        for limit in self._limits.values():
            limit.watch()
        for wait in self._waits.values():
            wait.watch()
        for family, reads in before:
            for values, read in reads.items():
                if family.watched[values] is read:
                    family.forget(*values)
        now = self._means.timer.now()
        for name, instances in self._instances.items():
            if not isinstance(self._breakers.get((name, "instance")), InstanceBreakers):
                instances.breakers = None
                for instance in instances.members:
                    instances.put_back(instance, BREAKER, now)

    def of(
        self,
        name: str,
        operation: str,
        service: Guarded,
        repeats: Repeats,
        instances: Instances[Any] | None,
        queue: Queue | None,
    ) -> list[DescribedGuard]:
        """Those of a service's operation. `instances` None: it is behind Kafka. `queue`: if its backlog is known."""
        means = self._means
        guards: list[DescribedGuard] = []
        budget = self._budget(name, service.repeats)
        retry, hedge = repeats.retry or service.retry, repeats.hedge or service.hedge
        if retry is not None or instances is not None:
            guards.append(Retry(name, retry, instances, budget, means.timer.now, means.registry))
        if instances is not None:
            self._instances[name] = instances
        if hedge is not None:
            guards.append(self._hedge(name, hedge, budget))
        if service.breaker is not None:
            guards.append(self._breaker(name, operation, service.breaker, instances))
        if queue is not None:
            guards.append(self._wait(name, queue))
        if service.concurrency is not None:
            guards.append(self._limit(name, service.concurrency))
        return guards

    def _budget(self, name: str, settings: RepeatBudgetSettings) -> RepeatBudget:
        """One for all that repeats calls of a service."""
        share, least = settings.share / 100, settings.least
        return self._kept(f"repeats of {name}", settings, lambda: RepeatBudget(share, least))

    def _hedge(self, name: str, settings: HedgeSettings, budget: RepeatBudget) -> Hedge:
        lately = self._kept(f"latency of {name}", settings.percentile, lambda: Percentile(settings.percentile))
        return Hedge(name, settings, lately, budget, self._means.timer.now, self._means.registry)

    def _breaker(
        self, name: str, operation: str, settings: BreakerSettings, instances: Instances[Any] | None
    ) -> CircuitBreaker | InstanceBreakers:
        means = self._means
        breakers = self._kept(f"breakers of {name}", settings, lambda: Breakers(settings.rule))
        of = operation or "other" if settings.per == "operation" else settings.per
        made = self._breakers.get((name, of))
        if made is None:
            if settings.per == "instance" and instances is not None:
                made = InstanceBreakers(name, settings, breakers, instances, means.timer.now, means.registry)
            else:
                made = CircuitBreaker(name, settings, of, breakers.of(of), means.timer.now, means.registry)
            self._breakers[name, of] = made
        return made

    def _wait(self, name: str, queue: Queue) -> Waits:
        key = name, queue.topic
        if key not in self._waits:
            self._waits[key] = Waits(name, queue, self._means.timer.now, self._means.registry)
        return self._waits[key]

    def _limit(self, name: str, settings: ConcurrencySettings) -> Concurrency:
        means = self._means
        if name not in self._limits:
            places = self._kept(
                f"concurrency of {name}", settings, lambda: Places(settings, means.workers, means.timer)
            )
            self._limits[name] = Concurrency(name, settings, places, means.timer.now, means.registry)
        return self._limits[name]

    def _kept(self, kind: str, settings: Any, make: Callable[[], V]) -> V:
        """State that outlives a reload which does not change these settings."""
        return self._means.resources.keep(kind, settings, lambda: Kept(make())).value
