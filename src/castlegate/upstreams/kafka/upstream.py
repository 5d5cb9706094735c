"""Services behind Kafka: a call becomes a record, the reply that carries its id becomes a `Reply`.

Topic, dialect, header names and metrics are resolved when the configuration is loaded; a call then encodes, produces
and waits for its sink.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, Message

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.message import Call, Caller, Reply
from castlegate.upstreams.kafka.client import log
from castlegate.upstreams.kafka.context import Forwarding, add_context, said_by_endpoint
from castlegate.upstreams.kafka.delivery import not_sent
from castlegate.upstreams.kafka.dialects.dialect import Dialect, ReceivedHeaders, SentHeaders, Value
from castlegate.upstreams.kafka.dialects.faststream import FastStream
from castlegate.upstreams.kafka.dialects.nest import Nest
from castlegate.upstreams.kafka.dialects.plain import Plain
from castlegate.upstreams.kafka.pending import MALFORMED, OK, PendingFull
from castlegate.upstreams.kafka.settings import KafkaOperation, KafkaService
from castlegate.waiting import Waiter

if TYPE_CHECKING:
    from castlegate.upstreams.kafka.engine import Engine

_DIALECTS: dict[str, type[Nest] | type[FastStream] | type[Plain]] = {
    "nest": Nest,
    "faststream": FastStream,
    "plain": Plain,
}
_DEFAULT = KafkaOperation()
_NO_HEADERS: SentHeaders = []


class KafkaUpstream:
    """A service: its operations by name."""

    def __init__(self, engine: Engine, name: str, settings: KafkaService) -> None:
        self._engine = engine
        self._name = name
        self._settings = settings
        self._bound: dict[str, Operation] = {}

    def bind(self, operation: str) -> Caller:
        """The caller of one operation; the same one however often it is asked for."""
        bound = self._bound.get(operation)
        if bound is None:
            bound = self._bound[operation] = self._bind(operation)
        return bound

    def _bind(self, operation: str) -> Operation:
        settings = self._settings.operations.get(operation, _DEFAULT)
        topic = settings.topic or f"{self._name}.{operation}"
        dialect = _DIALECTS[self._settings.dialect](self._settings)
        return Operation(self._engine, topic, dialect, settings.replies, Forwarding(self._settings.forward_headers))


class Operation:
    """One operation of a service, bound to its topic: the `Caller`."""

    __slots__ = (
        "_dialect", "_engine", "_forwarding", "_gate", "_mailbox", "_max_record", "_pending", "_produced",
        "_producers", "_timer", "_topic",
    )  # fmt: skip

    def __init__(
        self, engine: Engine, topic: str, dialect: Dialect, fixed_replies: str | None, forwarding: Forwarding
    ) -> None:
        self._engine = engine
        self._topic = topic
        self._dialect = dialect
        self._forwarding = forwarding or None
        self._pending = engine.pending
        self._producers = engine.producers
        self._timer = engine.timer
        self._max_record = engine.settings.max_record
        self._mailbox = engine.mailbox(dialect, fixed_replies)
        self._gate = engine.gate(topic, self._mailbox)
        self._produced = engine.metrics.requests.child(topic)

    async def __call__(self, call: Call) -> Reply:
        """Ask the service. Raises `CallFailed`."""
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
        sink = LastValue(self._dialect, self._engine)
        try:
            correlation_id = pending.open(sink)
        except PendingFull:
            raise CallFailed(Kinds.PENDING_FULL, Outcome.NOT_SENT) from None
        timer.add(sink, deadline)
        try:
            self._send(call, correlation_id, sink, now, deadline)
            return await sink.waiter
        finally:
            timer.remove(sink, deadline)
            pending.close(correlation_id)
            sink.done = True

    def _send(self, call: Call, correlation_id: bytes, sink: LastValue, now: float, deadline: float) -> None:
        address = self._mailbox.address
        assert address is not None, "an open gate has one"
        headers, value = self._dialect.encode(call, address, correlation_id)
        if self._forwarding is not None or call.headers:
            # Before ours: of headers that repeat, readers take the last.
            forwarded = self._forwarding.of(call) if self._forwarding is not None else []
            headers = [*forwarded, *said_by_endpoint(call), *headers]
        add_context(headers, call, now, deadline)
        sink.headers = headers
        self._producers.send(self._topic, value, call.key, headers, sink, len(self._pending))
        self._produced.value += 1


class LastValue:
    """The sink of a call that wants one reply: of several values, the last."""

    __slots__ = ("_decode", "_engine", "_value", "done", "headers", "waiter")

    def __init__(self, dialect: Dialect, engine: Engine) -> None:
        self._decode = dialect.decode
        self._engine = engine
        self._value: Reply | None = None
        self.done = False
        self.headers: SentHeaders = _NO_HEADERS
        self.waiter: Waiter[Reply] = Waiter()

    def feed(self, headers: ReceivedHeaders, value: bytes | None) -> str:
        """One record of the reply."""
        try:
            answer = self._decode(headers, value)
        except CallFailed as failure:
            self.done = True
            self.waiter.fail(failure)
            return MALFORMED if failure.kind is Kinds.BAD_ANSWER else OK
        except Exception:  # noqa: BLE001 - logged below
            # A mistake of ours about one reply is no reason to lose the others of its batch.
            log.exception("a reply could not be decoded")
            self.done = True
            self.waiter.fail(CallFailed(Kinds.BAD_ANSWER, Outcome.ANSWERED))
            return MALFORMED
        if isinstance(answer, Value):
            if not answer.last:
                self._value = answer.reply
                return OK
            reply = answer.reply
        else:
            reply = answer.empty if self._value is None else self._value
        self.done = True
        self.waiter.settle(reply)
        return OK

    def on_report(self, error: KafkaError | None, message: Message) -> None:
        """The record could not be delivered: from within a poll, so no more than noted here."""
        if error is not None:
            self._engine.producers.failed.append((self, error, message))

    def fail(self, error: CallFailed) -> None:
        """There will be no reply."""
        self.waiter.fail(error)

    def expire(self) -> None:
        """The deadline has passed."""
        self._engine.look_soon()
        detail = "The service did not answer in time."
        self.waiter.fail(CallFailed(Kinds.TIMEOUT, Outcome.UNKNOWN, detail))
