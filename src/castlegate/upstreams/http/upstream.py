"""A service that speaks HTTP: chooses an instance, sends the call, gives the reply.

A call that could not be sent goes to another instance, whatever its method. One that was sent over a connection which
had been used before and was closed without a byte of answer is sent once more if it is idempotent: the instance closed
the idle connection as we wrote to it (RFC 9112 §9.3.1).
"""

from __future__ import annotations

from castlegate.config.addresses import parse_origin
from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.message import Call, Caller, Reply
from castlegate.rules.balancing import Balancer, RoundRobin
from castlegate.telemetry.metrics import Registry
from castlegate.upstreams.http.pool import Pool
from castlegate.upstreams.http.settings import HttpService
from castlegate.wire.fields import encode_fields
from castlegate.wire.timer import Timer

_BODILESS = frozenset((b"GET", b"HEAD", b"DELETE", b"OPTIONS"))


class HttpUpstream:
    """One service and its instances."""

    def __init__(self, name: str, settings: HttpService, timer: Timer, registry: Registry) -> None:
        self._timer = timer
        self._pools = [Pool(*parse_origin(instance), settings.pool, timer) for instance in settings.instances]
        self._balancer: Balancer[Pool] = RoundRobin(self._pools)
        self._host = None if settings.host is None else settings.host.encode()
        retries = registry.counter(
            "castlegate_upstream_retries_total", "Calls sent once more, by cause.", "service", "reason"
        )
        self._connect_retries = retries.child(name, "connect")
        self._stale_retries = retries.child(name, "stale")

    def close(self) -> None:
        """Close the idle connections."""
        for pool in self._pools:
            pool.close()

    def bind(self, operation: str) -> Caller:
        """The caller; HTTP services have no operations, method and target come with the call."""
        del operation
        return self._call

    async def _call(self, call: Call) -> Reply:
        tried: list[Pool] = []
        failure: CallFailed | None = None
        while (pool := self._balancer.choose(tried)) is not None:
            try:
                return await self._ask(pool, call)
            except CallFailed as failed:
                if failed.outcome is not Outcome.NOT_SENT or self._timer.now() >= call.deadline:
                    raise
                failure = failed
                tried.append(pool)
                if len(tried) < len(self._pools):
                    self._connect_retries.value += 1
        assert failure is not None, "a service has at least one instance"
        raise failure

    async def _ask(self, pool: Pool, call: Call) -> Reply:
        """Ask one instance."""
        connection = pool.take_idle()
        if connection is None:
            connection = await pool.wait_for_one(self._patience(call))
        head = self._head(pool, call)
        reused = connection.used
        waiter = connection.send(call, head)
        try:
            return await waiter
        except CallFailed as failed:
            stale = reused and connection.silent and failed.kind is Kinds.RESET
            if not (stale and call.idempotent and type(call.body) is bytes):
                raise
            self._stale_retries.value += 1
            try:
                connection = await pool.wait_for_one(self._patience(call))
                waiter = connection.send(call, head)
                return await waiter
            except CallFailed as again:
                # The first try was sent, whatever became of the second.
                raise CallFailed(again.kind, Outcome.UNKNOWN, again.detail) from again
        finally:
            if not waiter.done():
                connection.abandon()

    def _patience(self, call: Call) -> float:
        """Until when a connection may be waited for, also while the client still sends."""
        return min(call.deadline, self._timer.now() + call.timeout)

    def _head(self, pool: Pool, call: Call) -> bytes:
        request, body = call.request, call.body
        pairs = [
            *call.headers,
            *request.forwarded,
            (b"x-request-id", request.id.encode()),
            (b"traceparent", request.trace.traceparent),
        ]
        if request.trace.state is not None:
            pairs.append((b"tracestate", request.trace.state))
        if type(body) is bytes:
            if body or call.method not in _BODILESS:
                pairs.append((b"content-length", b"%d" % len(body)))
        elif body.length is None:  # type: ignore[union-attr]  # not bytes: a Body
            pairs.append((b"transfer-encoding", b"chunked"))
        else:
            pairs.append((b"content-length", b"%d" % body.length))  # type: ignore[union-attr]
        host = self._host or pool.authority
        return b"%b %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (call.method, call.target, host, encode_fields(pairs))
