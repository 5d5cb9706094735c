"""`castlegate doctor`: reaches everything that a configuration names, side by side, and tells what is wrong.

What is needed is asked of the objects that the configuration compiles to, not read from its text. Each step is bounded;
what depends on a step that failed is skipped and says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec
from confluent_kafka import KafkaException

from castlegate.build import Generation
from castlegate.config.addresses import parse_address
from castlegate.doctor import brokers, machine, services
from castlegate.doctor.findings import Finding, Unreachable, connect, in_thread
from castlegate.doctor.roundtrip import round_trip
from castlegate.doctor.topics import Need, Seen, limits, look, may_create
from castlegate.document import Document, load
from castlegate.telemetry.metrics import Registry
from castlegate.upstreams.http.checks import Question
from castlegate.upstreams.http.discovery import Source
from castlegate.upstreams.http.looking import source_of
from castlegate.upstreams.http.upstream import HttpUpstream
from castlegate.upstreams.kafka.client import Clients
from castlegate.upstreams.kafka.engine import Engine
from castlegate.upstreams.kafka.settings import EMBEDDED, Kafka
from castlegate.wire.service_tls import ServiceCertificates
from castlegate.wire.timer import Timer

if TYPE_CHECKING:
    from castlegate.upstreams.kafka.upstream import Operation

_ROUND_TRIP = 4  # times the within: to find the ends, to be assigned, to come back, and some slack


class Diagnosis(msgspec.Struct, frozen=True):
    """All that was found, in the order of what it depends on."""

    well: bool
    findings: list[Finding]


def examine(path: Path, within: float, tell: Callable[[Finding], None]) -> Diagnosis:
    """Check everything; `tell` gets each finding as soon as it is made. Raises `ConfigError`."""
    return asyncio.run(_examine(path, within, tell))


async def _examine(path: Path, within: float, tell: Callable[[Finding], None]) -> Diagnosis:
    loaded = load(path)
    timer, registry = Timer(asyncio.get_running_loop()), Registry()
    generation = Generation(loaded, instance="doctor", timer=timer, registry=registry)
    await generation.compile()
    document = generation.document
    groups: list[Coroutine[Any, Any, list[Finding]]] = [_machine(document, within, tell)]
    for name, service in document.services.items():
        upstream = generation.upstreams[name]
        if service.http is not None and isinstance(upstream, HttpUpstream):
            question = None
            if service.health is not None:
                question = Question(service.health, service.http, timer, upstream.certificates)
            of_service = _Service(name, upstream.certificates, question, within, tell)
            if service.http.source is not None:
                groups.append(of_service.found(source_of(service.http.source, path.parent)))
            groups += [of_service.instance(each.url) for each in service.http.targets]
    if generation.engine is not None:
        groups.append(_Kafka(generation, generation.engine, within, tell).examine())
    findings = [finding for group in await asyncio.gather(*groups) for finding in group]
    return Diagnosis(all(finding.verdict != "wrong" for finding in findings), findings)


async def _machine(document: Document, within: float, tell: Callable[[Finding], None]) -> list[Finding]:
    found = [machine.versions(), machine.descriptors(document), machine.access_log(document)]
    found += await machine.ports(document, within)
    for finding in found:
        tell(finding)
    return found


class _Service(NamedTuple):
    """The checks of one service that speaks HTTP."""

    name: str
    certificates: ServiceCertificates | None
    question: Question | None
    within: float
    tell: Callable[[Finding], None]

    async def found(self, source: Source) -> list[Finding]:
        """Its instances, looked up, each with its checks."""
        finding, urls = await services.found(self.name, source, self.within)
        self.tell(finding)
        others = await asyncio.gather(*[self.instance(url) for url in urls])
        return [finding, *(one for each in others for one in each)]

    async def instance(self, url: str) -> list[Finding]:
        """One of them."""
        finding = await services.instance(self.name, url, self.certificates, self.within)
        if finding.verdict == "well" and self.question is not None:
            finding = await services.passes(finding, self.question, url)
        self.tell(finding)
        return [finding]


class _Kafka:
    """The checks of one cluster, each on what the one before it found."""

    def __init__(self, generation: Generation, engine: Engine, within: float, tell: Callable[[Finding], None]) -> None:
        self._settings: Kafka = engine.settings
        self._embedded = generation.document.kafka is not None and generation.document.kafka.bootstrap == "embedded"
        self._clients = Clients(
            engine.settings, client_id=f"{generation.document.listen.name}-doctor", longest_timeout=within
        )
        self._needs = _needs(generation, engine)
        self._timeout = within
        self._tell_one = tell
        self._found: list[Finding] = []

    async def examine(self) -> list[Finding]:
        """All of them."""
        if self._embedded and not await self._embedded_runs():
            says = "the embedded broker starts with the gateway and is not running now: there is nothing to reach"
            self._tell(Finding("kafka", "skipped", says))
            return self._found
        self._tell(*await brokers.bootstrap(self._settings, self._timeout))
        if all(each.verdict == "wrong" for each in self._found):
            return self._skip("kafka brokers and topics", "no bootstrap address can be reached")
        found, cluster = await brokers.cluster(self._settings, self._clients, self._timeout)
        self._tell(*found)
        if cluster is None:
            return self._skip("kafka topics", "no broker says who the brokers are")
        if not cluster.usable:
            return self._skip("kafka topics and the round trip", "brokers cannot be reached where they say they are")
        seen = await self._topics(cluster)
        inboxes = [each for each in seen if each.need.owned is not None and each.partitions]
        trips = [self._round_trip(cluster, each) for each in inboxes]
        for told in await asyncio.gather(*trips):
            self._tell(*told)
        return self._found

    async def _embedded_runs(self) -> bool:
        try:
            await connect(*parse_address(EMBEDDED), self._timeout)
        except Unreachable:
            return False
        return True

    async def _topics(self, cluster: brokers.Cluster) -> list[Seen]:
        """What became of every topic."""
        within = self._timeout
        try:
            seen = await in_thread(lambda: look(cluster.admin, self._settings, self._needs, within), within * 2)
            missing = [each for each in seen if each.finding.verdict == "note"]
            allowed = await in_thread(lambda: may_create(cluster.admin, within), within * 2) if missing else True
            small = await in_thread(lambda: limits(cluster.admin, self._settings, seen, within), within * 2)
        except (KafkaException, TimeoutError) as failure:
            says = failure.args[0].str() if isinstance(failure, KafkaException) else "no answer in time"
            self._tell(Finding("kafka topics", "wrong", f"they cannot be described: {says}", "see the broker's log"))
            return []
        self._tell(*(each.finding for each in seen), *small)
        if allowed is False:
            says = f"the gateway may not create {', '.join(each.need.topic for each in missing)} when it starts"
            advice = "create them as said above, or: kafka-acls.sh --add --allow-principal User:NAME --operation Create"
            self._tell(Finding("permission to create topics", "wrong", says, f"{advice} --cluster"))
        return seen

    async def _round_trip(self, cluster: brokers.Cluster, seen: Seen) -> list[Finding]:
        need, partitions, within = seen.need, seen.partitions, self._timeout

        def go() -> list[Finding]:
            return round_trip(cluster.admin, self._settings, self._clients, need, partitions, within)

        try:
            return await in_thread(go, within * _ROUND_TRIP)
        except TimeoutError:
            check = f"round trip through {need.topic}"
            return [Finding(check, "wrong", f"not over within {within * _ROUND_TRIP:g} s", "see the broker's log")]

    def _tell(self, *findings: Finding) -> None:
        for finding in findings:
            if finding not in self._found:  # several inboxes tell the same of the clock
                self._found.append(finding)
                self._tell_one(finding)

    def _skip(self, check: str, says: str) -> list[Finding]:
        self._tell(Finding(check, "skipped", says))
        return self._found


def _needs(generation: Generation, engine: Engine) -> list[Need]:
    """Every topic that something compiled of the configuration uses."""
    routes: dict[str, list[str]] = {}
    for name, chain in generation.chains.items():
        topic = getattr(chain[-1], "topic", None)
        if topic is not None:
            routes.setdefault(topic, []).append(name)
    for topic, name in _authorizers(generation):
        routes.setdefault(topic, []).append(name)
    needs = [Need(topic, tuple(names), written=True) for topic, names in routes.items()]
    settings = engine.settings
    for box in engine.places.mailboxes.values():
        topics = [box.topic]
        alone = box.owned is not None and box.topic != settings.inbox
        if alone:  # which of them is used depends on the instance
            topics = [f"{settings.inbox}.{number}" for number in range(settings.topics.single)]
        for topic in topics:
            correlation = box.correlation
            needs.append(Need(topic, (), False, owned=box.owned, only_one=alone, correlation=correlation))
    return needs


def _authorizers(generation: Generation) -> Iterator[tuple[str, str]]:
    """The topics of those that are asked who calls, each with a route that asks."""
    document = generation.document
    for name, route in document.routes.items():
        for scheme in document.effective(route).schemes:
            authorizer = document.auth[scheme].authorizer
            if authorizer is None:
                continue
            service, _, operation = authorizer.call.partition(".")
            upstream = generation.upstreams[service]
            if not isinstance(upstream, HttpUpstream):
                yield cast("Operation", upstream.described(operation, "last")).topic, name
