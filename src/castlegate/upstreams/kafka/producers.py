"""The two producers of requests: one sends at once, one batches for a millisecond under load.

Both are idempotent and wait for all in-sync replicas; which of them a request takes depends on how many wait for
replies. Requests with the same key keep their order as long as one producer sends them, not when the load changes.

Reports come only of failures, and without a thread: the loop polls whenever replies arrive, and every few
milliseconds while something is under way. Owned by the loop; producers are made and ended by the watch's thread.
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
_TICK_S = 0.05  # between polls while records are under way: how late a failed report is found at worst


class Reported(Protocol):
    """Who wants to know that its record failed."""

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
        on_error: Callable[[KafkaError], None],
        on_topic_lost: Callable[[], None],
    ) -> None:
        self._clients = clients
        self._linger_above = linger_above
        self._loop = loop
        self._failures = failures
        self._on_error = on_error
        self._on_topic_lost = on_topic_lost
        self.failed: list[tuple[Reported, KafkaError]] = []  # filled by reports, emptied by poll()
        self._prompt: Producer | None = None
        self._batching: Producer | None = None
        self._tick: asyncio.TimerHandle | None = None

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

    def use(self, pair: tuple[Producer, Producer] | None) -> list[Producer]:
        """Send with these from now on; returns those used before, for `end`."""
        before = [each for each in (self._prompt, self._batching) if each is not None]
        self._prompt, self._batching = pair if pair is not None else (None, None)
        return before

    def send(
        self, topic: str, value: bytes, key: bytes | None, headers: SentHeaders, report_to: Reported, pending: int
    ) -> None:
        """Hand a record over. Raises `CallFailed` (not sent) if it is not taken."""
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
        if self._tick is None:
            self._tick = self._loop.call_later(_TICK_S, self._on_tick)

    def poll(self) -> None:
        """Take reports and tell whom they concern. Also serves the clients' errors and log."""
        for producer in (self._prompt, self._batching):
            if producer is not None:
                producer.poll(0)
        if self.failed:
            self.tell_failed()

    def tell_failed(self) -> None:
        """Tell those whose records failed."""
        while self.failed:
            failed, self.failed[:] = list(self.failed), []
            for reported, error in failed:
                self._failures.child(error.name().lower()).value += 1
                failure = undelivered(error)
                if failure.kind in TOPIC_KINDS:
                    self._on_topic_lost()
                reported.fail(failure)

    def under_way(self) -> int:
        """Records that wait to be sent or acknowledged."""
        return sum(len(each) for each in (self._prompt, self._batching) if each is not None)

    def close(self) -> None:
        """Poll no more."""
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None

    def _on_tick(self) -> None:
        self.poll()
        self._tick = self._loop.call_later(_TICK_S, self._on_tick) if self.under_way() else None


def end(producers: list[Producer], flush_s: float) -> None:
    """Flush for at most so long and be rid of them, whatever they still hold. Blocks: not in the loop."""
    for producer in producers:
        left = producer.flush(flush_s) if flush_s > 0 else len(producer)
        if left:
            log.warning("%d records given up with their producer", left)
            producer.purge()
            producer.flush(1.0)  # reports of what was purged
    producers.clear()
