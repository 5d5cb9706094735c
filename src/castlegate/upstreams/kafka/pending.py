"""Pending Kafka requests of one worker: which sink waits for which correlation id.

A request is opened, its sink is fed the records that carry its id until it says that it has all it wants, and it is
closed by whoever opened it: answered, out of time or given up, once. Bounded; does no I/O and reads no clock: deadlines
are the caller's business.

A record whose request is gone is named honestly: `duplicate` if the request had its answer, `late` if it was given up,
`unknown` if no such id was ever issued here. For that the table remembers the last requests that were given up; of
older ones it cannot tell and calls them late.

An id cannot be guessed: a service sees those of its own requests, and must not be able to answer the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from castlegate.errors import CallFailed
from castlegate.upstreams.kafka.dialects.dialect import ReceivedHeaders

TAG_DIGITS = 12
_SECRET_DIGITS = 10
_COUNTER_DIGITS = 10
_ID_DIGITS = TAG_DIGITS + _SECRET_DIGITS + _COUNTER_DIGITS
_COUNTERS = 1 << 4 * _COUNTER_DIGITS
_SECRETS_AT_ONCE = 1024  # asking the system for each would cost ten times as much

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
    """The table. Ids are 32 hexadecimal digits: the worker's tag, a secret, and a counter that starts anywhere."""

    __slots__ = (
        "_first", "_forgotten", "_given_up", "_last", "_limit", "_memory", "_random", "_secrets", "_sinks", "_used",
        "tag",
    )  # fmt: skip

    def __init__(
        self,
        *,
        limit: int,
        tag: bytes,
        first: int,
        memory: int = 65_536,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`random` gives so many bytes that nobody can foresee."""
        assert len(tag) == TAG_DIGITS
        assert 0 <= first < _COUNTERS // 2, "leaves room for more requests than a worker will ever see"
        self.tag = tag
        self._limit = limit
        self._memory = memory
        self._first = first
        self._random = random
        # Mutable, changed by open, feed and close alone.
        self._secrets = b""
        self._used = 0  # digits of them
        self._sinks: dict[bytes, Sink] = {}
        self._last = first  # counter of the latest id
        self._given_up: dict[int, bytes] = {}  # counter → id, in the order of giving up
        self._forgotten = first  # the highest counter that was dropped from there

    def __len__(self) -> int:
        return len(self._sinks)

    def open(self, sink: Sink) -> bytes:
        """Have `sink` fed what comes for the id returned. Raises `PendingFull`."""
        if len(self._sinks) >= self._limit:
            raise PendingFull
        used = self._used
        if used == len(self._secrets):
            self._secrets = self._random(_SECRETS_AT_ONCE * _SECRET_DIGITS // 2).hex().encode()
            used = 0
        self._used = end = used + _SECRET_DIGITS
        self._last = counter = self._last + 1
        correlation_id = b"%s%s%010x" % (self.tag, self._secrets[used:end], counter)
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
        self._given_up[int(correlation_id[-_COUNTER_DIGITS:], 16)] = correlation_id
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
        given_up = self._given_up.get(counter)
        if given_up is not None:
            return LATE if given_up == correlation_id else UNKNOWN
        return DUPLICATE if counter > self._forgotten else LATE

    def _counter(self, correlation_id: bytes) -> int | None:
        """Of an id that was issued here, as far as can be told: the secrets of those that were answered are gone."""
        if len(correlation_id) != _ID_DIGITS or not correlation_id.startswith(self.tag):
            return None
        try:
            rest = int(correlation_id[TAG_DIGITS:], 16)
        except ValueError:
            return None
        counter = rest % _COUNTERS
        # int() also takes signs, underscores and capitals.
        written = b"%0*x" % (_ID_DIGITS - TAG_DIGITS, rest)
        return counter if self._first < counter <= self._last and written == correlation_id[TAG_DIGITS:] else None
