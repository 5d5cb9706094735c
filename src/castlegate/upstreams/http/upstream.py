"""A service that speaks HTTP: chooses an instance, sends the call, gives the reply."""

from __future__ import annotations

import asyncio
from pathlib import Path

from castlegate.config.addresses import parse_origin
from castlegate.errors import CallFailed
from castlegate.message import Call, Caller, Reply
from castlegate.rules.balancing import Balancer, RoundRobin
from castlegate.upstreams.http.framing import AnswerReader
from castlegate.upstreams.http.pool import Pool
from castlegate.upstreams.http.settings import HttpService
from castlegate.upstreams.http.tls import ServiceCertificates
from castlegate.waiting import Waiter
from castlegate.wire.timer import Timer

_BODILESS = frozenset((b"GET", b"HEAD", b"DELETE", b"OPTIONS"))


class HttpUpstream:
    """One service and its instances."""

    def __init__(self, settings: HttpService, timer: Timer, name: str = "", folder: Path = Path()) -> None:
        """`name` of the service; `folder` that the files of its settings are relative to."""
        self._now = timer.now
        reader = AnswerReader(settings.pool.headers)
        origins = [parse_origin(each) for each in settings.instances]
        self.certificates: ServiceCertificates | None = None
        if any(origin.tls for origin in origins):
            self.certificates = ServiceCertificates(settings.tls, name, folder)
        self._pools = [
            Pool(origin.host, origin.port, settings.pool, reader, timer, self.certificates if origin.tls else None)
            for origin in origins
        ]
        self._balancer: Balancer[Pool] = RoundRobin(self._pools)
        host = None if settings.host is None else settings.host.encode()
        # What stands behind the target in the head of every call.
        self._version = {pool: b" HTTP/1.1\r\nhost: %b\r\n" % (host or pool.authority) for pool in self._pools}

    @property
    def instances(self) -> int:
        """How many there are."""
        return len(self._pools)

    def close(self) -> None:
        """Close the idle connections."""
        for pool in self._pools:
            pool.close()

    def bind(self, operation: str) -> Caller:
        """The caller; HTTP services have no operations, method and target come with the call."""
        del operation
        return self._call

    async def _call(self, call: Call) -> Reply:
        """Ask one instance. Raises `CallFailed`, having noted the instance among those that were tried."""
        pool = self._balancer.choose(call)
        now = self._now()
        until = call.until(now)
        # After a failure idle connections are not to be trusted: they may have been closed like the last one.
        connection = None if call.tried else pool.take_idle(now)
        waiter: Waiter[Reply] | None = None
        try:
            if connection is None:
                connection = await pool.wait_for_one(until)
            waiter = connection.send(call, self._head(pool, call), until)
            return await waiter
        except CallFailed:
            call.tried.append(pool)
            raise
        except asyncio.CancelledError:
            if connection is not None and waiter is not None and not waiter.done():
                connection.abandon()
            raise

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
