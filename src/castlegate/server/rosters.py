"""What is known of the instances of HTTP services, for all workers: who was found, who is well, who is drained.

Discovery and checks run here, once, and are kept over reloads where their settings are the same. Workers are told all
of a service whenever something changes (`Roster`), and tell which instances they have taken out themselves.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from castlegate.config.addresses import parse_origin
from castlegate.document import Document, Service
from castlegate.resources import Resources
from castlegate.rules.instances import Out
from castlegate.rules.standing import NOT_CHECKED
from castlegate.telemetry.metrics import Registry
from castlegate.upstreams.http.checks import Checks
from castlegate.upstreams.http.discovery import Discovery, Member
from castlegate.upstreams.http.ejecting import EJECTION
from castlegate.upstreams.http.looking import source_of
from castlegate.upstreams.http.roster import CHECK, Roster
from castlegate.upstreams.http.settings import HttpService
from castlegate.wire.timer import Timer

logger = logging.getLogger("castlegate.health")

_FIRST_LOOK = 5.0  # seconds for which a configuration waits until the instances of new services are found
_TOGETHER = 0.01  # seconds in which changes are gathered: many instances often change at once
_APART = 0.1  # seconds from one telling to the next at least: of a thousand instances, each takes workers milliseconds

Outs = dict[str, dict[str, dict[str, Out]]]
"""By service and instance: who holds it out, and why."""


class _Watched(NamedTuple):
    """One service."""

    settings: Service
    http: HttpService
    discovery: Discovery | None
    checks: Checks | None

    @property
    def urls(self) -> list[str]:
        if self.discovery is None:
            return [each.url for each in self.http.targets]
        return [each.url for each in self.discovery.members]

    @property
    def members(self) -> list[Member] | None:
        return None if self.discovery is None else self.discovery.members


class Watching(NamedTuple):
    """What one configuration asks to be watched."""

    services: dict[str, _Watched]
    resources: Resources


class Rosters:
    """Of all services."""

    def __init__(self, folder: Path, workers: int, registry: Registry, tell: Callable[[str, Roster], None]) -> None:
        """`tell` is called with what workers are to know of a service."""
        self._folder = folder
        self._workers = workers
        self._registry = registry
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._timer = Timer(self._loop)
        # What is watched: changed by `take` alone.
        self._watching = Watching({}, Resources())
        # By service and instance, since when (loop time): changed by operators, and when a service goes.
        self._drained: dict[str, dict[str, float]] = {}
        self._outs: dict[int, Outs] = {}  # by worker's slot
        self._told: dict[str, Roster] = {}
        self._told_at = 0.0  # loop time
        self._changed: set[str] = set()
        self._telling: asyncio.TimerHandle | None = None
        self._gauge = registry.gauge(
            "castlegate_instances",
            "Instances of services: all, not passing their checks, ejected by a worker, drained.",
            "service",
            "state",
        )

    # Configurations.

    async def prepare(self, document: Document) -> Watching:
        """Begin to watch what is new in a configuration, and wait a moment for what is found. Raises `ConfigError`."""
        resources = Resources(self._watching.resources)
        services = {
            name: self._watched(name, service, service.http, resources)
            for name, service in document.services.items()
            if service.http is not None
        }
        watching = Watching(services, resources)
        try:
            await resources.start()
            looks = [asyncio.create_task(each.discovery.first_look()) for each in services.values() if each.discovery]
            if looks:
                _, late = await asyncio.wait(looks, timeout=_FIRST_LOOK)
                for look in late:
                    look.cancel()
        except BaseException:
            await self.discard(watching)
            raise
        return watching

    async def discard(self, watching: Watching) -> None:
        """It is not served after all, unless it has been taken."""
        if watching is not self._watching:
            await watching.resources.retire([self._watching.resources])

    async def take(self, watching: Watching) -> None:
        """It is served from now on."""
        before, self._watching = self._watching, watching
        for name in before.services.keys() - watching.services.keys():
            self._drained.pop(name, None)
            for state in ("all", "ill", "ejected", "drained"):
                self._gauge.forget(name, state)
        for name, service in watching.services.items():
            self._follow(service)
            self._gauge.watch(partial(self._count, name), name, "all")
            self._gauge.watch(partial(self._count_ill, name), name, "ill")
            self._gauge.watch(partial(self._count_ejected, name), name, "ejected")
            self._gauge.watch(partial(self._count_drained, name), name, "drained")
            self._change(name)
        # Generations were made of what was known on the way, and upstreams that are carried over were told nothing.
        self._told.clear()
        await before.resources.retire([watching.resources])

    async def close(self) -> None:
        """Watch nothing any more."""
        if self._telling is not None:
            self._telling.cancel()
        await self._watching.resources.retire([])

    def rosters(self, watching: Watching | None = None) -> dict[str, Roster]:
        """What a worker is to know that makes a generation of a configuration, of this one else the one that is
        served.
        """
        services = (watching or self._watching).services
        for name in self._changed:
            self._told.pop(name, None)  # not all workers know the same any more
        return {name: self._first_roster(name, service) for name, service in services.items()}

    # Workers.

    def hear(self, slot: int, outs: Outs) -> None:
        """What a worker has taken out, all of it."""
        self._outs[slot] = outs
        for name, service in self._watching.services.items():
            if service.checks is not None:
                service.checks.awaited = self._awaited(name)

    def forget(self, slot: int) -> None:
        """The worker has ended."""
        self.hear(slot, {})

    # Operators.

    def drain(self, service: str, instance: str) -> bool:
        """Give an instance nothing new until `resume`; False if there is none of that name."""
        if instance not in self._names(service):
            return False
        if instance not in (drained := self._drained.setdefault(service, {})):
            drained[instance] = self._timer.now()
            logger.info("service %s: %s is drained", service, instance)
            self._tell_at_once(service)
        return True

    def resume(self, service: str, instance: str) -> bool:
        """Call it again; False if it is not there, nor was it drained."""
        known = instance in self._names(service)
        if self._drained.get(service, {}).pop(instance, None) is not None:
            logger.info("service %s: %s is drained no longer", service, instance)
            self._tell_at_once(service)
            return True
        return known

    def tell_now(self) -> bool:
        """Tell workers what they have not been told yet; whether there was anything."""
        if self._telling is None:
            return False
        self._telling.cancel()
        self._tell_changes()
        return True

    def services(self) -> dict[str, Any]:
        """All of it, for people."""
        return {name: self._shown(name, service) for name, service in self._watching.services.items()}

    def _shown(self, name: str, service: _Watched) -> dict[str, Any]:
        roster, shown = self._roster(name, service), dict[str, Any]()
        if service.discovery is not None:
            shown["found_by"] = service.discovery.source
            shown["problem"] = service.discovery.problem or None
        origins = {origin.authority: origin for origin in map(parse_origin, service.urls)}
        shown["instances"] = [self._shown_instance(name, each, str(origin), roster) for each, origin in origins.items()]
        if absent := [each for each in roster.drained if each not in origins]:
            shown["drained_and_gone"] = absent
        return shown

    def _shown_instance(self, service: str, name: str, url: str, roster: Roster) -> dict[str, Any]:
        ill, drained = roster.ill.get(name), roster.drained.get(name)
        outs = list[dict[str, Any]]()
        if drained is not None:
            outs.append({"by": "drain", "why": "an operator said so", "since": self._wall(drained)})
        if ill is not None:
            outs.append({"by": CHECK, "why": ill.why, "since": self._wall(ill.since)})
        own = {slot: told.get(service, {}).get(name, {}) for slot, told in sorted(self._outs.items())}
        for slot, by_whom in own.items():
            for by, out in by_whom.items():
                outs.append({"by": by, "worker": slot, "why": out.why, "since": self._wall(out.since)})
        everywhere = ill is not None or sum(map(bool, own.values())) == self._workers
        state = "drained" if drained is not None else "out" if everywhere else "out of some workers" if outs else "in"
        return {"instance": name, "url": url, "state": state, "out": outs}

    def _wall(self, at: float) -> str:
        """Loop time as people read it."""
        seconds = time.time() - (self._timer.now() - at)
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))

    # What is watched.

    def _watched(self, name: str, settings: Service, http: HttpService, resources: Resources) -> _Watched:
        discovery, checks, source = None, None, http.source
        if source is not None:

            def discover() -> Discovery:
                changed = partial(self._change, name)
                return Discovery(name, source_of(source, self._folder), source.most, self._registry, changed)

            discovery = resources.keep(f"discovery of {name}", (type(source).__name__, source), discover)
        health = settings.health
        if health is not None:

            def check() -> Checks:
                changed = partial(self._change, name)
                return Checks(name, health, http, self._timer, self._registry, self._folder, changed)

            asked = health, http.spoken_host, http.encrypted, http.certified, http.pool
            checks = resources.keep(f"checks of {name}", asked, check)
        return _Watched(settings, http, discovery, checks)

    def _follow(self, service: _Watched) -> None:
        if service.checks is not None:
            service.checks.follow(service.urls)

    def _roster(self, name: str, service: _Watched) -> Roster:
        reached = {}
        if service.checks is not None:
            passed = service.checks.passed
            reached = {each: passed[each] for each in service.checks.awaited if each in passed}
        ill = {} if service.checks is None else service.checks.outs()
        return Roster(service.members, ill, dict(self._drained.get(name, {})), reached, service.http.found_by)

    def _first_roster(self, name: str, service: _Watched) -> Roster:
        """With those that are not followed before the configuration is served: they are not checked yet."""
        roster = self._roster(name, service)
        if service.checks is not None:
            now = self._timer.now()
            for each in self._names_of(service) - service.checks.known:
                roster.ill[each] = Out(NOT_CHECKED, now)
        return roster

    def _change(self, name: str) -> None:
        """Something about a service is different: tell of it soon, with what else changes meanwhile."""
        self._changed.add(name)
        if self._telling is None:
            wait = max(_TOGETHER, self._told_at + _APART - self._loop.time())
            self._telling = self._loop.call_later(wait, self._tell_changes)

    def _tell_at_once(self, name: str) -> None:
        self._changed.add(name)
        if self._telling is not None:
            self._telling.cancel()
        self._tell_changes()

    def _tell_changes(self) -> None:
        self._telling, self._told_at = None, self._loop.time()
        changed, self._changed = self._changed, set()
        for name in changed:
            service = self._watching.services.get(name)
            if service is None:
                continue
            self._follow(service)
            roster = self._roster(name, service)
            if roster != self._told.get(name):
                self._told[name] = roster
                self._tell(name, roster)

    def _awaited(self, service: str) -> frozenset[str]:
        """Instances of it that some worker has taken out for how calls went."""
        return frozenset(name for outs in self._outs.values() for name in outs.get(service, {}))

    def _names(self, service: str) -> set[str]:
        watched = self._watching.services.get(service)
        return set() if watched is None else self._names_of(watched)

    def _names_of(self, service: _Watched) -> set[str]:
        return {parse_origin(url).authority for url in service.urls}

    def _count(self, name: str) -> float:
        return len(self._names(name))

    def _count_ill(self, name: str) -> float:
        checks = self._watching.services[name].checks
        return 0 if checks is None else len(checks.outs())

    def _count_ejected(self, name: str) -> float:
        out = {each for outs in self._outs.values() for each, by in outs.get(name, {}).items() if EJECTION in by}
        return len(out)

    def _count_drained(self, name: str) -> float:
        return len(self._drained.get(name, {}))
