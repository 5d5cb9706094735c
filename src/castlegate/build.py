"""From a configuration to what serves it: the only place where settings become objects.

A `Generation` is a router with its callers and the resources behind them. Building one opens nothing; `start` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from castlegate.body import Budget
from castlegate.calls.gathering import Gathering, within
from castlegate.calls.plan import CallPlan, FieldRules
from castlegate.calls.settings import CallSettings
from castlegate.composition.answering import Answer
from castlegate.composition.compiling import compile_parts, parts_scope, shape_of
from castlegate.composition.describing import Composition
from castlegate.composition.parts import PartCall
from castlegate.composition.plans import PartPlan
from castlegate.composition.settings import PartSettings
from castlegate.config.references import Scope
from castlegate.config.report import Place, Report
from castlegate.document import Document, Loaded, RouteDefaults, Service
from castlegate.document import Route as RouteSettings
from castlegate.edge.tls import Certificates
from castlegate.endpoints.call import call_endpoint
from castlegate.endpoints.compose import compose_endpoint
from castlegate.endpoints.publish import EventPlan, publish_endpoint
from castlegate.endpoints.settings import DEFAULT_TIMEOUT, RouteLimits
from castlegate.function_building import Functions
from castlegate.guards.backlog import Queue
from castlegate.guards.canary import Canary
from castlegate.guards.chain import Chain
from castlegate.guards.identity import Identify, identify
from castlegate.guards.mirror import Mirror, Shadows
from castlegate.guards.settings import NO_REPEATS, Repeats
from castlegate.issuer.endpoints import Issuer, IssuerEndpoint
from castlegate.issuer.families import Bounds, Families, Room
from castlegate.issuer.file import FileFamilies
from castlegate.issuer.keys import load_keys
from castlegate.issuer.settings import DEFAULT_TOPIC
from castlegate.issuer.topic import TopicFamilies
from castlegate.means import Cluster, Means
from castlegate.message import Caller, Handler, Policy, ReplyMode, stack
from castlegate.policies.addresses import addresses
from castlegate.policies.authenticate import authenticate
from castlegate.policies.authorize import authorize
from castlegate.policies.cors import cors
from castlegate.policies.facts import RequestFacts
from castlegate.policies.limits.policy import limit, limit_addresses
from castlegate.policies.origin import Pages, check_origin, trusted_by
from castlegate.policies.policy import AnswersPreflights, DescribedPolicy, Dresses, Site
from castlegate.policies.secure import secure
from castlegate.policies.validate import validate
from castlegate.python.reference import is_function
from castlegate.resources import Resources
from castlegate.routing.route import Dresser, Route
from castlegate.routing.router import Router
from castlegate.routing.template import ANY, RouteKey, parse_key
from castlegate.rules.instances import Out
from castlegate.schemes.api_keys import KeysScheme
from castlegate.schemes.authorizer import AuthorizerScheme
from castlegate.schemes.certificate import CertificateScheme
from castlegate.schemes.introspection import IntrospectionScheme
from castlegate.schemes.issued import IssuedTokens
from castlegate.schemes.jwt import JwtScheme
from castlegate.schemes.scheme import Scheme
from castlegate.stores.counts import Counts, Layout
from castlegate.telemetry.metrics import Registry
from castlegate.upstreams.http.fetcher import HttpFetcher
from castlegate.upstreams.http.roster import Roster, own_outs
from castlegate.upstreams.http.upstream import HttpUpstream
from castlegate.upstreams.kafka.settings import EMBEDDED, KafkaService
from castlegate.wire.certificates import FromFiles
from castlegate.wire.timer import Timer

if TYPE_CHECKING:
    from castlegate.sketch import Described, DescribedGuard
    from castlegate.upstreams.kafka.engine import Engine
    from castlegate.upstreams.kafka.upstream import KafkaUpstream

    Upstream = HttpUpstream | KafkaUpstream

CHAIN: tuple[Callable[[RouteSettings, Site], DescribedPolicy | None], ...] = (
    secure,
    cors,
    addresses,
    limit_addresses,
    authenticate,
    check_origin,
    authorize,
    limit,
    validate,
)
"""The policies, outermost first: each makes its own for a route, or says that the route does not use it."""

DRESSING: tuple[Callable[[RouteDefaults], DescribedPolicy | None], ...] = (secure, cors)
"""Those of them that also dress what no route answers: made of `defaults` alone."""

SCHEMES: dict[str, Callable[[str, Any, Means], Scheme]] = {
    "issuer": IssuedTokens,
    "jwt": JwtScheme,
    "authorizer": AuthorizerScheme,
    "certificate": CertificateScheme,
    "introspection": IntrospectionScheme,
    "keys": KeysScheme,
}
"""What makes each kind of scheme of its name and its settings."""

MakeEndpoint = Callable[[RouteSettings, Site, float, RouteLimits], Handler]

_TURN = 8  # routes compiled between two turns of the loop: what a reload may hold requests up for


class Readiness(NamedTuple):
    """Whether requests should be sent here; `reason` says what is amiss, also while ready but degraded."""

    ready: bool
    reason: str = ""


class CallerKey(NamedTuple):
    """What callers are made for."""

    call: str
    mode: ReplyMode | Gathering = "last"
    repeats: Repeats = NO_REPEATS
    operation: str = ""  # that a breaker judges by itself, if it does


class Generation:
    """What one configuration became. What is configured as in the one before is carried over, not made anew.

    Made first, then compiled: `router` and `chains` are there after `compile`.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        instance: str,
        slot: int = 0,
        workers: int = 1,
        timer: Timer,
        registry: Registry,
        counts: Counts | None = None,
        previous: Generation | None = None,
    ) -> None:
        self.document: Document = loaded.document
        self._report: Report = loaded.report
        self._slot = slot
        self._timer = timer
        self._registry = registry
        self._previous = previous
        self._routes = {name: self.document.effective(route) for name, route in self.document.every_route().items()}
        self._engine_settings = (self.document.kafka, self.document.listen.name, self.longest_timeout())
        self.engine = self._carried_engine() or self._make_engine(instance, slot, workers)
        self.certificates: list[FromFiles] = []
        """What is to be made anew when its files change."""
        tls = self.document.listen.tls
        self.client_certificates = None if tls is None else Certificates(tls, ("listen", "tls"), self._report.folder)
        if self.client_certificates is not None:
            self.certificates.append(self.client_certificates)
        self._budget_size = max(self.document.listen.limits.collected // workers, self._largest_body())
        self._budget: Budget = Budget(self._budget_size) if previous is None else previous._budget
        self._callers: dict[bytes, tuple[Caller, list[Described]]] = {}
        """Each with its guards, then the upstream, by what was asked for."""
        self.chains: dict[str, list[Described]] = {}  # of each route: everything its requests pass, outermost first
        self._resources: Resources = Resources(None if previous is None else previous._resources)
        self.upstreams: dict[str, Upstream] = {name: self._upstream(name) for name in self.document.services}
        self._previous = None  # what is not carried over is not kept alive
        self._issuer = self._make_issuer()
        self._means = self._make_means(workers, counts)
        self._guards = Chain(self._means)
        self.told_names = self.document.told_names()
        """Fields of clients that nobody gets: see `Document.told_names`."""
        self._identities: dict[str, Identify | None] = {}  # of each service
        self._schemes: dict[str, Scheme] = {
            name: SCHEMES[said.kind](name, getattr(said, said.kind), self._means)
            for name, said in self.document.auth.items()
        }
        self.certificates += [each.issuers for each in self._schemes.values() if isinstance(each, CertificateScheme)]
        self._functions = Functions(
            self.document.python,
            self.document.services,
            self._means.caller,
            folder=self._report.folder,
            resources=self._resources,
            timer=timer,
            registry=registry,
            budget=self._budget,
        )
        self._rules = {
            name: self._functions.rule(policy, self._report.place("policies", name, "python"))
            if policy.python is not None
            else policy.rule()
            for name, policy in self.document.policies.items()
        }
        self.router: Router[Route]

    async def compile(self) -> None:
        """Make the routes. Others have their turn in between: requests are served while a reload is prepared. Raises
        `ConfigError`.
        """
        routes = []
        for number, name in enumerate(self.document.routes):
            routes.append(self._route(name))
            if number % _TURN == _TURN - 1:
                await asyncio.sleep(0)
        if self._issuer is not None:
            routes += self._issuer_routes(self._issuer)
        self.router = Router(routes)
        self._report.raise_if_any()

    async def start(self) -> None:
        """Open what can be opened now; what cannot be reached is tried again in the background."""
        if self.engine is not None:
            await self.engine.start()
        await self._resources.start()

    def watch(self) -> None:
        """Have gauges tell of this generation from now on; what all share is as large as it says."""
        self._budget.resize(self._budget_size)
        self._guards.watch()
        for upstream in self.upstreams.values():
            if isinstance(upstream, HttpUpstream):
                upstream.watch(self._registry)
        self._functions.watch()
        if self.engine is not None:
            self.engine.metrics.watch(self.engine.pending)
            self.engine.use(self.topics())

    def dress(self, unrouted: Route) -> None:
        """Have what no route answers look as `defaults` say: browsers must be told there as well."""
        policies = [policy for make in DRESSING if (policy := make(self.document.defaults)) is not None]
        unrouted.dressers, unrouted.preflight = _dressers(policies), _preflight(policies)

    def follow(self, service: str, roster: Roster) -> None:
        """This is known of a service's instances from now on."""
        upstream = self.upstreams.get(service)
        if isinstance(upstream, HttpUpstream):
            roster.settle(upstream, self._timer.now())

    def outs(self) -> dict[str, dict[str, dict[str, Out]]]:
        """By service and instance, who holds it out beside the checks."""
        found = {}
        for name, upstream in self.upstreams.items():
            if isinstance(upstream, HttpUpstream) and (outs := own_outs(upstream)):
                found[name] = outs
        return found

    def topics(self) -> frozenset[str]:
        """Those of Kafka that its routes write to and read from."""
        used = {route.publish for route in self.document.routes.values() if route.publish is not None}
        issuer = self.document.issuer
        if issuer is not None and issuer.state.file is None:
            used.add(issuer.state.topic or DEFAULT_TOPIC)
        if self.document.limit_store.store == "kafka":
            used.add(self.document.limit_store.topic)
        for upstream in self.upstreams.values():
            if not isinstance(upstream, HttpUpstream):
                used |= upstream.topics()
        return frozenset(used)

    async def retire(self, others: Sequence[Generation], grace: float) -> None:
        """Close what no other generation that lives uses; what is in flight has `grace` seconds."""
        used = {id(each) for other in others for each in (*other.upstreams.values(), other.engine)}
        for name, upstream in self.upstreams.items():
            if isinstance(upstream, HttpUpstream) and id(upstream) not in used:
                upstream.close()
                if others and not any(isinstance(other.upstreams.get(name), HttpUpstream) for other in others):
                    upstream.unwatch(self._registry)
        await self._resources.retire([other._resources for other in others])
        if self.engine is not None and id(self.engine) not in used:
            await self.engine.stop(grace)
        forget_unused(others)

    def readiness(self) -> Readiness:
        """Ready while at least one route can be served."""
        problem = "; ".join(self._problems())
        if self.engine is None:
            return Readiness(True, problem)
        reason = "; ".join(filter(None, (self.engine.state.reason, problem)))
        if self.engine.state.ready:
            return Readiness(True, reason)
        calls = [each.call for route in self.document.routes.values() for each in (route, *route.composed)]
        said = [call for call in calls if call is not None]
        return Readiness(any(is_function(call) or self._over_http(call) for call in said), reason)

    def _problems(self) -> Iterator[str]:
        """What is amiss beside Kafka."""
        if self._issuer is not None and self._issuer.problem:
            yield self._issuer.problem
        for name, upstream in self.upstreams.items():
            if isinstance(upstream, HttpUpstream) and not upstream.instances.members:
                yield f"service {name} has no instances"

    def _largest_body(self) -> int:
        """Bytes of the largest one that a route takes: there must be room for it, whatever the settings say."""
        return max(((route.limits or RouteLimits()).largest_body for route in self._routes.values()), default=0)

    def _carried_engine(self) -> Engine | None:
        """That of the generation before, where nothing has changed for it."""
        before = self._previous
        if before is None or before.engine is None or before.engine.stopping:
            return None
        return before.engine if before._engine_settings == self._engine_settings else None

    def _make_engine(self, instance: str, slot: int, workers: int) -> Engine | None:
        kafka = self.document.kafka
        if kafka is None:
            return None
        from castlegate.upstreams.kafka.engine import Engine  # slow to load, and not everybody has Kafka

        if kafka.bootstrap == "embedded":
            kafka = msgspec.structs.replace(kafka, bootstrap=EMBEDDED)
        return Engine(
            msgspec.structs.replace(kafka, max_pending=-(-kafka.max_pending // workers)),
            instance=instance,
            slot=slot,
            name=self.document.listen.name,
            timer=self._timer,
            registry=self._registry,
            longest_timeout=self.longest_timeout(),
            loop=asyncio.get_running_loop(),
        )

    def _make_means(self, workers: int, counts: Counts | None) -> Means:
        registry, timer, folder = self._registry, self._timer, self._report.folder
        return Means(
            resources=self._resources,
            registry=registry,
            timer=timer,
            budget=self._budget,
            folder=folder,
            workers=workers,
            counts=counts or Counts(Layout(self.document.limit_store.entries, 1), registry=registry),
            limit_store=self.document.limit_store,
            caller=lambda call: self._caller(CallerKey(call))[0],
            # Kept by what is carried over, so it must not know of this generation.
            fetcher=lambda name, origin, tls, path: HttpFetcher(name, origin, tls, path, timer, registry, folder),
            cluster=self._cluster(),
            own=None if self._issuer is None else self._issuer.tokens,
        )

    def _cluster(self) -> Cluster | None:
        engine = self.engine
        if engine is None:
            return None
        from castlegate.upstreams.kafka.log import NEWS

        return Cluster(f"{id(engine)}", lambda topic: engine.log(topic, NEWS), engine.settings.max_record)

    def longest_timeout(self) -> float:
        """Seconds that a request of this generation may take."""
        timeouts = [route.timeout or DEFAULT_TIMEOUT for route in self._routes.values()]
        timeouts += [each.authorizer.timeout for each in self.document.auth.values() if each.authorizer is not None]
        for service in self.document.services.values():
            if service.kafka is not None:
                timeouts += [each.timeout for each in service.kafka.operations.values() if each.timeout is not None]
        return max(timeouts, default=DEFAULT_TIMEOUT)

    def _upstream(self, name: str) -> Upstream:
        service = self.document.services[name]
        if service.http is not None:
            before = self._previous
            if before is not None and name in before.upstreams and _alike(before.document.services[name], service):
                upstream = before.upstreams[name]
            else:
                upstream = HttpUpstream(
                    name,
                    service.http,
                    self._timer,
                    self._registry,
                    self._report.folder,
                    ejection=self.document.ejection_of(name),
                    panic=service.panic,
                )
            if isinstance(upstream, HttpUpstream) and upstream.certificates is not None:
                self.certificates.append(upstream.certificates)
            return upstream
        assert service.kafka is not None, "the document was checked"
        assert self.engine is not None, "the document was checked"
        return self.engine.service(name, service.kafka)

    def _route(self, name: str) -> tuple[RouteKey, Route]:
        return self._compiled(name, self.document.routes[name], self._report.place("routes", name), self._endpoint)

    def _compiled(self, name: str, said: RouteSettings, at: Place, endpoint: MakeEndpoint) -> tuple[RouteKey, Route]:
        key = parse_key(name, at)
        assert key is not None, "the document was checked"
        settings = self._routes[name]
        limits = settings.limits or RouteLimits()
        timeout = self.document.timeout(said)
        scope, body = self.document.scope(key, settings, self.told_names), limits.largest_body
        site = Site(name, key, scope, at, body, self._schemes, self._means, self._rules)
        policies = [policy for make in CHAIN if (policy := make(settings, site)) is not None]
        self.chains[name] = [*policies]
        preflight = _preflight(policies)
        forwards_options = key.method == ANY and preflight is None and self._forwards_method(settings)
        route = Route(
            name,
            stack(endpoint(settings, site, timeout, limits), policies),
            limits.largest_body,
            self._registry,
            timeout=timeout,
            takes_options=key.method == b"OPTIONS" or forwards_options,
            preflight=preflight,
            dressers=_dressers(policies),
            asks=_asked(settings),
        )
        return key, route

    def _make_issuer(self) -> Issuer | None:
        settings = self.document.issuer
        if settings is None:
            return None
        keys = load_keys(settings.keys, self._report.place("issuer", "keys"))
        self._report.raise_if_any()
        refresh, state = settings.refresh, settings.state
        bounds = Bounds(refresh.idle, refresh.lifetime, refresh.grace, settings.access + settings.leeway)
        room = Room(state.most, state.per_subject)
        engine = self.engine

        def make() -> Families:
            if state.file is not None:
                return FileFamilies(self._report.folder / state.file, bounds, room)
            assert engine is not None, "the document was checked"
            from castlegate.upstreams.kafka.log import TABLE

            log = engine.log(state.topic or DEFAULT_TOPIC, TABLE)
            return TopicFamilies(log, self._timer, bounds, room)

        # A topic is read through an engine and ends with it.
        whose = "issuer" if state.file is not None else f"issuer of {id(engine)}"
        families = self._resources.keep(whose, (state, bounds), make)
        return Issuer(settings, keys, families, self._timer.now)

    def _issuer_routes(self, issuer: Issuer) -> Iterator[tuple[RouteKey, Route]]:
        """Those that the issuer adds."""
        assert self.document.issuer is not None
        by_cookie = self.document.issuer.refresh.by == "cookie"

        def made(name: str, settings: RouteSettings, site: Site, timeout: float, _limits: RouteLimits) -> Handler:
            self.chains[site.name].append(IssuerEndpoint(name))
            if name == "login":
                plan, caller = self._planned(settings, site, timeout)
                handler = issuer.login(plan, caller, self._budget, limit=site.body)
            else:
                handler = issuer.handler(name, self._budget, limit=site.body)
            # What browsers add by themselves is worth nothing from the pages of others: nor may those log anyone in.
            return Pages(trusted_by(settings)).guard(handler) if by_cookie and site.key.method == b"POST" else handler

        for text, (name, said) in self.document.issuer.routes().items():
            at = self._report.place("issuer", *(("login",) if name == "login" else ("paths", name)))
            yield self._compiled(text, said, at, partial(made, name))

    def _over_http(self, call: str) -> bool:
        """Whether it is a service that speaks HTTP."""
        return not is_function(call) and self.document.services[call.partition(".")[0]].http is not None

    def _forwards_method(self, settings: RouteSettings) -> bool:
        """Whether the service gets the client's own method."""
        return settings.call is not None and settings.verb is None and self._over_http(settings.call)

    def _caller(self, asked: CallerKey) -> tuple[Caller, list[Described]]:
        """The caller of `service.operation` inside the guards of the service, and its links: one for all routes that
        call it so.
        """
        key = msgspec.msgpack.encode(asked)
        if key not in self._callers:
            name, _, operation = asked.call.partition(".")
            upstream, service = self.upstreams[name], self.document.services[name]
            told = self._identify(name)
            guards = [*self._passing_on(name, operation, asked), *([] if told is None else [told])]
            if isinstance(upstream, HttpUpstream):
                bound: Caller = upstream.bind(operation)
                described = upstream.described(operation)
                instances, queue = upstream.instances, None
            else:
                bound = upstream.bind(operation, asked.mode)
                described = upstream.described(operation, asked.mode)
                instances, queue = None, self._queue(name, service.kafka, upstream.topic(operation, asked.mode))
            guards += self._guards.of(name, asked.operation, service, asked.repeats, instances, queue)
            if isinstance(upstream, HttpUpstream) and upstream.ejecting is not None:
                guards.append(upstream.ejecting)  # innermost: each try is judged
            links: list[Described] = [*guards, described, *([] if service.health is None else [service.health])]
            self._callers[key] = stack(bound, guards), links
        return self._callers[key]

    def _queue(self, name: str, settings: KafkaService | None, topic: str) -> Queue | None:
        """What is known of the backlog of a topic of the service, if it says which group reads it."""
        engine = self.engine
        group = None if settings is None else settings.group
        if engine is None or group is None:
            return None
        # It is read through an engine and ends with it.
        kind = f"lag of {name} in {id(engine)}"
        lag = self._resources.keep(kind, group, lambda: engine.lag(name, group))
        return Queue(topic, group.group, group.every, lag.of(topic), told=self._slot == 0)

    def _judged(self, call: str, route: str) -> str:
        """What a breaker for each operation takes for one: over HTTP, where they have no names, a route."""
        name, _, operation = call.partition(".")
        breaker = self.document.services[name].breaker
        return "" if breaker is None or breaker.per != "operation" else operation or route

    def _passing_on(self, name: str, operation: str, asked: CallerKey) -> list[DescribedGuard]:
        """What hands its calls to other services, or copies of them."""
        guards: list[DescribedGuard] = []
        service = self.document.services[name]
        if service.mirror is not None:
            shadows = self._resources.keep(f"mirror of {name}", service.mirror, Shadows)
            shadow, _ = self._caller(CallerKey(service.mirror.service))
            guards.append(Mirror(service.mirror, name, shadow, shadows, self._timer.now, self._registry))
        if service.canary is not None:
            other = f"{service.canary.service}.{operation}" if operation else service.canary.service
            caller, _ = self._caller(asked._replace(call=other))
            guards.append(Canary(service.canary, caller))
        return guards

    def _identify(self, name: str) -> Identify | None:
        """What tells a service who calls; one for all its operations."""
        if name not in self._identities:
            said, service = self.document.identity_of(name), self.document.services[name]
            at = self._report.place(*([] if service.identity is None else ["services", name]), "identity")
            copies = service.kafka is not None and service.kafka.dialect == "zilla"
            folder = self._report.folder
            self._identities[name] = None if said is None else identify(said, name, at, folder, copies=copies)
        return self._identities[name]

    def _endpoint(self, settings: RouteSettings, site: Site, timeout: float, limits: RouteLimits) -> Handler:
        """What the route does; noted in its chain."""
        chain, scope, at = self.chains[site.name], site.scope, site.at
        if settings.publish is not None:
            assert self.engine is not None, "the document was checked"
            publisher = self.engine.publisher(settings.publish)
            event = EventPlan(settings, scope, at)
            chain += [event, publisher]
            return publish_endpoint(publisher, event, self._budget, limit=site.body)
        if settings.compose is not None:
            return self._compose(settings, site, timeout)
        plan, caller = self._planned(settings, site, timeout)
        assert settings.call is not None, "the document was checked"
        whole = not self._over_http(settings.call)
        return call_endpoint(plan, caller, settings, limits, self._budget, whole=whole, scope=scope, at=at)

    def _compose(self, settings: RouteSettings, site: Site, timeout: float) -> Handler:
        """The route's parts, and the answer made of them; noted in its chain."""
        assert settings.compose is not None
        at, chain = site.at.field("compose"), self.chains[site.name]
        first = len(chain)
        parts = compile_parts(
            settings.compose,
            site.scope,
            at,
            RequestFacts,
            partial(self._part_call, site),
            timeout=timeout,
            counts=self._registry.counter(
                "castlegate_parts_total", "Parts of composed answers, by outcome.", "route", "part", "outcome"
            ),
            route=site.name,
            fields=settings.headers.response,
        )
        chain.insert(first, Composition(settings, parts, timeout, RequestFacts))
        answer = Answer(
            parts,
            shape_of(settings.shape),
            status=settings.status or 200,
            timing=bool(settings.server_timing),
        )
        scope = parts_scope(settings.compose, site.scope)
        fields = FieldRules(settings.headers.response, scope, site.at.field("headers", "response"))
        return compose_endpoint(parts, answer, fields, self._timer, self._budget, largest=site.body)

    def _part_call(
        self,
        site: Site,
        settings: CallSettings,
        said: float | None,
        otherwise: float,
        scope: Scope,
        at: Place,
    ) -> PartCall:
        """A call of a part, which takes at most `otherwise` seconds, and who makes it; noted in the route's chain."""
        assert settings.call is not None, "the document was checked"
        call, operation = settings.call, self.document.operation(settings.call)
        if operation is not None:
            settings = msgspec.structs.replace(
                settings, key=settings.key or operation.key, reply=settings.reply or operation.reply
            )
            said = said or operation.timeout
        timeout = within(settings.gather, min(said or otherwise, otherwise))
        plan = PartPlan(settings, timeout, scope, at, over_http=is_function(call) or self._over_http(call))
        repeats = NO_REPEATS
        if isinstance(settings, PartSettings):
            repeats = Repeats(retry=settings.retry, hedge=settings.hedge)
        caller, links = self._caller_of(settings, repeats, site.name, site.key.params, at)
        self.chains[site.name] += [plan, *links]
        return PartCall(plan, caller)

    def _planned(self, settings: RouteSettings, site: Site, timeout: float) -> tuple[CallPlan, Caller]:
        """A call and who makes it; noted in the route's chain."""
        assert settings.call is not None, "the document was checked"
        call, operation = settings.call, self.document.operation(settings.call)
        if operation is not None:
            settings = msgspec.structs.replace(
                settings, key=settings.key or operation.key, reply=settings.reply or operation.reply
            )
        carries_fields = is_function(call) or self._over_http(call)
        timeout = within(settings.gather, timeout)
        plan = CallPlan(settings, timeout, site.scope, site.at, carries_fields=carries_fields)
        repeats = Repeats(retry=settings.retry, hedge=settings.hedge)
        caller, links = self._caller_of(settings, repeats, site.name, site.key.params, site.at)
        self.chains[site.name] += [plan, *links]
        return plan, caller

    def _caller_of(
        self, settings: CallSettings, repeats: Repeats, route: str, params: Sequence[str], at: Place
    ) -> tuple[Caller, list[Described]]:
        """Who makes a call of a route with such placeholders, and the links that it passes."""
        assert settings.call is not None, "the document was checked"
        if is_function(settings.call):
            return self._functions.caller(settings.call, params, at.field("call"))
        asked = CallerKey(
            settings.call,
            (settings.reply or "last") if settings.gather is None else settings.gather.gathering(),
            repeats,
            self._judged(settings.call, route),
        )
        return self._caller(asked)


def _dressers(policies: Sequence[Policy]) -> list[Dresser]:
    return [policy.dress for policy in reversed(policies) if isinstance(policy, Dresses)]


def _preflight(policies: Sequence[Policy]) -> Handler | None:
    return next((policy.preflight for policy in policies if isinstance(policy, AnswersPreflights)), None)


def forget_unused(generations: Sequence[Generation]) -> None:
    """Have what these share forget what none of them uses, such as topics of routes that are gone."""
    for engine in {each.engine for each in generations if each.engine is not None}:
        engine.keep(frozenset().union(*[each.topics() for each in generations if each.engine is engine]))


def _alike(before: Service, after: Service) -> bool:
    """Whether a service's connections and what is known of its instances can be carried over."""
    return (before.http, before.ejection, before.panic) == (after.http, after.ejection, after.panic)


def _asked(settings: RouteSettings) -> bytes:
    """What a route asks of callers, to be compared; nothing of one that is open to everyone."""
    asked = (settings.schemes, settings.scopes, settings.claims, settings.policies, settings.addresses)
    return msgspec.msgpack.encode(asked) if any(asked) else b""
