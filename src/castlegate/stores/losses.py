"""How a store that instances share says that it was lost: in the log once for each reason, and in metrics."""

from __future__ import annotations

import logging

from castlegate.stores.settings import LimitStore
from castlegate.telemetry.metrics import Registry

logger = logging.getLogger("castlegate.limits")


class Losses:
    """Of one worker's store. `store`: what it is called in the log."""

    def __init__(self, settings: LimitStore, store: str, registry: Registry) -> None:
        self._settings = settings
        self._store = store
        self._reason = ""
        self._failures = registry.counter(
            "castlegate_limit_store_failures_total", "How often the store of limits was lost, or could not be reached."
        ).child()
        self.uncounted = registry.counter(
            "castlegate_limit_store_lost_total",
            "Limited requests that were not counted with other instances, since the store was lost or too slow.",
        ).child()
        self.up = registry.gauge("castlegate_limit_store_up", "Workers whose store of limits answers.").child()

    def found(self) -> None:
        """It answers."""
        self.up.value = 1
        if self._reason:
            logger.warning("limits are counted in %s again", self._store)
            self._reason = ""

    def lost(self, error: Exception) -> None:
        """It does not, and why."""
        self._failures.value += 1
        reason = str(error) or type(error).__name__
        if isinstance(error, TimeoutError):
            reason = f"no answer within {self._settings.patience:g} s"
        if reason != self._reason:
            self._reason = reason
            choice = "each instance counts for itself" if self._settings.lost == "local" else "requests are refused"
            logger.warning("%s is lost for limits, %s until it is back: %s", self._store, choice, reason)
