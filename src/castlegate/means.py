"""What features are made with, beside their settings: the same for everything in a generation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from castlegate.body import Budget
from castlegate.fetching import MakeFetcher
from castlegate.message import Caller
from castlegate.resources import Resources
from castlegate.stores.counts import Counts
from castlegate.stores.log import Log
from castlegate.stores.settings import LimitStore
from castlegate.telemetry.metrics import Registry
from castlegate.wire.timer import Timer


class Logins(Protocol):
    """What the gateway's own issuer began, by the name that its access tokens give: `sid`."""

    def holds(self, family: str) -> bool:
        """Whether it is known already that the login has not been ended. Does no I/O."""

    async def lasts(self, family: str, deadline: float) -> bool:
        """Whether the login has not been ended. Raises `CallFailed` where that cannot be known."""


class OwnTokens(NamedTuple):
    """What the gateway's own issuer signs."""

    issuer: str
    audience: str
    keys: Sequence[Mapping[str, Any]]
    """The public ones, as JWKs."""
    logins: Logins
    leeway: float
    """Seconds that the clocks of instances may differ."""


class Cluster(NamedTuple):
    """The Kafka cluster, for what the gateway itself tells there. What is kept of it ends with it."""

    name: str
    """Not that of another one."""
    news: Callable[[str], Log]
    """A reader and writer of a topic that all workers hear."""
    max_record: int
    """Bytes."""


class Means(NamedTuple):
    """Of one generation."""

    resources: Resources
    registry: Registry
    timer: Timer
    budget: Budget
    """Of collected bodies."""
    folder: Path
    """What files named in the configuration are relative to."""
    workers: int
    """Among how many the instance's figures are divided, where they are."""
    counts: Counts
    """What limits count, with all workers."""
    limit_store: LimitStore
    """Where else they count."""
    caller: Callable[[str], Caller]
    """Of `service` or `service.operation`, inside the service's guards."""
    fetcher: MakeFetcher
    """For what is asked on the gateway's own behalf; to be kept among the resources."""
    cluster: Cluster | None = None
    """Where there is one."""
    own: OwnTokens | None = None
    """Where there is an issuer."""
