"""Reads replies, in a thread of its own, by manual assignment: no consumer group, no rebalance, no joining.

A partition is read from the end that its log had when it was first asked for: librdkafka resolves OFFSET_END lazily,
so the watermark is read, elsewhere (here it would wait behind the fetch under way), and that offset assigned, before
any request names the partition. When the place is lost (the topic was made anew, the log was cut), reading goes on
with the records written since the longest timeout.

The thread drops what belongs to other workers, which the tag at the start of the correlation id tells, and hands the
rest over in batches, one call into the loop for each. When the loop lags it holds back: librdkafka then stops fetching.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from confluent_kafka import TIMESTAMP_CREATE_TIME, Consumer, KafkaError, KafkaException, Message, TopicPartition

from castlegate.telemetry.metrics import Counter, Gauge, Histogram
from castlegate.upstreams.kafka.client import Clients, RateLimit, log
from castlegate.upstreams.kafka.dialects.dialect import ReceivedHeaders
from castlegate.upstreams.kafka.topics import Order

_BATCH = 256
_IN_FLIGHT = 4  # batches handed over that the loop has not finished
_POLL_S = 0.1  # how late a new order, or the end, is noticed
_RETRY_S = 0.2
_LAG_EVERY_S = 1.0

_PLACE_LOST = (KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION, KafkaError.OFFSET_OUT_OF_RANGE)
_TOPIC_LOST = (
    KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION,
    KafkaError.UNKNOWN_TOPIC_ID, KafkaError.INCONSISTENT_TOPIC_ID, KafkaError.TOPIC_AUTHORIZATION_FAILED,
)  # fmt: skip

Received = tuple[bytes, ReceivedHeaders, bytes | None]  # correlation id, headers, value


class Events(NamedTuple):
    """Whom the thread tells what; all of them are safe to call from it."""

    deliver: Callable[[list[Received]], None]  # into the loop, which answers with `Inbox.finished()`
    unidentified: Callable[[int], None]  # so many records had no correlation id that can be read
    assigned: Callable[[Order], None]
    misplaced: Callable[[str, int], None]  # topic and partition whose place is lost
    lost: Callable[[str, str], None]  # topic, reason
    error: Callable[[KafkaError], None]


class Counters(NamedTuple):
    """Counted by the thread alone."""

    foreign: Counter
    lag: Gauge
    returned: Histogram


class Inbox:
    """The thread."""

    def __init__(self, clients: Clients, tag: bytes, events: Events, counters: Counters) -> None:
        self._clients = clients
        self._tag = tag
        self._events = events
        self._counters = counters
        self._limit = RateLimit()
        # Shared with the loop: replaced as a whole by it, or made for threads.
        self.correlation: Mapping[str, tuple[str, ...]] = {}  # topic → names of the header that holds the id
        self._orders: deque[Order] = deque()
        self._wake = threading.Event()
        self._free = threading.Semaphore(_IN_FLIGHT)
        self._stopping = False
        # The thread's own.
        self._followed: deque[Order] = deque()  # to be told of when the next consumer reads
        self._begin: dict[tuple[str, int], int] = {}  # by topic and partition: what is assigned, from which offset on
        self._lag_at = 0.0
        self._thread = threading.Thread(target=self._run, name="castlegate-kafka-inbox", daemon=True)

    def start(self) -> None:
        """Wait for orders."""
        self._thread.start()

    def read(self, orders: Iterable[Order]) -> None:
        """Follow the orders as soon as may be; `assigned` tells when."""
        self._orders.extend(orders)
        self._wake.set()

    def finished(self) -> None:
        """The loop is through with a batch."""
        self._free.release()

    def stop(self) -> None:
        """End; what was read and not handed over is dropped."""
        self._stopping = True
        self._wake.set()

    def join(self) -> None:
        """Wait for the end of the thread."""
        if self._thread.ident is not None:
            self._thread.join()

    # What follows runs in the thread.

    def _run(self) -> None:
        while not self._stopping:
            if not self._orders and not self._begin:
                self._wake.wait()
                self._wake.clear()
                continue
            try:
                consumer = Consumer(self._clients.consumer(self._events.error))
                try:
                    self._read(consumer)
                finally:
                    consumer.close()
            except KafkaException as failure:
                self._say("consumer", "the inbox has to be made anew: %s", failure.args[0].str())
                for topic in {topic for topic, _ in self._begin}:
                    self._events.lost(topic, "its consumer failed")
                self._begin.clear()
                self._followed.clear()
                time.sleep(_RETRY_S)

    def _read(self, consumer: Consumer) -> None:
        """Until the end, or until another consumer is to go on where this one stands."""
        if self._begin:
            consumer.incremental_assign(_partitions(self._begin))
        while self._followed:
            self._events.assigned(self._followed.popleft())
        while not self._stopping:
            if self._orders and not self._follow(consumer):
                return
            message = consumer.poll(_POLL_S)
            if message is not None:
                batch = [message]
                batch += consumer.consume(_BATCH - 1, 0)  # with a timeout it would wait for the full number
                ours = self._sort(batch)
                if ours:
                    self._hand_over(consumer, ours)
            self._measure_lag(consumer)

    def _hand_over(self, consumer: Consumer, ours: list[Received]) -> None:
        while not self._free.acquire(timeout=_POLL_S):
            if self._stopping:
                return
            self._measure_lag(consumer)
        self._events.deliver(ours)

    def _sort(self, batch: list[Message]) -> list[Received]:
        """Those of the batch that are for this worker."""
        ours: list[Received] = []
        tag = self._tag
        names_of = self.correlation
        foreign = unknown = 0
        now = time.time()
        for message in batch:
            error = message.error()
            if error is not None:
                self._fault(message, error)
                continue
            try:
                headers: ReceivedHeaders = dict(message.headers() or ())  # type: ignore[arg-type]
            except SystemError:  # a header name that is not UTF-8 (confluent-kafka 2.16)
                unknown += 1
                continue
            correlation_id = None
            for name in names_of.get(message.topic() or "", ()):
                correlation_id = headers.get(name)
                if correlation_id is not None:
                    break
            if correlation_id is None:
                unknown += 1
            elif correlation_id.startswith(tag):
                ours.append((correlation_id, headers, message.value()))
                kind, stamp = message.timestamp()
                if kind == TIMESTAMP_CREATE_TIME:
                    self._counters.returned.observe(max(0.0, now - stamp / 1000))
            else:
                foreign += 1
        if foreign:
            self._counters.foreign.value += foreign
        if unknown:
            self._events.unidentified(unknown)
            self._say("unknown", "%d replies without a readable correlation id", unknown)
        return ours

    def _fault(self, message: Message, error: KafkaError) -> None:
        code = error.code()
        topic, partition = message.topic(), message.partition()
        if topic is None or partition is None or partition < 0:
            self._say(error.name(), "inbox: %s", error.str())
        elif code in _PLACE_LOST:
            self._say(f"place {topic}", "inbox: place in %s/%d lost, finding it again by time", topic, partition)
            self._events.misplaced(topic, partition)
        elif code in _TOPIC_LOST:
            self._events.lost(topic, error.str())
        else:
            self._say(error.name(), "inbox: %s", error.str())

    def _follow(self, consumer: Consumer) -> bool:
        """Carry out all orders; what they do not concern goes on being read and does not notice. False: it takes a new
        consumer, since this one may keep what it knew of a topic that was made anew, and asks for one that is not read
        any more (librdkafka 2.16).

        Assigned at once, since what comes second would wait for the end of the first one's fetch.
        """
        if any(order.forget or not order.partitions for order in self._orders):
            self._begin = self._places(consumer)
            self._note_all()
            return False
        followed: list[Order] = []
        entered: dict[tuple[str, int], int] = {}
        while self._orders:
            order = self._orders.popleft()
            here = {partition for topic, partition in self._begin if topic == order.topic}
            wanted = set(order.partitions)
            leave = sorted((here - wanted) | (here & order.forget))
            if leave:
                consumer.incremental_unassign([TopicPartition(order.topic, partition) for partition in leave])
            for partition in leave:
                del self._begin[order.topic, partition]
            for partition in wanted.difference(here.difference(leave)):
                entered[order.topic, partition] = self._begin[order.topic, partition] = order.offsets[partition]
            followed.append(order)
        if entered:
            consumer.incremental_assign(_partitions(entered))
        for order in followed:
            self._events.assigned(order)
        return True

    def _note_all(self) -> None:
        """Take over all orders for the next consumer to begin with."""
        while self._orders:
            order = self._orders.popleft()
            for place in [place for place in self._begin if place[0] == order.topic]:
                if place[1] not in order.partitions or place[1] in order.forget:
                    del self._begin[place]
            for partition in order.partitions:
                self._begin.setdefault((order.topic, partition), order.offsets[partition])
            self._followed.append(order)

    def _places(self, consumer: Consumer) -> dict[tuple[str, int], int]:
        """The next offset of everything that is assigned: librdkafka knows it once something was consumed."""
        places = dict(self._begin)
        for at in consumer.position(consumer.assignment()):
            if at.offset >= 0:
                places[at.topic, at.partition] = at.offset
        return places

    def _measure_lag(self, consumer: Consumer) -> None:
        """Records in the brokers' logs that were not read yet, as far as the last fetch told."""
        now = time.monotonic()
        if now - self._lag_at < _LAG_EVERY_S:
            return
        self._lag_at = now
        lag = 0
        for (topic, partition), offset in self._places(consumer).items():
            high = consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)[1]
            lag += max(0, high - offset)
        self._counters.lag.value = lag

    def _say(self, kind: str, text: str, *values: object) -> None:
        left_out = self._limit.admit(kind)
        if left_out is not None:
            log.warning(text + "%s", *values, f" ({left_out} more like it)" if left_out else "")


def _partitions(places: Mapping[tuple[str, int], int]) -> list[TopicPartition]:
    return [TopicPartition(topic, partition, offset) for (topic, partition), offset in places.items()]
