"""Where a service's instances come from, if not from the configuration: names in DNS, or a file that others write.

Looked up by the supervisor, once for all workers. An answer that fails or names nobody changes nothing: the last one
that did name somebody holds until there is a better one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from castlegate.telemetry.metrics import Registry
from castlegate.telemetry.stumbles import Stumbles

logger = logging.getLogger("castlegate.discovery")

NAMES_WAIT = 30.0  # seconds, as a source's `patience`: for servers that others ask too


class Member(msgspec.Struct, frozen=True, order=True):
    """An instance that was found."""

    url: str
    weight: int = 1
    priority: int = 0


class Found(NamedTuple):
    """What a look has brought."""

    members: list[Member]
    again: float
    """Seconds after which to look again."""


class NotFound(Exception):
    """Nobody could say who the instances are; says why."""


class Source(Protocol):
    """Says who the instances are."""

    @property
    def name(self) -> str:
        """In words such as `DNS name users:8000`."""

    least: float
    """Seconds between two looks, at least."""
    patience: float
    """After failures the pause doubles up to this."""

    async def look(self) -> Found:
        """Look now. Raises `NotFound`."""


class Discovery:
    """Of one service: looks again and again. `members` are those of the last look that found any."""

    def __init__(
        self, service: str, source: Source, most: int, registry: Registry, changed: Callable[[], None]
    ) -> None:
        """`most` instances are taken; `changed` is called whenever `members` are others."""
        self._service = service
        self._source = source
        self._most = most
        self._changed = changed
        self._looks = registry.counter(
            "castlegate_discovery_total", "Looks for a service's instances, by result.", "service", "result"
        )
        for result in ("found", "empty", "failed"):
            self._looks.child(service, result)
        self._task: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()
        self.members: list[Member] = []
        self.problem = ""
        """What went wrong with the last look."""

    @property
    def source(self) -> str:
        """Where it looks, in words."""
        return self._source.name

    async def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._keep_looking())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def first_look(self) -> None:
        """Returns when there has been one, whatever it brought."""
        await self._looked.wait()

    async def _keep_looking(self) -> None:
        stumbles = Stumbles(logger, f"looking for the instances of service {self._service}")
        failures = 0
        while True:
            try:
                found = await self._source.look()
            except NotFound as missing:
                again = self._failed("failed", str(missing), failures)
                failures += 1
            except Exception as error:  # noqa: BLE001 - logged; the next look is made all the same
                stumbles.tell(error)
                again = self._failed("failed", "an error of the gateway's own, which its log tells", failures)
                failures += 1
            else:
                if found.members:
                    self._take(found.members)
                    again, failures = found.again, 0
                else:
                    again = self._failed("empty", "it names no instance", failures)
                    failures += 1
            self._looked.set()
            await asyncio.sleep(again)

    def _failed(self, result: str, problem: str, failures: int) -> float:
        """Note it; how long to wait, after so many failures before this one."""
        self._note(result, problem)
        least: float = self._source.least
        return max(least, min(least * 2.0 ** min(failures, 20), self._source.patience))

    def _note(self, result: str, problem: str) -> None:
        self._looks.child(self._service, result).value += 1
        if problem != self.problem:
            kept = f"its {len(self.members)} instances stay" if self.members else "it has no instances yet"
            logger.warning("service %s: %s: %s; %s", self._service, self._source.name, problem, kept)
        self.problem = problem

    def _take(self, members: list[Member]) -> None:
        members = sorted(set(members))
        if len(members) > self._most:
            self._note("found", f"it names {len(members)} instances, of which {self._most} are taken")
            members = members[: self._most]
        else:
            self._looks.child(self._service, "found").value += 1
            if self.problem:
                logger.info("service %s: %s names instances again", self._service, self._source.name)
            self.problem = ""
        if members == self.members:
            return
        before, after = {each.url for each in self.members}, {each.url for each in members}
        come, gone = sorted(after - before), sorted(before - after)
        self.members = members
        logger.info(
            "service %s: %d instances%s%s", self._service, len(members), _told("come", come), _told("gone", gone)
        )
        self._changed()


def _told(what: str, urls: list[str]) -> str:
    if not urls:
        return ""
    more = f" and {len(urls) - 10} more" if len(urls) > 10 else ""
    return f"; {what}: {', '.join(urls[:10])}{more}"
