"""A service that speaks HTTP: chooses an instance, sends the call, gives the reply.

Instances may come and go while calls run (`add`, `remove`); who may be chosen is said to `instances`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from castlegate.config.addresses import Origin, parse_origin
from castlegate.errors import CallFailed
from castlegate.message import Call, Caller, Reply, stack
from castlegate.rules.ejection import Ejection
from castlegate.rules.instances import Instance, Instances
from castlegate.sketch import Described, Description, Sketch
from castlegate.telemetry.metrics import Counter, Family, Gauge, Registry
from castlegate.upstreams.http.balance import choosing, told
from castlegate.upstreams.http.connection import ServerConnection
from castlegate.upstreams.http.ejecting import Ejecting
from castlegate.upstreams.http.framing import AnswerReader
from castlegate.upstreams.http.pool import Pool
from castlegate.upstreams.http.settings import HttpService
from castlegate.upstreams.http.uploads import Uploads
from castlegate.waiting import Waiter
from castlegate.wire.service_tls import ServiceCertificates
from castlegate.wire.timer import Timer

_MOST_ADDRESSES = 1000  # of instances that a service has or had, which metrics tell apart
_BODILESS = frozenset((b"GET", b"HEAD", b"DELETE", b"OPTIONS"))


class HttpInstance(Instance):
    """One instance, with the connections to it."""

    __slots__ = ("answered", "label", "pool", "url", "version")
    pool: Pool
    label: str  # in metrics
    answered: Counter
    url: str  # as people read it
    version: bytes  # what stands behind the target in the head of every call


class HttpUpstream:
    """One service and its instances."""

    def __init__(
        self,
        name: str,
        settings: HttpService,
        timer: Timer,
        registry: Registry,
        folder: Path = Path(),
        certificates: ServiceCertificates | None = None,
        *,
        ejection: Ejection | None = None,
        panic: float = 0.0,
    ) -> None:
        """`folder`: what the files of its settings are relative to. `certificates`: if they have been made of them.
        `ejection`: how instances are judged by their answers, if they are. `panic`: the share that must be well.
        """
        self._now = timer.now
        self._name = name
        self._results = registry.counter(
            "castlegate_upstream_requests_total",
            "Calls of instances: answered, or the kind of failure.",
            "service",
            "address",
            "result",
        )
        self._addresses: set[str] = set()
        self._seconds = registry.histogram(
            "castlegate_upstream_duration_seconds", "From sending a call to the head of its answer.", "service"
        ).child(name)
        self._reader = AnswerReader(settings.pool.headers)
        self._settings = settings
        self._timer = timer
        self._host = settings.spoken_host
        origins = [parse_origin(each.url) for each in settings.targets]
        self.certificates = certificates
        if certificates is None and settings.encrypted:
            path = "services", name, "http", "tls"
            self.certificates = ServiceCertificates(settings.certified, f"service {name}", path, folder)
        self.instances = Instances(
            [
                self._make(origin, each.weight, each.priority)
                for origin, each in zip(origins, settings.targets, strict=True)
            ],
            least=panic,
            slow_start=settings.balance.slow_start,
        )
        """Who may be chosen."""
        self.found_by = settings.found_by
        """What finds its instances, which are told to it (`add`, `remove`); None: they are listed."""
        self.ejecting: Ejecting | None = None
        """The guard that judges its instances, right around its calls; a lone one is not judged."""
        if ejection is not None and (self.found_by is not None or len(origins) > 1):
            self.ejecting = Ejecting(name, ejection, self.instances, timer.now, registry)
        self._balancer, wrappers = choosing(settings.balance, self.instances, name, timer.now)
        self._caller = stack(self._call, wrappers)
        self._choose: Callable[[Call, float], HttpInstance]
        self.instances.watch(self._bind_choice)
        self._bind_choice()

    def add(self, url: str, weight: int = 1, priority: int = 0) -> HttpInstance:
        """One more instance, `http://host:port`; calls go there from now on. Raises `ValueError` for another URL."""
        instance = self._make(parse_origin(url), weight, priority)
        self.instances.add(instance, self._now())
        return instance

    def remove(self, instance: HttpInstance) -> None:
        """It gets nothing new; calls that are there go on, and its connections close behind them."""
        self.instances.remove(instance)
        instance.pool.close()

    def _make(self, origin: Origin, weight: int = 1, priority: int = 0) -> HttpInstance:
        if origin.tls and self.certificates is None:
            raise ValueError("expected http://, as all instances of this service have it")
        certificates = self.certificates if origin.tls else None
        instance = HttpInstance(origin.authority, weight, priority)
        instance.pool = Pool(
            instance, origin.host, origin.port, self._settings.pool, self._reader, self._timer, certificates
        )
        instance.url = str(origin)
        if len(self._addresses) < _MOST_ADDRESSES:
            self._addresses.add(instance.name)
        instance.label = instance.name if instance.name in self._addresses else "other"
        instance.answered = self._results.child(self._name, instance.label, "answered")
        instance.version = b" HTTP/1.1\r\nhost: %b\r\n" % (self._host or origin.authority.encode())
        return instance

    def _bind_choice(self) -> None:
        """One instance is not chosen."""
        members = self.instances.members
        if len(members) == 1 and members[0].available:
            only = members[0]
            self._choose = lambda _call, _now: only
        else:
            self._choose = self._balancer.choose

    def watch(self, registry: Registry) -> None:
        """Have the gauges of its service tell of this one."""
        connections, waiting = _gauges(registry)
        connections.watch(lambda: sum(pool.idle for pool in self._pools()), self._name, "idle")
        connections.watch(lambda: sum(pool.open - pool.idle for pool in self._pools()), self._name, "busy")
        waiting.watch(lambda: sum(pool.waiting for pool in self._pools()), self._name)
        _panic(registry).watch(lambda: self.instances.panicking, self._name)

    def unwatch(self, registry: Registry) -> None:
        """There is no such service any more."""
        connections, waiting = _gauges(registry)
        connections.forget(self._name, "idle")
        connections.forget(self._name, "busy")
        waiting.forget(self._name)
        _panic(registry).forget(self._name)

    def close(self) -> None:
        """Close the idle connections."""
        for pool in self._pools():
            pool.close()
        if self.ejecting is not None:
            self.ejecting.close()

    def _pools(self) -> Iterator[Pool]:
        return (each.pool for each in self.instances.members)

    def bind(self, operation: str) -> Caller:
        """The caller; HTTP services have no operations, method and target come with the call."""
        del operation
        return self._caller

    def described(self, operation: str) -> Described:
        """What `bind` bound, as `castlegate explain` tells it."""
        del operation
        return self

    def describe(self, sketch: Sketch) -> Description:
        """The heads of the request to each instance."""
        call: Call = sketch.sent
        source, instances = self._settings.source, self.instances.members
        method, target = call.method.decode(), sketch.show(call.target)
        sends = [f"{each.url}{target}{_rank(each)}" for each in instances]
        if source is not None:
            instances = [self._make(Origin("instance", 0, source.scheme == "https"))]
            sends = [f"{source.scheme}://(each of {source.says}){target}"]
        lines = sketch.show(self._head(instances[0], call)).split("\r\n")[1:-2]
        fields = [line for line in lines if not line.startswith(("host:", "content-length:"))]
        alone = source is None and len(instances) == 1
        host = self._host or (instances[0].name if alone else "that of the instance")
        says: dict[str, Any] = {
            "sends": [f"{method} {each}" for each in sends],
            "fields": [f"host: {sketch.show(host)}", *fields],
        }
        if not alone:
            says["chooses"] = told(self._settings.balance, sketch, self.instances)
        if call.body:
            assert isinstance(call.body, bytes)
            says["body"] = sketch.show(call.body)
        return Description(role="upstream", name="HTTP/1.1", says=says)

    async def _call(self, call: Call) -> Reply:
        """Ask one instance. Raises `CallFailed`, having noted the instance among those that were tried."""
        now = self._now()
        try:
            instance = call.instance = self._choose(call, now)
        except CallFailed as failed:
            self._results.child(self._name, "none", failed.kind.name).value += 1
            raise
        pool = instance.pool
        instance.in_flight += 1
        until = call.until(now)
        connection: ServerConnection | None = None
        waiter: Waiter[Reply] | None = None
        uploads: Uploads | None = None  # where a place is held that is not the connection's yet
        try:
            body = None if isinstance(call.body, bytes) or call.body.complete else call.body
            if body is not None:
                await pool.uploads.enter(body, until)
                uploads = pool.uploads
            connection = None if call.fresh else pool.take_idle(now)
            if connection is None:
                connection = await pool.wait_for_one(until, body, fresh=call.fresh)
                call.reused = connection.used
            place, uploads = uploads, None
            call.sent = True
            waiter = connection.send(call, self._head(instance, call), until, place)
            reply = await waiter
        except CallFailed as failed:
            call.failed_on(instance)
            self._results.child(self._name, instance.label, failed.kind.name).value += 1
            raise
        except asyncio.CancelledError:
            if connection is not None and waiter is not None:
                if waiter.done() and not waiter.failed():
                    waiter.result().close()  # it came in the same moment
                else:
                    connection.abandon(call)  # of a task, the waiter itself is cancelled
            raise
        finally:
            if waiter is None:
                instance.in_flight -= 1  # else the connection does that
            if uploads is not None:
                uploads.leave()
        instance.answered.value += 1
        self._seconds.observe(self._now() - now)
        return reply

    def _head(self, instance: HttpInstance, call: Call) -> bytes:
        request, body = call.request, call.body
        if isinstance(body, bytes):
            framing = b"content-length: %d\r\n" % len(body) if body or call.method not in _BODILESS else b""
        elif body.length is None:
            framing = b"transfer-encoding: chunked\r\n"
        else:
            framing = b"content-length: %d\r\n" % body.length
        trace = request.trace
        if trace.state is not None:
            framing += b"tracestate: %b\r\n" % trace.state
        return b"%b %b%b%b%b\r\nx-request-id: %b\r\ntraceparent: %b\r\n%b\r\n" % (
            call.method, call.target, instance.version, call.headers.wire, request.forwarded, request.id,
            trace.traceparent, framing,
        )  # fmt: skip


def _rank(instance: HttpInstance) -> str:
    """What it gets, where that is not the ordinary."""
    weight = f"weight {instance.weight}" if instance.weight != 1 else ""
    priority = f"priority {instance.priority}" if instance.priority else ""
    return f" ({', '.join(filter(None, (weight, priority)))})" if weight or priority else ""


def _panic(registry: Registry) -> Family[Gauge]:
    return registry.gauge(
        "castlegate_upstream_panic", "Workers that call all instances of a service, since too few are well.", "service"
    )


def _gauges(registry: Registry) -> tuple[Family[Gauge], Family[Gauge]]:
    return (
        registry.gauge("castlegate_upstream_connections", "Connections to services by state.", "service", "state"),
        registry.gauge("castlegate_upstream_waiting", "Calls that wait for a connection.", "service"),
    )
