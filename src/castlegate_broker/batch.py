"""The record batch, Kafka's unit of storage: reads its header, leaves its records opaque.

Layout: https://kafka.apache.org/documentation/#recordbatch. The checksum covers all from `attributes` on, so
that a broker may write offset and leader epoch without touching it. It is not verified here: Python's standard
library has no fast crc32c, and consumers verify it themselves; what is verified is the structure.
"""

import struct
from dataclasses import dataclass

from castlegate_broker.errors import Code, Refused

_HEADER = struct.Struct(">qiibIhiqqqhii")
_PREFIX = struct.Struct(">qii")
_LENGTH_COVERS_FROM = 12
_MAGIC = 2
_COMPRESSION = 0x07
_TRANSACTIONAL = 0x10
_CONTROL = 0x20
LEADER_EPOCH = 0
# What Python needs for a kept batch besides its bytes; counted so that bounds in bytes are honest.
OVERHEAD = 240


@dataclass(frozen=True, slots=True)
class BatchHeader:
    """What a broker must know of a batch that a producer sent."""

    count: int
    base_timestamp: int
    max_timestamp: int
    compressed: bool
    producer_id: int
    producer_epoch: int
    base_sequence: int

    @property
    def idempotent(self) -> bool:
        """Whether the batch is numbered by its producer (KIP-98)."""
        return self.producer_id >= 0


def parse_batch(records: memoryview, max_bytes: int) -> BatchHeader:
    """Read the one batch of a produce request; raises `Refused` if it is not a sound one."""
    if len(records) > max_bytes:
        raise Refused(
            Code.MESSAGE_TOO_LARGE, f"a batch of {len(records)} bytes, more than max.message.bytes={max_bytes}"
        )
    if len(records) < _HEADER.size:
        raise Refused(Code.CORRUPT_MESSAGE, f"a record batch of {len(records)} bytes has no whole header")
    (_, length, _, magic, _, attributes, last_delta, base_time, max_time, producer, epoch, sequence, count) = (
        _HEADER.unpack_from(records)
    )
    if magic != _MAGIC:
        raise Refused(Code.CORRUPT_MESSAGE, f"record format {magic}; this broker stores format 2 only")
    if length != len(records) - _LENGTH_COVERS_FROM:
        # KIP-98: since Produce 3 a partition's records are exactly one batch.
        whole = length > 0 and length < len(records) - _LENGTH_COVERS_FROM
        raise Refused(Code.INVALID_RECORD if whole else Code.CORRUPT_MESSAGE, "not exactly one whole record batch")
    if count < 1 or last_delta != count - 1:
        raise Refused(Code.INVALID_RECORD, f"a batch of {count} records ends at offset delta {last_delta}")
    if attributes & _CONTROL:
        raise Refused(Code.INVALID_RECORD, "clients may not write control batches")
    if attributes & _TRANSACTIONAL:
        raise Refused(Code.INVALID_TXN_STATE, "transactions are not supported by the embedded broker")
    if producer >= 0 and (epoch < 0 or sequence < 0):
        raise Refused(Code.INVALID_RECORD, f"a numbered batch with epoch {epoch} and sequence {sequence}")
    return BatchHeader(count, base_time, max_time, bool(attributes & _COMPRESSION), producer, epoch, sequence)


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch at its place in a log: its bytes as they leave again, and what searches need."""

    base_offset: int
    next_offset: int
    header: BatchHeader
    data: bytes

    @property
    def cost(self) -> int:
        """Bytes of memory that the batch holds."""
        return len(self.data) + OVERHEAD


def place(records: memoryview, header: BatchHeader, base_offset: int) -> StoredBatch:
    """Copy a batch, with the offset that it got written into it."""
    prefix = _PREFIX.pack(base_offset, len(records) - _LENGTH_COVERS_FROM, LEADER_EPOCH)
    return StoredBatch(base_offset, base_offset + header.count, header, b"".join((prefix, records[_PREFIX.size :])))


def find_timestamp(batch: StoredBatch, timestamp: int) -> tuple[int, int]:
    """Offset and timestamp of the first record not older than this, in a batch that has one.

    The records of a compressed batch stay unread: it is answered by its first offset, so that a consumer
    starts at most one batch early.
    """
    header = batch.header
    if header.compressed:
        return batch.base_offset, max(header.base_timestamp, min(timestamp, header.max_timestamp))
    at = _HEADER.size
    # Records were never checked: one that can't be ends the search.
    while at < len(batch.data):
        size, at = _read_signed_varint(batch.data, at)
        if size <= 0:
            break
        time_delta, after = _read_signed_varint(batch.data, at + 1)
        offset_delta, _ = _read_signed_varint(batch.data, after)
        found = header.base_timestamp + time_delta
        if timestamp <= found <= header.max_timestamp and 0 <= offset_delta < header.count:
            return batch.base_offset + offset_delta, found
        at += size
    return batch.base_offset, header.max_timestamp


def _read_signed_varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a zigzag varint; one that is cut off reads as what there is of it."""
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return (value >> 1) ^ -(value & 1), at
