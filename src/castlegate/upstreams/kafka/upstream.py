"""Services behind Kafka: a call becomes a record, the reply that carries its id becomes a `Reply`.

Topic, dialect, header names and metrics are resolved when the configuration is loaded; a call then encodes, produces
and waits for its sink.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from castlegate.calls.gathering import Gathering
from castlegate.config.units import write_seconds
from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.message import Call, Caller, Reply, ReplyMode
from castlegate.sketch import Described, Description, Sketch
from castlegate.upstreams.kafka.context import DEADLINE, NAMES, Forwarding, add_context, said_by_endpoint
from castlegate.upstreams.kafka.delivery import not_sent
from castlegate.upstreams.kafka.dialects.dialect import Answer, Dialect, ReplyAddress, SentHeaders, Value
from castlegate.upstreams.kafka.dialects.faststream import FastStream
from castlegate.upstreams.kafka.dialects.nest import Nest
from castlegate.upstreams.kafka.dialects.plain import Plain
from castlegate.upstreams.kafka.dialects.spring import Spring
from castlegate.upstreams.kafka.dialects.zilla import Zilla
from castlegate.upstreams.kafka.gather import GatherSink
from castlegate.upstreams.kafka.pending import PendingFull
from castlegate.upstreams.kafka.settings import KafkaOperation, KafkaService
from castlegate.upstreams.kafka.streams import AllValues, ReplySink, StreamedValues

if TYPE_CHECKING:
    from castlegate.upstreams.kafka.engine import Engine

_DIALECTS: dict[str, Callable[[KafkaService, KafkaOperation], Dialect]] = {
    "nest": lambda service, _: Nest(service),
    "spring": Spring,
    "faststream": lambda service, _: FastStream(service),
    "zilla": lambda *_: Zilla(),
    "plain": lambda service, _: Plain(service),
}
_DEFAULT = KafkaOperation()
_SOME_PARTITION = 2**31 - 1  # stands for the one that a worker will read


class KafkaUpstream:
    """A service: its operations by name."""

    def __init__(self, engine: Engine, name: str, settings: KafkaService) -> None:
        self._engine = engine
        self._name = name
        self._settings = settings
        self._bound: dict[tuple[str, Mode], Operation] = {}

    def bind(self, operation: str, mode: Mode = "last") -> Caller:
        """The caller of one operation; the same one however often it is asked for."""
        bound = self._bound.get((operation, mode))
        if bound is None:
            bound = self._bound[operation, mode] = self._bind(operation, mode)
        return bound

    def topics(self) -> set[str]:
        """Those that its operations write to and read from."""
        return {topic for bound in self._bound.values() for topic in (bound.topic, bound.reply_topic)}

    def topic(self, operation: str, mode: Mode) -> str:
        """That what `bind` bound writes to."""
        return self._bound[operation, mode].topic

    def described(self, operation: str, mode: Mode) -> Described:
        """What `bind` bound, as `castlegate explain` tells it."""
        return self._bound[operation, mode]

    def _bind(self, operation: str, mode: Mode) -> Operation:
        settings = self._settings.operations.get(operation, _DEFAULT)
        topic = settings.topic or f"{self._name}.{operation}"
        dialect = _DIALECTS[self._settings.dialect](self._settings, settings)
        forwarding = Forwarding(self._settings.forward_headers)
        if isinstance(mode, Gathering):
            return GatherOperation(
                self._engine, topic, dialect, settings.replies, forwarding, partial(GatherSink, mode)
            )
        kind = Operation if mode == "last" else ValuesOperation
        return kind(self._engine, topic, dialect, settings.replies, forwarding, _SINKS[mode])


class Operation:
    """One operation of a service, bound to its topic: the `Caller`."""

    __slots__ = (
        "_dialect", "_engine", "_forwarding", "_gate", "_mailbox", "_max_record", "_new_sink", "_pending", "_produced",
        "_producers", "_seconds", "_timer", "topic",
    )  # fmt: skip

    def __init__(
        self,
        engine: Engine,
        topic: str,
        dialect: Dialect,
        fixed_replies: str | None,
        forwarding: Forwarding,
        new_sink: NewSink,
    ) -> None:
        self._engine = engine
        self.topic = topic
        self._dialect = dialect
        self._new_sink = new_sink
        self._forwarding = forwarding or None
        self._pending = engine.pending
        self._producers = engine.producers
        self._timer = engine.timer
        self._max_record = engine.settings.max_record
        self._mailbox = engine.places.mailbox(dialect, fixed_replies)
        self._gate = engine.places.gate(topic, self._mailbox)
        self._produced = engine.metrics.requests.child(topic)
        self._seconds = engine.metrics.seconds.child(topic)

    def describe(self, sketch: Sketch) -> Description:
        """The record of the request, and where its answer is awaited."""
        call: Call = sketch.sent
        topic, partition = self._mailbox.topic, _SOME_PARTITION if self._dialect.partitioned else None
        settings = self._engine.settings
        if partition is None and self._mailbox.owned is not None and settings.topics.single > 1:
            topic = sketch.stand_in(f"{settings.inbox}.{{0 to {settings.topics.single - 1}, by instance}}")
        address = ReplyAddress(topic, partition)
        headers, value = self._dialect.encode(call, address, sketch.stand_in("{correlation id}").encode())
        headers = self._with_said(call, headers)
        add_context(headers, call, 0.0, call.timeout)
        told = {DEADLINE: f"{{now + {write_seconds(call.timeout)}, in ms since 1970}}"}
        shown = [(name, told.get(name) or sketch.show(text or b"")) for name, text in headers]
        lines = [f"{name}: {text}" for name, text in shown]
        says = {
            "topic": self.topic,
            "key": "none: spread over the partitions" if call.key is None else sketch.show(call.key),
            "value": sketch.show(value),
            "headers": [line.replace(str(_SOME_PARTITION), "{partition of the worker}") for line in lines],
            "answer": f"on {sketch.show(topic)}, found by the header {self._dialect.correlation}",
        }
        return Description(role="upstream", name=f"Kafka, {type(self._dialect).__name__.lower()}", says=says)

    @property
    def reply_topic(self) -> str:
        """Where its replies come to."""
        return self._mailbox.topic

    def __call__(self, call: Call) -> Awaitable[Reply]:
        """Ask the service. Raises `CallFailed`."""
        return self._ask(call, self._new_sink(self._dialect, self._engine))

    async def _ask(self, call: Call, sink: AnySink) -> Reply:
        timer = self._timer
        now = timer.now()
        deadline = call.until(now)
        assert isinstance(call.body, bytes), "the endpoint buffers what goes to Kafka"
        if len(call.body) > self._max_record:
            raise not_sent(Kinds.RECORD_TOO_LARGE)
        if not self._gate.open:
            await self._gate.admit(deadline)
            now = timer.now()
        if deadline <= now:
            raise not_sent(Kinds.TIMEOUT)
        pending = self._pending
        try:
            correlation_id = pending.open(sink)
        except PendingFull:
            raise CallFailed(Kinds.PENDING_FULL, Outcome.NOT_SENT) from None
        timer.add(sink, deadline)
        try:
            self._send(call, correlation_id, sink, now, deadline)
            reply = await sink.waiter
            self._seconds.observe(timer.now() - now)
            return reply
        except asyncio.CancelledError:
            if sink.waiter.done() and not sink.waiter.failed():
                sink.waiter.result().close()  # it came in the same moment
            raise
        finally:
            timer.remove(sink, deadline)
            if not sink.flowing:  # else it is closed at the end of the stream
                pending.close(correlation_id)
                sink.done = True

    def _send(self, call: Call, correlation_id: bytes, sink: AnySink, now: float, deadline: float) -> None:
        address = self._mailbox.address
        assert address is not None, "an open gate has one"
        headers, value = self._dialect.encode(call, address, correlation_id)
        if self._forwarding is not None or call.headers.lines:
            headers = self._with_said(call, headers)
        add_context(headers, call, now, deadline)
        sink.headers = headers
        self._producers.send(self.topic, value, call.key, headers, sink, len(self._pending))
        self._produced.value += 1

    def _with_said(self, call: Call, own: SentHeaders) -> SentHeaders:
        """The dialect's own headers with those that client and route say before them. Each name once: of headers that
        repeat some readers take the last, others all of them (kafkajs).
        """
        ours = {*NAMES, *(name for name, _ in own)}
        said = [each for each in said_by_endpoint(call) if each[0] not in ours]
        forwarded = self._forwarding.of(call) if self._forwarding is not None else []
        ours.update(name for name, _ in said)
        return [*(each for each in forwarded if each[0] not in ours), *said, *own]


class ValuesOperation(Operation):
    """One whose caller gets every value; so many may be under way."""

    __slots__ = ()

    async def _ask(self, call: Call, sink: AnySink) -> Reply:
        flows = self._engine.flows
        flows.enter()
        try:
            return await super()._ask(call, sink)
        finally:
            if not sink.flowing:  # else it leaves when it is over
                flows.leave()

    def _send(self, call: Call, correlation_id: bytes, sink: AnySink, now: float, deadline: float) -> None:
        if isinstance(sink, StreamedValues):
            sink.correlation_id = correlation_id
        super()._send(call, correlation_id, sink, now, deadline)


class GatherOperation(ValuesOperation):
    """One that several services answer."""

    __slots__ = ()

    def describe(self, sketch: Sketch) -> Description:
        """And how many answers are wanted."""
        told = super().describe(sketch)
        sink = self._new_sink(self._dialect, self._engine)
        assert isinstance(sink, GatherSink)
        return msgspec.structs.replace(told, says={**told.says, "gathers": sink.gathering.describe()})

    def _send(self, call: Call, correlation_id: bytes, sink: AnySink, now: float, deadline: float) -> None:
        assert isinstance(sink, GatherSink)
        sink.begun = now
        super()._send(call, correlation_id, sink, now, deadline)


class LastValue(ReplySink):
    """The sink of a call that wants one reply: of several values, the last."""

    __slots__ = ("_value",)

    def __init__(self, dialect: Dialect, engine: Engine) -> None:
        super().__init__(dialect, engine)
        self._value: Reply | None = None

    def _take(self, answer: Answer) -> None:
        if isinstance(answer, Value):
            if not answer.last:
                self._value = answer.reply
                return
            reply = answer.reply
        else:
            reply = answer.empty if self._value is None else self._value
        self.done = True
        self.waiter.settle(reply)


Mode = ReplyMode | Gathering
AnySink = LastValue | AllValues | StreamedValues | GatherSink
NewSink = Callable[[Dialect, "Engine"], AnySink]

_SINKS: dict[ReplyMode, NewSink] = {
    "last": LastValue,
    "all": AllValues,
    "stream": StreamedValues,
}
