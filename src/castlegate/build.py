"""From a configuration to what serves it: the only place where settings become objects.

A `Generation` is a router with its callers and the resources behind them. Building one opens nothing; `start` does.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from castlegate.config.report import Report
from castlegate.document import Document, Loaded
from castlegate.document import Route as RouteSettings
from castlegate.endpoints.call import CallPlan, call_endpoint
from castlegate.endpoints.publish import publish_endpoint
from castlegate.endpoints.settings import RouteLimits
from castlegate.guards.retry import Retry
from castlegate.message import Caller, Guard, Handler, ReplyMode, stack
from castlegate.routing.route import Route
from castlegate.routing.router import Router
from castlegate.routing.template import ANY, RouteKey, parse_key
from castlegate.telemetry.metrics import Registry
from castlegate.upstreams.http.upstream import HttpUpstream
from castlegate.upstreams.kafka.engine import Engine
from castlegate.upstreams.kafka.settings import EMBEDDED, KafkaOperation
from castlegate.upstreams.kafka.upstream import KafkaUpstream
from castlegate.wire.timer import Timer

if TYPE_CHECKING:
    from castlegate.config.report import Place

DEFAULT_TIMEOUT = 10.0  # seconds, of a route that says none

Upstream = HttpUpstream | KafkaUpstream


class Generation:
    """What one configuration became."""

    def __init__(self, loaded: Loaded, *, instance: str, timer: Timer, registry: Registry) -> None:
        self.document: Document = loaded.document
        self._report: Report = loaded.report
        self._timer = timer
        self._registry = registry
        self.engine: Engine | None = None
        kafka = self.document.kafka
        if kafka is not None:
            embedded = kafka.bootstrap == "embedded"
            self.engine = Engine(
                msgspec.structs.replace(kafka, bootstrap=EMBEDDED) if embedded else kafka,
                instance=instance,
                slot=0,
                name=self.document.listen.name,
                timer=timer,
                registry=registry,
                longest_timeout=self._longest_timeout(),
                loop=asyncio.get_running_loop(),
            )
        self._callers: dict[tuple[str, ReplyMode], Caller] = {}
        self.upstreams: dict[str, Upstream] = {name: self._upstream(name) for name in self.document.services}
        self.router: Router[Route] = Router(self._routes())
        self._report.raise_if_any()

    async def start(self) -> None:
        """Open what can be opened now; what cannot be reached is tried again in the background."""
        if self.engine is not None:
            await self.engine.start()

    async def stop(self, grace: float) -> None:
        """Close it all; what is in flight has `grace` seconds."""
        for upstream in self.upstreams.values():
            if isinstance(upstream, HttpUpstream):
                upstream.close()
        if self.engine is not None:
            await self.engine.stop(grace)

    def _longest_timeout(self) -> float:
        routes = [self.document.effective(route) for route in self.document.routes.values()]
        timeouts = [route.timeout or DEFAULT_TIMEOUT for route in routes]
        for service in self.document.services.values():
            if service.kafka is not None:
                timeouts += [each.timeout for each in service.kafka.operations.values() if each.timeout is not None]
        return max(timeouts, default=DEFAULT_TIMEOUT)

    def _upstream(self, name: str) -> Upstream:
        service = self.document.services[name]
        if service.http is not None:
            return HttpUpstream(service.http, self._timer)
        assert service.kafka is not None, "the document was checked"
        assert self.engine is not None, "the document was checked"
        return self.engine.service(name, service.kafka)

    def _routes(self) -> list[tuple[RouteKey, Route]]:
        routes = []
        for name, said in self.document.routes.items():
            at = self._report.place("routes", name)
            key = parse_key(name, at)
            assert key is not None, "the document was checked"
            settings = self.document.effective(said)
            limits = settings.limits or RouteLimits()
            timeout = self._timeout(said, settings)
            route = Route(
                name,
                self._handler(settings, key, timeout, limits, at),
                limits.body,
                self._registry,
                timeout=timeout,
                takes_options=key.method == b"OPTIONS" or (key.method == ANY and self._forwards_method(settings)),
            )
            routes.append((key, route))
        return routes

    def _operation(self, call: str) -> KafkaOperation | None:
        """What the configuration says of `service.operation`, if it is behind Kafka and anything is said."""
        name, _, operation = call.partition(".")
        kafka = self.document.services[name].kafka
        return None if kafka is None else kafka.operations.get(operation)

    def _timeout(self, said: RouteSettings, settings: RouteSettings) -> float:
        """What the route says, else the operation, else the defaults."""
        operation = None if settings.call is None else self._operation(settings.call)
        of_operation = None if operation is None else operation.timeout
        return said.timeout or of_operation or settings.timeout or DEFAULT_TIMEOUT

    def _forwards_method(self, settings: RouteSettings) -> bool:
        """Whether the service gets the client's own method."""
        if settings.call is None or settings.verb is not None:
            return False
        return self.document.services[settings.call.partition(".")[0]].http is not None

    def _caller(self, call: str, mode: ReplyMode) -> Caller:
        """The caller of `service.operation` inside the guards of the service: one for all routes that call it so."""
        caller = self._callers.get((call, mode))
        if caller is None:
            name, _, operation = call.partition(".")
            upstream = self.upstreams[name]
            guards: list[Guard] = []
            if isinstance(upstream, HttpUpstream):
                guards.append(Retry(name, upstream.instances, self._timer.now, self._registry))
                bound: Caller = upstream.bind(operation)
            else:
                bound = upstream.bind(operation, mode)
            caller = self._callers[call, mode] = stack(bound, guards)
        return caller

    def _handler(
        self, settings: RouteSettings, key: RouteKey, timeout: float, limits: RouteLimits, at: Place
    ) -> Handler:
        """The endpoint inside the policies that the route uses, the first of them outermost."""
        scope = key.scope()
        if settings.publish is not None:
            assert self.engine is not None, "the document was checked"
            publisher = self.engine.publisher(settings.publish)
            return publish_endpoint(publisher, settings, limit=limits.body, scope=scope, at=at)
        assert settings.call is not None, "the document was checked"
        call, operation = settings.call, self._operation(settings.call)
        if operation is not None:
            settings = msgspec.structs.replace(
                settings, key=settings.key or operation.key, reply=settings.reply or operation.reply
            )
        behind_kafka = self.document.services[call.partition(".")[0]].kafka is not None
        plan = CallPlan(settings, timeout, scope, at, carries_fields=not behind_kafka)
        caller = self._caller(call, settings.reply or "last")
        return call_endpoint(plan, caller, settings, whole=behind_kafka, limit=limits.body, scope=scope, at=at)
