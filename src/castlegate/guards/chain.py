"""The guards around the calls of a service, outermost first: those that it or the route asks for, and no other."""

from __future__ import annotations

from typing import Any

from castlegate.guards.retry import RepeatBudgetSettings, Retry
from castlegate.guards.settings import Guarded, Repeats
from castlegate.means import Means
from castlegate.resources import Kept
from castlegate.rules.budget import RepeatBudget
from castlegate.rules.instances import Instances
from castlegate.sketch import DescribedGuard


class Chain:
    """Makes them, for one generation."""

    def __init__(self, means: Means) -> None:
        self._means = means

    def of(
        self, name: str, service: Guarded, repeats: Repeats, instances: Instances[Any] | None
    ) -> list[DescribedGuard]:
        """Those of a service. `instances` None: it is behind Kafka."""
        means = self._means
        guards: list[DescribedGuard] = []
        said = repeats.retry or service.retry
        if said is not None or instances is not None:
            budget = self._budget(name, service.repeats)
            guards.append(Retry(name, said, instances, budget, means.timer.now, means.registry))
        return guards

    def _budget(self, name: str, settings: RepeatBudgetSettings) -> RepeatBudget:
        """One for all that repeats calls of a service, kept over reloads."""

        def make() -> Kept[RepeatBudget]:
            return Kept(RepeatBudget(settings.share / 100, settings.least))

        return self._means.resources.keep(f"repeats of {name}", settings, make).value
