"""Counting together over a Kafka topic: each instance counts in its own memory and tells the others what it admitted.

    take ──▶ the instance's memory, and what is yet to be told ──every now and then──▶ a record ──▶ topic
                       ▲                                                                          │
                       └────────── what other instances admitted, by the workers in shares ◀──────┘

No request waits for any of it. What others admitted before this instance heard of it may be too much; it is counted all
the same, so that what was too much at first is refused afterwards. A record counts once however often it is written:
records of a worker are numbered. A worker reads its own records too: while they come back, it hears the others.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from hashlib import blake2b

from castlegate.errors import CallFailed, Kinds, RequestRefused
from castlegate.rules.gcra import Pace
from castlegate.stores.counts import SHARED_KEY, Counts, shared_key
from castlegate.stores.log import Log
from castlegate.stores.losses import Losses, logger
from castlegate.stores.settings import LimitStore
from castlegate.stores.telling import QuotaUsed, RateUsed, Record, Used, decode, encode, most_in
from castlegate.telemetry.metrics import Registry
from castlegate.telemetry.stumbles import Stumbles
from castlegate.wire.timer import Timer

_MARK_EVERY = 1.0  # seconds between two records at most: of nothing, where there is nothing to tell
_BACKOFF = (0.05, 0.1, 0.25, 0.5, 1.0)  # seconds between two tries while Kafka is lost
_AT_ONCE = 250  # keys of others counted between two turns of the loop: less than a millisecond
_MOST_HEARD = 100_000  # keys that wait for that
_WORKERS = 4096  # of which it is known what was heard last
_SLACK = 5  # seconds that the clocks of instances may differ by


class KafkaStore:
    """Of one worker; to what counts limits it is what `Counts` is. `max_record`: bytes that a record may have."""

    def __init__(
        self, settings: LimitStore, counts: Counts, log: Log, timer: Timer, registry: Registry, max_record: int
    ) -> None:
        self._settings = settings
        self._log = log
        self._timer = timer
        self._losses = Losses(settings, "Kafka", registry)
        self._most = most_in(max_record)
        self._instance = blake2b(b"instance", digest_size=SHARED_KEY, key=counts.secret).digest()
        self._worker = secrets.token_bytes(SHARED_KEY)
        self._number = 0
        self._sending: Record | None = None  # of which it is not known whether it was written
        self._up = False
        self._found = asyncio.Event()
        self._refusing = settings.lost == "refuse"
        self._telling: asyncio.Task[None] | None = None
        self.rates = _Rates(self, counts, settings.untold)
        self.quotas = _Quotas(self, counts, settings.untold)
        self.slots = counts.slots
        self._hearing = Hearing(self._instance, counts, registry)
        told = registry.counter(
            "castlegate_limit_told_total",
            "Requests admitted here that other instances were told of, or were not for want of room.",
            "result",
        )
        self._told, self.untold = told.child("ok"), told.child("dropped")

    keyed = staticmethod(shared_key)

    def check(self) -> None:
        """Raises `RequestRefused` where nothing may be admitted that cannot be told."""
        if not self._up:
            self._losses.uncounted.value += 1
            if self._refusing:
                raise RequestRefused(Kinds.UNCOUNTED)

    async def start(self) -> None:
        """Begin; what others tell is waited for, for as long as a store is."""
        self._log.start(self._hearing)
        self._telling = asyncio.create_task(self._tell_all())
        found = asyncio.ensure_future(self._found.wait())
        await asyncio.wait([found], timeout=self._settings.patience)
        found.cancel()

    async def stop(self) -> None:
        """Tell what is yet to be told, if that is possible at once, and end."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
            if self._up:
                try:
                    while self._pending() or self._sending is not None:
                        await self._tell()
                except CallFailed as failed:
                    self._losses.lost(failed)
        self._up, self._losses.up.value = False, 0
        await self._log.stop()

    def _pending(self) -> bool:
        return bool(self.rates.untold or self.quotas.untold)

    async def _tell_all(self) -> None:
        """Again and again."""
        stumbles = Stumbles(logger, "telling other instances what was admitted")
        failures, told_at = 0, 0.0
        while True:
            await asyncio.sleep(_BACKOFF[min(failures - 1, len(_BACKOFF) - 1)] if failures else self._settings.every)
            try:
                if not failures and not self._pending() and self._timer.now() - told_at < _MARK_EVERY:
                    continue
                await self._tell()
                while len(self.rates.untold) + len(self.quotas.untold) > self._most:
                    await self._tell()
            except CallFailed as failed:
                failures += 1
                self._up, self._losses.up.value = False, 0
                self._losses.lost(failed)
            except Exception as error:  # noqa: BLE001 - logged
                failures += 1
                stumbles.tell(error)
            else:
                failures, told_at, self._up = 0, self._timer.now(), True
                self._losses.found()
                self._found.set()

    async def _tell(self) -> None:
        """One record, and have it back. Raises `CallFailed`; the same record is told the next time then."""
        record = self._sending
        if record is None:
            self._number += 1
            record = self._sending = Record(self._instance, self._worker, self._number, int(time.time()), self._used())
        deadline = self._timer.now() + self._settings.patience
        offset = await self._log.append(self._worker, encode(record), deadline)
        self._sending = None
        self._told.value += sum(each.taken for each in record.used)
        await self._log.reached(offset, deadline)

    def _used(self) -> list[Used]:
        """What is to be told next."""
        used: list[Used] = []
        now, rates, quotas = time.monotonic_ns(), self.rates.untold, self.quotas.untold
        while rates and len(used) < self._most:
            key, (taken, interval, since) = rates.popitem()
            used.append(RateUsed(key, taken, interval, (now - since) // 1_000_000))
        while quotas and len(used) < self._most:
            (key, ends), taken = quotas.popitem()
            used.append(QuotaUsed(key, taken, ends))
        return used


class _Rates:
    """See `castlegate.stores.counts.Rates`; keys are those that all instances have in common."""

    __slots__ = ("_local", "_most", "_rates", "_store", "untold")

    def __init__(self, store: KafkaStore, counts: Counts, most: int) -> None:
        self._store = store
        self._rates = counts.rates
        self._local = counts.keyed(b"shared")
        self._most = most
        self.untold: dict[bytes, list[int]] = {}  # taken, interval, since when

    def take(self, key: bytes, pace: Pace, now: int) -> int:
        """Count it here, and have it told. Raises `RequestRefused`."""
        self._store.check()
        local = self._local.copy()
        local.update(key)
        debt = self._rates.take(local.digest(), pace, now)
        if debt >= 0:
            found = self.untold.get(key)
            if found is not None:
                found[0] += 1
            elif len(self.untold) < self._most:
                self.untold[key] = [1, pace.interval, now]
            else:
                self._store.untold.value += 1
        return debt

    def give_back(self, key: bytes, pace: Pace) -> None:
        """In the same moment: it was not told yet."""
        local = self._local.copy()
        local.update(key)
        self._rates.give_back(local.digest(), pace)
        found = self.untold.get(key)
        if found is not None:
            found[0] -= 1
            if not found[0]:
                del self.untold[key]


class _Quotas:
    """See `castlegate.stores.counts.Quotas`."""

    __slots__ = ("_local", "_most", "_quotas", "_store", "untold")

    def __init__(self, store: KafkaStore, counts: Counts, most: int) -> None:
        self._store = store
        self._quotas = counts.quotas
        self._local = counts.keyed(b"shared")
        self._most = most
        self.untold: dict[tuple[bytes, int], int] = {}  # by key and end of the window

    def take(self, key: bytes, amount: int, ends: int, now: float) -> int:
        """Count it here, and have it told. Raises `RequestRefused`."""
        self._store.check()
        local = self._local.copy()
        local.update(key)
        used = self._quotas.take(local.digest(), amount, ends, now)
        if used >= 0:
            found = self.untold.get((key, ends), 0)
            if found or len(self.untold) < self._most:
                self.untold[key, ends] = found + 1
            else:
                self._store.untold.value += 1
        return used

    def give_back(self, key: bytes, ends: int) -> None:
        """In the same moment: it was not told yet."""
        local = self._local.copy()
        local.update(key)
        self._quotas.give_back(local.digest(), ends)
        found = self.untold.pop((key, ends), 0)
        if found > 1:
            self.untold[key, ends] = found - 1


class Hearing:
    """Counts what others tell; of several workers each its share of the keys."""

    def __init__(self, instance: bytes, counts: Counts, registry: Registry) -> None:
        self._instance = instance
        self._counts = counts
        self._local = counts.keyed(b"shared")
        self._waiting: deque[tuple[Used, int]] = deque()  # with the moment, on the monotonic clock, when it was told
        self._busy = False
        heard = registry.counter(
            "castlegate_limit_heard_total",
            "Requests that other instances told of as admitted there, by what became of it.",
            "result",
        )
        self._counted, self._dropped = heard.child("ok"), heard.child("dropped")
        self._unreadable = heard.child("unreadable")

    def restart(self) -> None:
        """See `castlegate.stores.log.Table`: what was counted holds."""

    def apply(self, key: bytes, value: bytes | None) -> None:
        """See `castlegate.stores.log.Table`."""
        del key
        record = decode(value)
        if record is None:
            self._unreadable.value += 1
            return
        if record.instance == self._instance or not self._is_new(record):
            return
        late = max(0, int(time.time()) - record.told_at - _SLACK)
        told_at = time.monotonic_ns() - late * 1_000_000_000
        workers, mine = self._counts.layout.workers, self._counts.worker
        for used in record.used:
            if used.key[0] % workers != mine:
                continue
            if len(self._waiting) < _MOST_HEARD:
                self._waiting.append((used, told_at))
            else:
                self._dropped.value += used.taken
        if self._waiting and not self._busy:
            self._count_some()

    def _is_new(self, record: Record) -> bool:
        """Whether it was not heard before: who does not know whether a record was written writes it again."""
        heard = self._counts.heard
        if heard.get(record.worker, 0) >= record.number:
            return False
        heard[record.worker] = record.number
        heard.move_to_end(record.worker)
        if len(heard) > _WORKERS:
            heard.popitem(last=False)
        return True

    def _count_some(self) -> None:
        """And the rest when others have had their turn."""
        now, clock = time.monotonic_ns(), time.time()
        for _ in range(min(_AT_ONCE, len(self._waiting))):
            used, told_at = self._waiting.popleft()
            local = self._local.copy()
            local.update(used.key)
            key = local.digest()
            if isinstance(used, RateUsed):
                since = max(0, told_at - used.ago * 1_000_000)
                self._counts.rates.used(key, used.interval, used.taken, since, now)
            else:
                self._counts.quotas.used(key, used.taken, used.ends, clock)
            self._counted.value += used.taken
        self._busy = bool(self._waiting)
        if self._busy:
            asyncio.get_running_loop().call_soon(self._count_some)
