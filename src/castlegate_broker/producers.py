"""Idempotent producers of one partition: tells a batch that continues a producer's numbering from one sent twice.

The rules are those of Kafka's ProducerStateManager (KIP-98): sequences count records, wrap after 2^31-1, and the
last five batches of a producer are remembered, as many as a client may have in flight. Pure; the log asks before
it appends and tells after.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from castlegate_broker.batch import BatchHeader
from castlegate_broker.errors import Code, Refused

_REMEMBERED_BATCHES = 5
_SEQUENCES = 1 << 31


@dataclass(slots=True)
class _Producer:
    epoch: int
    next_sequence: int
    # (first sequence, number of records, base offset)
    recent: deque[tuple[int, int, int]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_BATCHES))


class Producers:
    """The numbered producers of a partition, the least recently seen forgotten beyond `limit`."""

    __slots__ = ("_known", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: OrderedDict[int, _Producer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def duplicate_of(self, header: BatchHeader) -> int | None:
        """Base offset of the same batch stored before, or None for the next one; raises `Refused` on a gap."""
        producer = self._known.get(header.producer_id)
        if producer is None:
            # Unknown, or forgotten: any sequence may start (KIP-360).
            return None
        if header.producer_epoch < producer.epoch:
            raise Refused(
                Code.INVALID_PRODUCER_EPOCH,
                f"producer {header.producer_id} has epoch {producer.epoch}, the batch {header.producer_epoch}",
            )
        if header.producer_epoch > producer.epoch:
            expected = 0
        else:
            for first, count, base_offset in producer.recent:
                if first == header.base_sequence and count == header.count:
                    return base_offset
            expected = producer.next_sequence
        if header.base_sequence != expected:
            raise Refused(
                Code.OUT_OF_ORDER_SEQUENCE_NUMBER,
                f"producer {header.producer_id} sent sequence {header.base_sequence}, expected is {expected}",
            )
        return None

    def stored(self, header: BatchHeader, base_offset: int) -> None:
        """Remember a batch that was appended."""
        producer = self._known.get(header.producer_id)
        if producer is None or producer.epoch != header.producer_epoch:
            producer = self._known[header.producer_id] = _Producer(header.producer_epoch, 0)
        producer.next_sequence = (header.base_sequence + header.count) % _SEQUENCES
        producer.recent.append((header.base_sequence, header.count, base_offset))
        self._known.move_to_end(header.producer_id)
        if len(self._known) > self._limit:
            self._known.popitem(last=False)
