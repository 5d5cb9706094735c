"""The two producers of requests: one sends at once, one batches for a millisecond under load.

Both are idempotent and wait for all in-sync replicas; which of them a request takes depends on how many wait for
replies. Requests with the same key keep their order as long as one producer sends them, not when the load changes.

A broker refuses a batch over its topic's limit as if it were one message that is too large. Nothing of it was written:
its records, and from then on all others to that topic, are sent each alone, by a third producer made when needed.

Reports come only of failures, and without a thread: the loop polls whenever replies arrive, and every few
milliseconds while something is under way. What was taken, has not failed and is no longer under way is acknowledged.
Owned by the loop; producers are made and ended by the watch's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from castlegate.errors import CallFailed, Kinds
from castlegate.telemetry.metrics import Counter, Family
from castlegate.upstreams.kafka.client import Clients, log
from castlegate.upstreams.kafka.delivery import TOPIC_KINDS, not_sent, refused, undelivered
from castlegate.upstreams.kafka.dialects.dialect import SentHeaders

LINGER_MS = 1.0
_BATCH_REFUSED = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE)
_TICK_S = 0.05  # between polls while records are under way: how late a failed report is found at worst


class Reported(Protocol):
    """Who wants to know that its record failed."""

    done: bool
    """Whether nobody waits for it any more."""
    headers: SentHeaders
    """Of its record: reports come without them (confluent-kafka 2.16)."""

    def on_report(self, error: KafkaError | None, message: Message) -> None:
        """Called by librdkafka from within `Producers.poll`: appends to `Producers.failed` and does no more."""

    def fail(self, error: CallFailed) -> None:
        """It failed. Must not raise."""


class Producers:
    """The pair."""

    def __init__(
        self,
        clients: Clients,
        *,
        linger_above: int,
        loop: asyncio.AbstractEventLoop,
        failures: Family[Counter],
        acknowledged: Counter,
        on_error: Callable[[KafkaError], None],
        on_topic_lost: Callable[[], None],
        on_alone_wanted: Callable[[], None],
    ) -> None:
        self._clients = clients
        self._linger_above = linger_above
        self._loop = loop
        self._failures = failures
        self._acknowledged = acknowledged
        self._on_error = on_error
        self._on_topic_lost = on_topic_lost
        self._on_alone_wanted = on_alone_wanted  # answered by `use_alone`
        # Filled by reports, emptied by poll(); the record is there as long as it may be sent once more.
        self.failed: list[tuple[Reported, KafkaError, Message | None]] = []
        self._prompt: Producer | None = None
        self._batching: Producer | None = None
        self._alone: Producer | None = None
        self._lone_topics: set[str] = set()  # those that have refused a batch
        self._to_send_alone: list[tuple[str, bytes, bytes | None, SentHeaders, Reported]] = []
        self._tick: asyncio.TimerHandle | None = None
        # For counting what is acknowledged.
        self._taken = 0  # records ever
        self._given_up = 0  # of them: failed, or not sent at all
        self._counted = 0  # of them: acknowledged
        self._leaving: list[list[Producer]] = []  # replaced ones until they have ended: `end` empties the lists

    @property
    def ready(self) -> bool:
        """Whether there are any."""
        return self._prompt is not None

    def make(self) -> tuple[Producer, Producer]:
        """New producers, slowly: not in the loop. Raises `KafkaException` for settings that do not go together."""
        made = []
        for name, linger in (("requests", 0.0), ("requests-batched", LINGER_MS)):
            config = self._clients.producer(name, linger, self._on_error)
            made.append(Producer({**config, "delivery.report.only.error": True}))
        return made[0], made[1]

    def make_alone(self) -> Producer:
        """A new producer that puts no two records into one batch, as slowly."""
        config = self._clients.producer("requests-alone", 0.0, self._on_error)
        return Producer({**config, "delivery.report.only.error": True, "batch.num.messages": 1})

    def use(self, pair: tuple[Producer, Producer] | None) -> list[Producer]:
        """Send with these from now on; returns those used before, for `end`."""
        before = [each for each in (self._prompt, self._batching, self._alone) if each is not None]
        self._prompt, self._batching = pair if pair is not None else (None, None)
        self._alone = None
        if before:
            self._leaving.append(before)
        return before

    def use_alone(self, producer: Producer) -> None:
        """Send with this one what is to be sent alone."""
        self._alone = producer
        waiting, self._to_send_alone = self._to_send_alone, []
        for topic, value, key, headers, report_to in waiting:
            if report_to.done:
                self._given_up += 1
            else:
                self._send_alone(topic, value, key, headers, report_to)

    def send(
        self, topic: str, value: bytes, key: bytes | None, headers: SentHeaders, report_to: Reported, pending: int
    ) -> None:
        """Hand a record over. Raises `CallFailed` (not sent) if it is not taken."""
        if self._lone_topics and topic in self._lone_topics:
            self._taken += 1
            self._send_alone(topic, value, key, headers, report_to)
            return
        producer = self._prompt if pending <= self._linger_above else self._batching
        if producer is None:
            raise not_sent(Kinds.BROKER_UNAVAILABLE)
        try:
            producer.produce(topic, value, key, headers=headers, on_delivery=report_to.on_report)
        except BufferError as error:
            self._failures.child("queue_full").value += 1
            raise not_sent(Kinds.QUEUE_FULL) from error
        except KafkaException as failure:
            error_ = failure.args[0]
            self._failures.child(error_.name().lower()).value += 1
            refusal = refused(error_)
            if refusal.kind in TOPIC_KINDS:
                self._on_topic_lost()
            raise refusal from failure
        self._taken += 1
        if self._tick is None:
            self._tick = self._loop.call_later(_TICK_S, self._on_tick)

    def _send_alone(
        self, topic: str, value: bytes, key: bytes | None, headers: SentHeaders, report_to: Reported
    ) -> None:
        """What fails here fails for good, and is told by report."""
        if self._alone is None:
            self._to_send_alone.append((topic, value, key, headers, report_to))
            self._on_alone_wanted()
            return

        def on_report(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                self.failed.append((report_to, error, None))

        try:
            self._alone.produce(topic, value, key, headers=headers, on_delivery=on_report)
        except BufferError:
            self.failed.append((report_to, KafkaError(KafkaError._QUEUE_FULL), None))
        except KafkaException as failure:
            self.failed.append((report_to, failure.args[0], None))
        if self._tick is None:
            self._tick = self._loop.call_later(_TICK_S, self._on_tick)

    def _sends_again(self, reported: Reported, error: KafkaError, message: Message) -> bool:
        """Whether it was refused with its batch, and may be taken alone."""
        topic, value = message.topic(), message.value()
        if error.code() not in _BATCH_REFUSED or reported.done or topic is None or value is None:
            return False
        self._lone_topics.add(topic)
        self._send_alone(topic, value, message.key(), reported.headers, reported)
        return True

    def poll(self) -> None:
        """Take reports and tell whom they concern. Also serves the clients' errors and log."""
        for producer in (self._prompt, self._batching, self._alone):
            if producer is not None:
                producer.poll(0)
        if self.failed:
            self.tell_failed()

    def tell_failed(self) -> None:
        """Tell those whose records failed."""
        while self.failed:
            failed, self.failed[:] = list(self.failed), []
            for reported, error, message in failed:
                if message is not None and self._sends_again(reported, error, message):
                    continue
                self._failures.child(error.name().lower()).value += 1
                self._given_up += 1
                failure = undelivered(error)
                if failure.kind in TOPIC_KINDS:
                    self._on_topic_lost()
                reported.fail(failure)

    def under_way(self) -> int:
        """Records that wait to be sent or acknowledged."""
        return sum(len(each) for each in (self._prompt, self._batching, self._alone) if each is not None)

    def count_acknowledged(self) -> None:
        """Bring the counter up to date. It lags behind while librdkafka has something to tell that was not polled."""
        self._leaving = [each for each in self._leaving if each]
        # In this order: a record that moves on meanwhile, in the thread that ends producers, is then counted as under
        # way twice, and never as acknowledged.
        queued = sum([len(producer) for leaving in self._leaving for producer in leaving])
        under_way = self.under_way() + queued + len(self._to_send_alone) + len(self.failed)
        now = self._taken - self._given_up - under_way
        if now > self._counted:
            self._acknowledged.value += now - self._counted
            self._counted = now

    def close(self) -> None:
        """Poll no more."""
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None

    def _on_tick(self) -> None:
        self.poll()
        self.count_acknowledged()
        known = self._taken == self._given_up + self._counted
        self._tick = None if known else self._loop.call_later(_TICK_S, self._on_tick)


def end(producers: list[Producer], flush_s: float) -> None:
    """Flush for at most so long and be rid of them, whatever they still hold. Blocks: not in the loop."""
    for producer in producers:
        left = producer.flush(flush_s) if flush_s > 0 else len(producer)
        if left:
            log.warning("%d records given up with their producer", left)
            producer.purge()
            producer.flush(1.0)  # reports of what was purged
    producers.clear()
