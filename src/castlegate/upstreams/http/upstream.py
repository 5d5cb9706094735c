"""A service that speaks HTTP: chooses an instance, sends the call, gives the reply."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from castlegate.config.addresses import parse_origin
from castlegate.errors import CallFailed
from castlegate.message import Call, Caller, Reply
from castlegate.rules.balancing import Balancer, RoundRobin
from castlegate.sketch import Described, Description, Sketch
from castlegate.telemetry.metrics import Family, Gauge, Registry
from castlegate.upstreams.http.connection import ServerConnection
from castlegate.upstreams.http.framing import AnswerReader
from castlegate.upstreams.http.pool import Pool
from castlegate.upstreams.http.settings import HttpService
from castlegate.upstreams.http.uploads import Uploads
from castlegate.waiting import Waiter
from castlegate.wire.service_tls import ServiceCertificates
from castlegate.wire.timer import Timer

_BODILESS = frozenset((b"GET", b"HEAD", b"DELETE", b"OPTIONS"))


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
    ) -> None:
        """`folder`: what the files of its settings are relative to. `certificates`: if they have been made of them."""
        self._now = timer.now
        self._name = name
        self._results = registry.counter(
            "castlegate_upstream_requests_total",
            "Calls of instances: answered, or the kind of failure.",
            "service",
            "result",
        )
        self._answered = self._results.child(name, "answered")
        self._seconds = registry.histogram(
            "castlegate_upstream_duration_seconds", "From sending a call to the head of its answer.", "service"
        ).child(name)
        reader = AnswerReader(settings.pool.headers)
        origins = [parse_origin(each) for each in settings.instances]
        self.certificates = certificates
        if certificates is None and any(origin.tls for origin in origins):
            path = "services", name, "http", "tls"
            self.certificates = ServiceCertificates(settings.tls, f"service {name}", path, folder)
        self._pools = [
            Pool(origin.host, origin.port, settings.pool, reader, timer, self.certificates if origin.tls else None)
            for origin in origins
        ]
        self._urls = [  # of the instances, as people read them
            f"{'https' if origin.tls else 'http'}://{pool.authority.decode()}"
            for origin, pool in zip(origins, self._pools, strict=True)
        ]
        self._balancer: Balancer[Pool] = RoundRobin(self._pools)
        self._host = host = None if settings.host is None else settings.host.encode()
        # What stands behind the target in the head of every call.
        self._version = {pool: b" HTTP/1.1\r\nhost: %b\r\n" % (host or pool.authority) for pool in self._pools}

    @property
    def instances(self) -> int:
        """How many there are."""
        return len(self._pools)

    def watch(self, registry: Registry) -> None:
        """Have the gauges of its service tell of this one."""
        connections, waiting = _gauges(registry)
        connections.watch(lambda: sum(pool.idle for pool in self._pools), self._name, "idle")
        connections.watch(lambda: sum(pool.open - pool.idle for pool in self._pools), self._name, "busy")
        waiting.watch(lambda: sum(pool.waiting for pool in self._pools), self._name)

    def unwatch(self, registry: Registry) -> None:
        """There is no such service any more."""
        connections, waiting = _gauges(registry)
        connections.forget(self._name, "idle")
        connections.forget(self._name, "busy")
        waiting.forget(self._name)

    def close(self) -> None:
        """Close the idle connections."""
        for pool in self._pools:
            pool.close()

    def bind(self, operation: str) -> Caller:
        """The caller; HTTP services have no operations, method and target come with the call."""
        del operation
        return self._call

    def described(self, operation: str) -> Described:
        """What `bind` bound, as `castlegate explain` tells it."""
        del operation
        return self

    def describe(self, sketch: Sketch) -> Description:
        """The heads of the request to each instance."""
        call: Call = sketch.sent
        pools = self._pools
        lines = sketch.show(self._head(pools[0], call)).split("\r\n")[1:-2]
        fields = [line for line in lines if not line.startswith(("host:", "content-length:"))]
        host = self._host or ("that of the instance" if len(pools) > 1 else pools[0].authority)
        method, target = call.method.decode(), sketch.show(call.target)
        says: dict[str, Any] = {
            "sends": [f"{method} {url}{target}" for url in self._urls],
            "fields": [f"host: {sketch.show(host)}", *fields],
        }
        if call.body:
            assert isinstance(call.body, bytes)
            says["body"] = sketch.show(call.body)
        return Description(role="upstream", name="HTTP/1.1", says=says)

    async def _call(self, call: Call) -> Reply:
        """Ask one instance. Raises `CallFailed`, having noted the instance among those that were tried."""
        pool = self._balancer.choose(call)
        now = self._now()
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
            place, uploads = uploads, None
            waiter = connection.send(call, self._head(pool, call), until, place)
            reply = await waiter
        except CallFailed as failed:
            call.tried.append(pool)
            self._results.child(self._name, failed.kind.name).value += 1
            raise
        except asyncio.CancelledError:
            if connection is not None and waiter is not None:
                if not waiter.done():
                    connection.abandon()
                elif not waiter.failed():
                    waiter.result().close()  # it came in the same moment
            raise
        finally:
            if uploads is not None:
                uploads.leave()
        self._answered.value += 1
        self._seconds.observe(self._now() - now)
        return reply

    def _head(self, pool: Pool, call: Call) -> bytes:
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
            call.method, call.target, self._version[pool], call.headers.wire, request.forwarded, request.id,
            trace.traceparent, framing,
        )  # fmt: skip


def _gauges(registry: Registry) -> tuple[Family[Gauge], Family[Gauge]]:
    return (
        registry.gauge("castlegate_upstream_connections", "Connections to services by state.", "service", "state"),
        registry.gauge("castlegate_upstream_waiting", "Calls that wait for a connection.", "service"),
    )
