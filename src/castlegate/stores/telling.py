"""What instances tell each other of what they have admitted: the records of the topic that limits are counted over.

Keys are hashes: nothing of callers, their addresses or their credentials is told. Whatever else is written to the topic
is refused as a whole.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from castlegate.stores.counts import SHARED_KEY

MOST = 2000  # keys that a record tells of
_SIZE = 48  # bytes that one takes up in a record, at most
_FRAME = 64  # and what is around them

Key = Annotated[bytes, msgspec.Meta(min_length=SHARED_KEY, max_length=SHARED_KEY)]
Taken = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]
Moment = Annotated[int, msgspec.Meta(ge=0, le=2**53)]  # seconds since 1970


class RateUsed(msgspec.Struct, frozen=True, array_like=True, tag="r", gc=False):
    """Of a rate."""

    key: Key
    taken: Taken
    interval: Annotated[int, msgspec.Meta(ge=1, le=31 * 86400 * 10**9)]  # nanoseconds that each takes up
    ago: Annotated[int, msgspec.Meta(ge=0, le=10**12)]  # milliseconds from the first of them to when this was told


class QuotaUsed(msgspec.Struct, frozen=True, array_like=True, tag="q", gc=False):
    """Of a quota."""

    key: Key
    taken: Taken
    ends: Moment  # its window


Used = RateUsed | QuotaUsed


class Record(msgspec.Struct, frozen=True, array_like=True):
    """What one worker of an instance admitted since the record before; also one that tells of nothing."""

    instance: Key
    worker: Key
    number: Annotated[int, msgspec.Meta(ge=1, le=2**53)]  # of this record among those of the worker, from 1 on
    told_at: Moment
    used: Annotated[list[Used], msgspec.Meta(max_length=MOST)]


encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Record)


def decode(value: bytes | None) -> Record | None:
    """None: it is none."""
    try:
        return None if value is None else _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def most_in(size: int) -> int:
    """Keys that a record of so many bytes has room for."""
    return max(1, min(MOST, (size - _FRAME) // _SIZE))
