"""Calls as an endpoint makes them, and engines to make them through."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from castlegate.errors import CallFailed
from castlegate.headers import Headers, Pairs
from castlegate.message import Call, Reply, Request
from castlegate.telemetry.exposition import render
from castlegate.telemetry.metrics import Registry
from castlegate.telemetry.trace import Trace
from castlegate.upstreams.kafka.engine import Engine
from castlegate.upstreams.kafka.settings import Kafka, KafkaService
from castlegate.wire.timer import Timer

TRACE = Trace(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", b"vendor=1")
REQUEST_ID = b"6f1c3d5e7a9b0c2d4e6f8a0b1c2d3e4f"


def make_request(headers: Pairs | None = None, trace: Trace = TRACE) -> Request:
    return Request(
        id=REQUEST_ID, trace=trace, client="192.0.2.1", scheme=b"http", host=b"gateway", method=b"POST", path=b"/",
        query=b"", headers=Headers.of(headers or []), body=b"", arrived=0.0,
    )  # fmt: skip


def make_call(
    body: bytes = b"{}",
    *,
    deadline: float,
    timeout: float = 5.0,
    key: bytes | None = None,
    headers: Pairs | None = None,
    client_headers: Pairs | None = None,
    trace: Trace = TRACE,
    sent: bool = False,
) -> Call:
    """`sent`: the body was made by the gateway, it is not the client's."""
    request = make_request(client_headers, trace)
    request.body = b"the client's" if sent else body
    request.deadline = deadline
    return Call(request, b"POST", b"/", Headers.of(headers or []), body, key, timeout, idempotent=False)


class Rig:
    """An engine in the test's loop."""

    def __init__(self, settings: Kafka, *, instance: str, slot: int, longest_timeout: float) -> None:
        loop = asyncio.get_running_loop()
        self.timer = Timer(loop)
        self.registry = Registry()
        self.engine = Engine(
            settings, instance=instance, slot=slot, name="test", timer=self.timer, registry=self.registry,
            longest_timeout=longest_timeout, loop=loop,
        )  # fmt: skip

    def caller(self, service: str, operation: str, **settings: Any) -> Callable[..., Awaitable[Reply]]:
        """`await ask(body, within=..., ...)` of one operation."""
        bound = self.engine.service(service, msgspec.convert(settings, KafkaService)).bind(operation)

        async def ask(body: bytes = b"{}", *, within: float = 10.0, **more: Any) -> Reply:
            return await bound(make_call(body, deadline=self.timer.now() + within, timeout=within, **more))

        return ask

    def count(self, name: str, **labels: str) -> float:
        """The value of a metric now."""
        wanted = ",".join(f'{key}="{value}"' for key, value in labels.items())
        self.registry.refresh()
        for line in render(self.registry).splitlines():
            head, _, value = line.rpartition(" ")
            if head in (f"{name}{{{wanted}}}", name if not wanted else None):
                return float(value)
        return 0.0

    def replies(self) -> Mapping[str, float]:
        """Replies by kind, without those that did not come."""
        kinds = ("ok", "malformed", "late", "duplicate", "unknown", "foreign")
        counts = {kind: self.count("castlegate_kafka_replies_total", kind=kind) for kind in kinds}
        return {kind: count for kind, count in counts.items() if count}

    def look(self) -> None:
        """Have the engine look at the brokers now."""
        self.engine._watch.look_again(doubtful=True)

    async def until(self, condition: Callable[[], object], timeout_s: float = 15.0) -> None:
        """Wait for something that threads bring about."""
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@asynccontextmanager
async def running(
    bootstrap: str,
    *prepare: Callable[[Rig], object],
    instance: str = "one",
    slot: int = 0,
    longest_timeout: float = 30.0,
    grace: float = 1.0,
    **settings: Any,
) -> AsyncIterator[Rig]:
    """A started engine, stopped in the end; `prepare` binds before the start, as a configuration does."""
    kafka = msgspec.convert({"bootstrap": bootstrap, **settings}, Kafka)
    rig = Rig(kafka, instance=instance, slot=slot, longest_timeout=longest_timeout)
    for step in prepare:
        step(rig)
    await rig.engine.start()
    try:
        yield rig
    finally:
        await rig.engine.stop(grace)


async def failure(awaitable: Awaitable[object]) -> CallFailed:
    """What a call raised."""
    try:
        got = await awaitable
    except CallFailed as failed:
        return failed
    raise AssertionError(f"expected a failure, got {got}")
