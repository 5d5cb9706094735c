"""Pending Kafka requests of one worker: which sink waits for which correlation id.

A request is opened, its sink is fed the records that carry its id until it says that it has all it wants, and it is
closed by whoever opened it: answered, out of time or given up, once. Bounded; does no I/O and reads no clock: deadlines
are the caller's business.

A record whose request is gone is named honestly: `duplicate` if the request had its answer, `late` if it was given up,
`unknown` if no such id was ever issued here. For that the table remembers the last requests that were given up; of
older ones it cannot tell and calls them late.
"""

from __future__ import annotations

from typing import Protocol

from castlegate.errors import CallFailed
from castlegate.upstreams.kafka.dialects.dialect import ReceivedHeaders

TAG_DIGITS = 16
_ID_DIGITS = 32
_COUNTERS = 1 << 4 * (_ID_DIGITS - TAG_DIGITS)

OK = "ok"
MALFORMED = "malformed"  # it was for a request of ours, and made no sense
LATE = "late"
DUPLICATE = "duplicate"
UNKNOWN = "unknown"
KINDS = (OK, MALFORMED, LATE, DUPLICATE, UNKNOWN)


class Sink(Protocol):
    """Takes the records of one request."""

    done: bool
    """Whether it has all it wants: records that come now are duplicates."""

    def feed(self, headers: ReceivedHeaders, value: bytes | None) -> str:
        """One record: OK or MALFORMED. Sets `done` with the last one. Must not raise."""

    def fail(self, error: CallFailed) -> None:
        """There will be no more. Must not raise."""


class PendingFull(Exception):
    """As many requests wait as may."""


class Pending:
    """The table. Ids are 32 hexadecimal digits: the worker's tag and a counter that starts anywhere."""

    __slots__ = ("_first", "_forgotten", "_given_up", "_last", "_limit", "_memory", "_sinks", "tag")

    def __init__(self, *, limit: int, tag: bytes, first: int, memory: int = 65_536) -> None:
        assert len(tag) == TAG_DIGITS
        assert 0 <= first < _COUNTERS // 2, "leaves room for more requests than a worker will ever see"
        self.tag = tag
        self._limit = limit
        self._memory = memory
        self._first = first
        # Mutable, changed by open, feed and close alone.
        self._sinks: dict[bytes, Sink] = {}
        self._last = first  # counter of the latest id
        self._given_up: dict[int, None] = {}  # counters in the order of giving up
        self._forgotten = first  # the highest counter that was dropped from there

    def __len__(self) -> int:
        return len(self._sinks)

    def open(self, sink: Sink) -> bytes:
        """Have `sink` fed what comes for the id returned. Raises `PendingFull`."""
        if len(self._sinks) >= self._limit:
            raise PendingFull
        self._last = counter = self._last + 1
        correlation_id = b"%s%016x" % (self.tag, counter)
        self._sinks[correlation_id] = sink
        return correlation_id

    def feed(self, correlation_id: bytes, headers: ReceivedHeaders, value: bytes | None) -> str:
        """A record has come; says what kind it was."""
        sink = self._sinks.get(correlation_id)
        if sink is None:
            return self._stray(correlation_id)
        if sink.done:
            return DUPLICATE
        return sink.feed(headers, value)

    def close(self, correlation_id: bytes) -> None:
        """Nobody waits for it any more; if its sink is not done, it was given up."""
        sink = self._sinks.pop(correlation_id, None)
        if sink is None or sink.done:
            return
        self._given_up[int(correlation_id[TAG_DIGITS:], 16)] = None
        if len(self._given_up) > self._memory:
            oldest = next(iter(self._given_up))
            del self._given_up[oldest]
            self._forgotten = max(self._forgotten, oldest)

    def sinks(self) -> list[Sink]:
        """Those who wait."""
        return list(self._sinks.values())

    def _stray(self, correlation_id: bytes) -> str:
        counter = self._counter(correlation_id)
        if counter is None:
            return UNKNOWN
        if counter in self._given_up:
            return LATE
        return DUPLICATE if counter > self._forgotten else LATE

    def _counter(self, correlation_id: bytes) -> int | None:
        """Of an id that was issued here."""
        if len(correlation_id) != _ID_DIGITS or not correlation_id.startswith(self.tag):
            return None
        try:
            counter = int(correlation_id[TAG_DIGITS:], 16)
        except ValueError:
            return None
        # int() also takes signs, underscores and capitals.
        if not self._first < counter <= self._last or b"%016x" % counter != correlation_id[TAG_DIGITS:]:
            return None
        return counter
