"""Events: records that nobody replies to, each answered for by its delivery report.

They have a producer of their own (idempotent, all in-sync replicas) whose reports a thread waits for and hands to the
loop in batches. An `Ack` means that the broker has acknowledged the record, never less.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.sketch import Description, Record, Sketch
from castlegate.telemetry.metrics import Counter
from castlegate.upstreams.kafka.client import Clients
from castlegate.upstreams.kafka.delivery import TOPIC_KINDS, not_sent, refused, undelivered
from castlegate.upstreams.kafka.dialects.dialect import SentHeaders
from castlegate.waiting import Waiter
from castlegate.wire.timer import Timer

ANY = -1  # partition: by the record's key, or spread

_POLL_S = 0.2  # how late the thread notices its end


class Ack(NamedTuple):
    """Where an acknowledged record stands."""

    topic: str
    partition: int
    offset: int


class Event:
    """One record on its way."""

    __slots__ = ("_reports", "waiter")

    def __init__(self, reports: list[tuple[Event, KafkaError | None, Ack | None]]) -> None:
        self._reports = reports
        self.waiter: Waiter[Ack] = Waiter()

    def on_report(self, error: KafkaError | None, message: Message) -> None:
        """Called by librdkafka in the polling thread."""
        ack = None
        if error is None:
            ack = Ack(message.topic() or "", _number(message.partition()), _number(message.offset()))
        self._reports.append((self, error, ack))

    def expire(self) -> None:
        """Its deadline has passed."""
        detail = "The broker did not confirm the message in time."
        self.waiter.fail(CallFailed(Kinds.TIMEOUT, Outcome.UNKNOWN, detail))


class Gate(Protocol):
    """Whether a topic can be written to."""

    open: bool

    async def admit(self, deadline: float) -> None:
        """Wait a moment for that; raises `CallFailed` (not sent)."""


class Events:
    """The producer and the thread that waits for its reports."""

    def __init__(
        self,
        clients: Clients,
        tell: Callable[[Callable[[], None]], None],
        on_error: Callable[[KafkaError], None],
        on_topic_lost: Callable[[], None],
    ) -> None:
        self._clients = clients
        self._tell = tell  # runs a function in the loop, from any thread
        self._on_error = on_error
        self._on_topic_lost = on_topic_lost
        self._stopping = False
        self.reports: list[tuple[Event, KafkaError | None, Ack | None]] = []  # appended to by the thread alone
        self._producer: Producer | None = None
        self._thread: threading.Thread | None = None

    @property
    def ready(self) -> bool:
        """Whether there is a producer."""
        return self._producer is not None

    def make(self) -> Producer:
        """A new producer, slowly: not in the loop."""
        return Producer(self._clients.producer("events", 0.0, self._on_error))

    def use(self, producer: Producer | None) -> list[Producer]:
        """Send with this one from now on; returns the one used before, for `end`."""
        before = [] if self._producer is None else [self._producer]
        self._producer = producer
        if producer is not None and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="castlegate-kafka-events", daemon=True)
            self._thread.start()
        return before

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: SentHeaders, partition: int = ANY
    ) -> Event:
        """Hand a record over. Raises `CallFailed` (not sent) if it is not taken."""
        producer = self._producer
        if producer is None:
            raise not_sent(Kinds.BROKER_UNAVAILABLE)
        event = Event(self.reports)
        try:
            producer.produce(topic, value, key, partition, headers=headers, on_delivery=event.on_report)
        except BufferError as error:
            raise not_sent(Kinds.QUEUE_FULL) from error
        except KafkaException as failure:
            refusal = refused(failure.args[0])
            if refusal.kind in TOPIC_KINDS:
                self._on_topic_lost()
            raise refusal from failure
        return event

    def under_way(self) -> int:
        """Records that are not acknowledged yet."""
        return 0 if self._producer is None else len(self._producer)

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True

    def join(self) -> None:
        """Wait for the end of the thread."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            producer = self._producer
            if producer is None:  # about to be replaced
                time.sleep(_POLL_S)
                continue
            producer.poll(_POLL_S)
            if self.reports:
                self._tell(self.settle)

    def settle(self) -> None:
        """Tell what became of the records that were reported."""
        reports = self.reports[:]
        del self.reports[: len(reports)]  # the thread only appends
        for event, error, ack in reports:
            if ack is not None:
                event.waiter.settle(ack)
            elif error is not None:
                failure = undelivered(error)
                if failure.kind in TOPIC_KINDS:
                    self._on_topic_lost()
                event.waiter.fail(failure)


class Publisher:
    """Puts events on one topic, or on one partition of it."""

    __slots__ = ("_events", "_failed", "_gate", "_max_record", "_partition", "_stored", "_timer", "topic")

    def __init__(
        self,
        topic: str,
        events: Events,
        gate: Gate,
        timer: Timer,
        *,
        max_record: int,
        stored: Counter,
        failed: Counter,
        partition: int = ANY,
    ) -> None:
        self.topic = topic
        self._partition = partition
        self._events = events
        self._gate = gate
        self._timer = timer
        self._max_record = max_record
        self._stored = stored
        self._failed = failed

    def describe(self, sketch: Sketch) -> Description:
        """The record."""
        record: Record = sketch.sent
        says = {
            "topic": self.topic,
            "key": "none: spread over the partitions" if record.key is None else sketch.show(record.key),
            "value": sketch.show(record.value),
            "headers": [f"{name}: {sketch.show(text)}" for name, text in record.headers],
        }
        return Description(role="upstream", name="Kafka, an event", says=says)

    async def publish(
        self, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]], deadline: float
    ) -> Ack:
        """Store one event; the deadline is loop time. Raises `CallFailed`."""
        try:
            ack = await self._publish(key, value, headers, deadline)
        except CallFailed:
            self._failed.value += 1
            raise
        self._stored.value += 1
        return ack

    async def _publish(
        self, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]], deadline: float
    ) -> Ack:
        if value is not None and len(value) > self._max_record:
            raise not_sent(Kinds.RECORD_TOO_LARGE)
        if not self._gate.open:
            await self._gate.admit(deadline)
        if deadline <= self._timer.now():
            raise not_sent(Kinds.TIMEOUT)
        event = self._events.send(self.topic, key, value, [*headers], self._partition)
        self._timer.add(event, deadline)
        try:
            return await event.waiter
        finally:
            self._timer.remove(event, deadline)


def _number(value: int | None) -> int:
    return -1 if value is None else value
