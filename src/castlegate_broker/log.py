"""The log of one partition: batches in the order they came, the oldest given up when it grows too large.

Offsets grow by one a record and never come back. `start` is the offset of the oldest record kept, `end` the one
that the next record gets. Pure: no clock, no I/O; only `append`, `trim` and `delete_before` change it.
"""

from bisect import bisect_right
from dataclasses import dataclass

from castlegate_broker.batch import StoredBatch, find_timestamp, parse_batch, place
from castlegate_broker.errors import Code, Refused
from castlegate_broker.producers import Producers


@dataclass(frozen=True, slots=True)
class Appended:
    """Where a batch is; `cost` is 0 if it was there already."""

    base_offset: int
    cost: int


@dataclass(frozen=True, slots=True)
class Found:
    """A record found by its time."""

    offset: int
    timestamp: int


def _base_offset(batch: StoredBatch) -> int:
    return batch.base_offset


class PartitionLog:
    """Batches of one partition, at most about `retention_bytes` of them."""

    __slots__ = ("_batches", "_producers", "cost", "end", "retention_bytes", "start")

    def __init__(self, retention_bytes: int, max_producers: int) -> None:
        self.retention_bytes = retention_bytes
        self.start = 0
        self.end = 0
        self.cost = 0
        self._batches: list[StoredBatch] = []
        self._producers = Producers(max_producers)

    def append(self, records: memoryview, max_bytes: int) -> Appended:
        """Store a batch; one that its producer sent before is found, not stored. Raises `Refused`."""
        header = parse_batch(records, max_bytes)
        if header.idempotent:
            known = self._producers.duplicate_of(header)
            if known is not None:
                return Appended(known, 0)
        batch = place(records, header, self.end)
        self._batches.append(batch)
        self.end = batch.next_offset
        self.cost += batch.cost
        if header.idempotent:
            self._producers.stored(header, batch.base_offset)
        self.trim(self.retention_bytes)
        return Appended(batch.base_offset, batch.cost)

    def trim(self, target: int) -> None:
        """If the log holds more than `target` bytes, give up its oldest batches but never the newest one.

        A sixteenth more than needed goes at once, as each cut moves the whole list.
        """
        if self.cost <= target:
            return
        excess = self.cost - (target - target // 16)
        count = 0
        while excess > 0 and count < len(self._batches) - 1:
            excess -= self._batches[count].cost
            count += 1
        self._drop(count)
        self.start = max(self.start, self._batches[0].base_offset)

    def delete_before(self, offset: int) -> None:
        """Make `offset` the first that can be read, and give up the batches that lie whole before it."""
        if not self.start <= offset <= self.end:
            raise Refused(Code.OFFSET_OUT_OF_RANGE)
        self.start = offset
        count = self._index_of(offset)
        if self._batches and self._batches[count].next_offset <= offset:
            count += 1
        self._drop(count)

    def _drop(self, count: int) -> None:
        self.cost -= sum(batch.cost for batch in self._batches[:count])
        del self._batches[:count]

    def read(self, offset: int, max_bytes: int, *, at_least_one: bool) -> list[bytes]:
        """Whole batches from the one that holds `offset` on, up to `max_bytes`. Raises `Refused` out of range.

        With `at_least_one` the first batch is given even if it is larger, so that a consumer gets on (KIP-74).
        """
        if not self.start <= offset <= self.end:
            raise Refused(Code.OFFSET_OUT_OF_RANGE)
        found: list[bytes] = []
        if offset == self.end:
            return found
        room = max_bytes
        for index in range(self._index_of(offset), len(self._batches)):
            data = self._batches[index].data
            if len(data) > room and not (at_least_one and not found):
                break
            found.append(data)
            room -= len(data)
        return found

    def _index_of(self, offset: int) -> int:
        return max(0, bisect_right(self._batches, offset, key=_base_offset) - 1)

    def first_not_older(self, timestamp: int) -> Found | None:
        """The first record whose timestamp is not older than this."""
        for batch in self._batches:
            if batch.header.max_timestamp >= timestamp:
                offset, found = find_timestamp(batch, timestamp)
                return Found(max(offset, self.start), found)
        return None

    def latest_timestamp(self) -> Found | None:
        """The record with the highest timestamp (KIP-734)."""
        if not self._batches:
            return None
        newest = max(self._batches, key=lambda batch: batch.header.max_timestamp)
        offset, found = find_timestamp(newest, newest.header.max_timestamp)
        return Found(offset, found)
