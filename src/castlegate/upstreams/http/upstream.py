"""A service that speaks HTTP: chooses an instance, sends the call, gives the reply."""

from __future__ import annotations

import asyncio
from typing import Any

from castlegate.config.addresses import parse_origin
from castlegate.errors import CallFailed
from castlegate.message import Call, Caller, Reply
from castlegate.rules.balancing import Balancer, RoundRobin
from castlegate.sketch import Described, Description, Sketch
from castlegate.upstreams.http.framing import AnswerReader
from castlegate.upstreams.http.pool import Pool
from castlegate.upstreams.http.settings import HttpService
from castlegate.waiting import Waiter
from castlegate.wire.timer import Timer

_BODILESS = frozenset((b"GET", b"HEAD", b"DELETE", b"OPTIONS"))


class HttpUpstream:
    """One service and its instances."""

    def __init__(self, settings: HttpService, timer: Timer) -> None:
        self._now = timer.now
        reader = AnswerReader(settings.pool.headers)
        self._pools = [Pool(*parse_origin(each), settings.pool, reader, timer) for each in settings.instances]
        self._balancer: Balancer[Pool] = RoundRobin(self._pools)
        self._host = host = None if settings.host is None else settings.host.encode()
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
            "sends": [f"{method} http://{pool.authority.decode()}{target}" for pool in pools],
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
