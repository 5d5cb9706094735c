"""A topic that is a table: one partition, compacted, which every worker reads from its beginning to its end and on.

Its order is the same for all: whoever appends a record and waits until it was read has seen all that came before it,
and so decides like every other instance. There is no consumer group; the partition is assigned by hand, in a thread of
its own, which hands batches over to the loop and holds back when that lags.

    waiting ──topic is there──▶ reading ──end of what was there──▶ caught up
       ▲                           │ the place is lost, the topic was made anew, or nothing was heard for a while
       └───────────────────────────┘

The last of these because brokers forget deletions after a day: who has not heard of one must begin anew.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.stores.log import Table
from castlegate.upstreams.kafka.client import Clients, OnError, RateLimit, log
from castlegate.upstreams.kafka.events import Publisher
from castlegate.upstreams.kafka.gate import Gate
from castlegate.upstreams.kafka.topics import Owned, Presence, TopicInfo
from castlegate.waiting import Waiter
from castlegate.wire.timer import Timer

PARTITION = 0


class Kind(NamedTuple):
    """How such a topic is made, and from where it is read."""

    owned: Owned
    whole: bool
    """From its beginning, and anew whenever the place is lost; else from where it ends now, then on from there."""


_TABLE = Owned(
    1,
    {
        "cleanup.policy": "compact",
        "delete.retention.ms": "86400000",  # a day: how long deletions can be heard of
        # Nobody who waits for an answer misses a record because a later one of its key has taken its place.
        "min.compaction.lag.ms": "3600000",
        # What is not in a closed segment is not compacted: all of it would be read by each worker that starts.
        "segment.ms": "3600000",
        "segment.bytes": "67108864",
        "min.cleanable.dirty.ratio": "0.1",
    },
)
TABLE = Kind(_TABLE, whole=True)
"""What is known now, by key."""
NEWS = Kind(Owned(1, {"cleanup.policy": "delete", "retention.ms": "600000", "segment.ms": "600000"}), whole=False)
"""What is worth hearing as it happens, and for ten minutes."""

_END = -1  # in place of an offset
_BATCH = 256
_IN_FLIGHT = 4  # batches handed over that the loop has not finished
_POLL_S = 0.1  # how late the end is noticed
_RETRY_S = 0.1
_ENDS_S = 2.0  # for the brokers to say where the log ends
_STALE_S = 600.0  # without a word of the brokers

Read = tuple[int, bytes | None, bytes | None]
"""The offset after a record, its key and its value; neither where there is no record before that offset any more."""


class Begun(NamedTuple):
    """Reading begins: up to here stands what was there before."""

    end: int


class Reaching:
    """One that waits for the reader."""

    __slots__ = ("target", "waiter")

    def __init__(self, target: int | None) -> None:
        self.target = target  # an offset that is to be read; None: all that was there at the start
        self.waiter: Waiter[None] = Waiter()

    def expire(self) -> None:
        """Its deadline has passed."""
        self.waiter.fail(CallFailed(Kinds.TIMEOUT, Outcome.UNKNOWN, "The message broker did not answer in time."))


class Log:
    """Of one topic; owned by who made it, who starts and stops it."""

    def __init__(
        self,
        publisher: Publisher,
        gate: Gate,
        clients: Clients,
        timer: Timer,
        tell: Callable[[Callable[[], None]], None],
        on_error: OnError,
        kind: Kind,
    ) -> None:
        self.topic = publisher.topic
        self.kind = kind
        self._gate = gate
        self._publisher = publisher
        self._timer = timer
        self._reader = Reader(self.topic, gate, clients, lambda found: tell(lambda: self._found(found)), on_error, kind)
        # The loop's own.
        self._table: Table | None = None
        self.stopped = False
        self._id = ""
        self._position = 0
        self._end: int | None = None  # of what was there when reading began; None while it has not
        self._waiting: set[Reaching] = set()

    @property
    def caught_up(self) -> bool:
        """Whether all that was there at the start has been read."""
        return self._end is not None and self._position >= self._end

    async def admit(self, deadline: float) -> None:
        """Return if records can be written now; raises `CallFailed` (not sent)."""
        if not self._gate.open:
            await self._gate.admit(deadline)

    def start(self, table: Table) -> None:
        """Read into a table from now on."""
        self._table = table
        self._reader.start()

    async def stop(self) -> None:
        """End; who waits is told that nothing is known."""
        self.stopped = True
        for reaching in [*self._waiting]:
            reaching.waiter.fail(CallFailed(Kinds.DRAINING, Outcome.UNKNOWN))
        self._reader.stop()
        await asyncio.get_running_loop().run_in_executor(None, self._reader.join)

    def seen(self, info: TopicInfo) -> None:
        """The brokers were asked for the topic; one of another id is another topic."""
        if info.presence is Presence.PRESENT:
            if self._id and info.id != self._id:
                self._reader.begin_anew()
            self._id = info.id

    async def append(self, key: bytes, value: bytes | None, deadline: float) -> int:
        """Write a record; its offset, once all in-sync replicas have it. Raises `CallFailed`."""
        return (await self._publisher.publish(key, value, [], deadline)).offset

    async def reached(self, offset: int, deadline: float) -> None:
        """Return when the record there, and so all before it, were told to the table. Raises `CallFailed` (unknown)."""
        if self._position <= offset:
            await self._wait(Reaching(offset), deadline)

    async def beginning(self, deadline: float) -> None:
        """Return when all that was there at the start has been read. Raises `CallFailed` (unknown)."""
        if not self.caught_up:
            await self._wait(Reaching(None), deadline)

    async def _wait(self, reaching: Reaching, deadline: float) -> None:
        self._waiting.add(reaching)
        self._timer.add(reaching, deadline)
        try:
            await reaching.waiter
        finally:
            self._timer.remove(reaching, deadline)
            self._waiting.discard(reaching)

    def _found(self, found: Begun | list[Read]) -> None:
        """What the thread tells."""
        table = self._table
        assert table is not None, "reading begins with a table"
        if isinstance(found, Begun):
            table.restart()
            self._position, self._end = 0, found.end
        else:
            try:
                for position, key, value in found:
                    if key is not None:
                        table.apply(key, value)
                    self._position = position
            finally:
                self._reader.finished()  # else it would hold back for good
        position, caught_up = self._position, self.caught_up
        for reaching in [*self._waiting]:
            if caught_up if reaching.target is None else position > reaching.target:
                reaching.waiter.settle(None)


class Reader:
    """The thread."""

    def __init__(
        self,
        topic: str,
        gate: Gate,
        clients: Clients,
        tell: Callable[[Begun | list[Read]], None],
        on_error: OnError,
        kind: Kind,
    ) -> None:
        self._topic = topic
        self._gate = gate
        self._clients = clients
        self._tell = tell
        self._on_error = on_error
        self._limit = RateLimit()
        self._whole = kind.whole
        self._next: int | None = None if kind.whole else _END  # where to go on; None: at the beginning
        # Shared with the loop, which sets them.
        self._stopping = False
        self._anew = False
        self._free = threading.Semaphore(_IN_FLIGHT)
        self._thread = threading.Thread(target=self._run, name="castlegate-kafka-table", daemon=True)

    def start(self) -> None:
        """Begin as soon as the topic is there."""
        self._thread.start()

    def begin_anew(self) -> None:
        """The topic is another one of the same name."""
        self._anew = True

    def finished(self) -> None:
        """The loop is through with a batch."""
        self._free.release()

    def stop(self) -> None:
        """End soon."""
        self._stopping = True

    def join(self) -> None:
        """Wait for the end of the thread."""
        if self._thread.ident is not None:
            self._thread.join()

    # What follows runs in the thread.

    def _run(self) -> None:
        while not self._stopping:
            if self._gate.open:
                if self._anew:
                    self._anew, self._next = False, None
                try:
                    # A new one each time: librdkafka may keep what it knew of a topic that was made anew.
                    consumer = Consumer(self._clients.follower(self._on_error))
                    try:
                        self._read(consumer)
                    finally:
                        consumer.close()
                except KafkaException as failure:
                    self._say("table %s cannot be read: %s", failure.args[0].str())
            time.sleep(_RETRY_S)

    def _read(self, consumer: Consumer) -> None:
        """Until the end, or until it is to begin anew."""
        place = TopicPartition(self._topic, PARTITION)
        # Before the assignment, since it would wait behind the fetches.
        found = consumer.get_watermark_offsets(place, timeout=_ENDS_S)
        if found is None:
            return
        begin, end = found
        at = self._begin_at(begin, end)
        self._tell(Begun(end))
        consumer.assign([TopicPartition(self._topic, PARTITION, at)])
        heard_at = time.monotonic()
        while not self._stopping and not self._anew:
            message = consumer.poll(_POLL_S)
            now = time.monotonic()
            if now - heard_at > _STALE_S:
                self._say("table %s is read anew: %s", "nothing was heard of it for a while")
                return
            if message is not None or self._gate.open:
                heard_at = now
            if message is None:
                continue
            batch = [message, *consumer.consume(_BATCH - 1, 0)]  # with a timeout it would wait for the full number
            told = self._told(batch)
            if told is None:
                return
            self._hand_over(told)
            if not self._whole:
                self._next = told[-1][0]

    def _begin_at(self, begin: int, end: int) -> int:
        """Between the offsets that the topic has."""
        if self._next is None:
            at = begin
        elif self._next == _END:
            at = end
        else:
            at = self._next if begin <= self._next <= end else begin
        if not self._whole:
            self._next = at
        return at

    def _told(self, batch: list[Message]) -> list[Read] | None:
        """What the loop is told; None where the place is lost."""
        told: list[Read] = []
        for message in batch:
            error, offset = message.error(), message.offset()
            if error is None:
                assert offset is not None
                key = message.key()
                told.append((offset + 1, key.encode() if isinstance(key, str) else key, _bytes(message.value())))
            elif error.code() == KafkaError._PARTITION_EOF:
                # What stood before it may have been compacted away.
                assert offset is not None
                told.append((offset, None, None))
            elif message.partition() == PARTITION:
                self._say("table %s is read anew: %s", error.str())
                return None
        return told

    def _hand_over(self, told: list[Read]) -> None:
        while not self._free.acquire(timeout=_POLL_S):
            if self._stopping:
                return
        self._tell(told)

    def _say(self, text: str, reason: str) -> None:
        if self._limit.admit(reason) is not None:
            log.warning(text, self._topic, reason)


def _bytes(value: bytes | str | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
