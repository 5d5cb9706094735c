"""Limits as they are at run time: each finds its key in a request, has it counted, and says the result in fields.

`take` counts in the instance's memory. `question` and `answer` are for a store that is asked about several at once.
Fields are those of draft-ietf-httpapi-ratelimit-headers: an item of a list in `RateLimit-Policy` and in `RateLimit`.
"""

from __future__ import annotations

import math
import time
from functools import lru_cache
from typing import NamedTuple

from castlegate.errors import Kind, Kinds
from castlegate.message import Ended, Request
from castlegate.policies.limits.per import KeyOf
from castlegate.rules.gcra import SECOND, Pace, parse_rate
from castlegate.rules.windows import Window, end_of
from castlegate.stores.counts import Counts, shared_key
from castlegate.stores.kafka_store import KafkaStore
from castlegate.stores.redis_store import Question
from castlegate.telemetry.metrics import Counter

AnyCounts = Counts | KafkaStore

_now_ns = time.monotonic_ns
_LONGEST_RATE = 32  # letters of a limit that a principal has


class Exceeded(NamedTuple):
    """A request that is not admitted."""

    kind: Kind
    detail: str
    wait: int  # seconds
    item: bytes  # of RateLimit


class LimitName(NamedTuple):
    """What a limit is told apart by from others, in memory and in Redis."""

    name: str
    """As clients are told it."""
    key_of: KeyOf
    parts: tuple[str, ...]
    """What it counts, for whom, per what, how much."""
    refused: Counter

    @property
    def prefix(self) -> bytes:
        """Of its keys."""
        return "\0".join(self.parts).encode()


class Rate:
    """So many in a time."""

    __slots__ = ("_hash", "_key_of", "_limit", "_pace", "_rates", "_room", "_shared", "policy")

    def __init__(self, limit: LimitName, pace: Pace, counts: AnyCounts) -> None:
        window = max(1, -(-pace.period // SECOND))
        quantity = pace.number * window * SECOND // pace.period
        self.policy = b'"%b";q=%d;w=%d' % (limit.name.encode(), quantity, window)
        self._limit = limit
        self._key_of = limit.key_of
        self._pace = pace
        self._room = b'"%b";r=%%d;t=%%d' % limit.name.encode()
        self._rates = counts.rates
        self._hash = counts.keyed(limit.prefix)
        self._shared = shared_key(limit.prefix)

    def take(self, request: Request) -> bytes | Exceeded:
        """Count it if it is admitted; the item of RateLimit. Raises `RequestRefused`."""
        made = self._hash.copy()
        made.update(self._key_of(request))
        debt = self._rates.take(made.digest(), self._pace, _now_ns())
        return self.answer(debt)

    def give_back(self, request: Request) -> None:
        """It was counted, and another limit refused it."""
        made = self._hash.copy()
        made.update(self._key_of(request))
        self._rates.give_back(made.digest(), self._pace)

    def question(self, request: Request) -> Question:
        """For Redis, which counts in microseconds."""
        made = self._shared.copy()
        made.update(self._key_of(request))
        pace = self._pace
        return Question(made.hexdigest(), b"r", -(-pace.interval // 1000), pace.tolerance // 1000)

    def answered(self, value: int) -> bytes | Exceeded:
        """What Redis said."""
        return self.answer(value * 1000)

    def answer(self, debt: int) -> bytes | Exceeded:
        """`debt`: nanoseconds that are taken up; negative: how long until it would be admitted."""
        pace = self._pace
        if debt >= 0:
            return self._room % (pace.left(debt), -(-pace.until_more(debt) // SECOND))
        self._limit.refused.value += 1
        wait = max(1, -(debt // SECOND))
        admitted = f"At most {pace.burst} at once, and {pace.number} requests in {_duration(pace.period)}"
        detail = f"{admitted}. Try again in {wait} s."
        return Exceeded(Kinds.LIMITED, detail, wait, self._room % (0, wait))


class OwnRate:
    """The rate that the principal has of its own, else that of the route."""

    def __init__(self, limit: LimitName, pace: Pace, counts: AnyCounts) -> None:
        ordinary = self._ordinary = Rate(limit, pace, counts)
        self.policy = ordinary.policy

        @lru_cache(1024)
        def of(text: str) -> Rate:
            try:
                count, period = parse_rate(text)
            except ValueError:
                return ordinary
            own = limit._replace(parts=(*limit.parts, "own", text))
            return Rate(own, Pace(count, period, count), counts)

        self._of = of

    def measure(self, request: Request) -> Rate:
        """The one that holds."""
        principal = request.principal
        said = None if principal is None else principal.claims.get("limit")
        if not isinstance(said, str) or len(said) > _LONGEST_RATE:
            return self._ordinary
        return self._of(said)


class Quota:
    """So many in a day or month of the calendar."""

    __slots__ = ("_amount", "_hash", "_key_of", "_limit", "_quotas", "_room", "_shared", "_window", "policy")

    def __init__(self, limit: LimitName, window: Window, amount: int, counts: AnyCounts) -> None:
        name = limit.name.encode()
        # Months differ in length, and `w` may be left out.
        self.policy = b'"%b";q=%d' % (name, amount) + (b";w=86400" if window == "daily" else b"")
        self._limit = limit
        self._key_of = limit.key_of
        self._window: Window = window
        self._amount = amount
        self._room = b'"%b";r=%%d;t=%%d' % name
        self._quotas = counts.quotas
        self._hash = counts.keyed(limit.prefix)
        self._shared = shared_key(limit.prefix)

    def take(self, request: Request) -> bytes | Exceeded:
        """Count it if it is admitted; the item of RateLimit. Raises `RequestRefused`."""
        now = time.time()
        ends = end_of(self._window, now)
        made = self._hash.copy()
        made.update(self._key_of(request))
        return self._answer(self._quotas.take(made.digest(), self._amount, ends, now), ends - now)

    def give_back(self, request: Request) -> None:
        """It was counted, and another limit refused it."""
        made = self._hash.copy()
        made.update(self._key_of(request))
        self._quotas.give_back(made.digest(), end_of(self._window, time.time()))

    def question(self, request: Request) -> Question:
        """For Redis: a key for each window."""
        ends = end_of(self._window, time.time())
        made = self._shared.copy()
        made.update(self._key_of(request))
        return Question(f"{made.hexdigest()}:{ends}", b"q", self._amount, ends)

    def answered(self, used: int) -> bytes | Exceeded:
        """`used`: with this one; negative: all of it is."""
        now = time.time()
        return self._answer(used, end_of(self._window, now) - now)

    def _answer(self, used: int, left: float) -> bytes | Exceeded:
        wait = max(1, math.ceil(left))
        if used >= 0:
            return self._room % (self._amount - used, wait)
        self._limit.refused.value += 1
        period = "day" if self._window == "daily" else "month"
        detail = f"The quota of {self._amount} requests a {period} is used up."
        return Exceeded(Kinds.LIMITED, detail, wait, self._room % (0, wait))


class Concurrency:
    """So many at once."""

    __slots__ = ("_hash", "_key_of", "_limit", "_most", "_room", "_slots", "policy")

    def __init__(self, limit: LimitName, most: int, counts: AnyCounts) -> None:
        name = limit.name.encode()
        self.policy = b'"%b";q=%d;qu="concurrent-requests"' % (name, most)
        self._limit = limit
        self._key_of = limit.key_of
        self._most = most
        self._room = b'"%b";r=%%d' % name
        self._slots = counts.slots
        self._hash = counts.keyed(limit.prefix)

    def take(self, request: Request) -> bytes | Exceeded:
        """Hold a slot until the request has ended; the item of RateLimit. Raises `RequestRefused`."""
        made = self._hash.copy()
        made.update(self._key_of(request))
        slots = self._slots
        cell, held = slots.acquire(made.digest(), self._most)
        if not cell:
            self._limit.refused.value += 1
            detail = f"More than {self._most} requests at once. Try again in a moment."
            return Exceeded(Kinds.CROWDED, detail, 1, self._room % 0)

        def release(_ended: Ended) -> None:
            slots.release(cell)

        request.on_end = [*(request.on_end or ()), release]
        return self._room % (self._most - held)


def _duration(period: int) -> str:
    """For people."""
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if period % (length * SECOND) == 0:
            count = period // (length * SECOND)
            return f"a {name}".replace("a h", "an h") if count == 1 else f"{count} {name}s"
    return f"{period / SECOND:g} seconds"
