"""What limits count, for all workers of an instance: one memory that the supervisor made, read and written by each.

What is decided in one worker is seen by the next at once: there is one truth, and a worker that dies takes nothing of
it along. `Rates` and `Quotas` say whether one more is admitted, and count it; `Slots` are held until they are released.

    header: secret of the keys, places taken of each table by each worker │ rates │ quotas │ slots │ changed sets
"""

from __future__ import annotations

import mmap
import os
import secrets
import tempfile
from collections import OrderedDict
from hashlib import blake2b

from castlegate.rules.gcra import SECOND, Pace, charge, take
from castlegate.stores.table import WAYS, Table, sets_for
from castlegate.telemetry.metrics import Counter, Registry

MAX_WORKERS = 1024
_SECRET = 16  # bytes
_TABLES = 3
_HEADER = (_SECRET + MAX_WORKERS * _TABLES * 8 + 4095) // 4096 * 4096
_SLOT_SETS = 4096  # 65,536 keys that are in use at once: many more than there are requests

KEY = 8  # bytes
SHARED_KEY = 16

_MOST_USED = 2**53
_LONGEST_DEBT = 31 * 86400 * SECOND  # that others can put upon a key


class Layout:
    """Where everything is."""

    def __init__(self, keys: int, workers: int) -> None:
        self.keys = keys
        self.workers = workers
        self.sets = sets_for(keys)
        self.rates = _HEADER
        self.quotas = self.rates + Table.size(self.sets, 1)
        self.slots = self.quotas + Table.size(self.sets, 2)
        self.changed = self.slots + Table.size(_SLOT_SETS, workers)
        self.size = self.changed + (self.sets + 7) // 8 * 8


class Counts:
    """The memory as one process sees it. Without a descriptor it is its own alone."""

    def __init__(self, layout: Layout, descriptor: int = -1, worker: int = 0, registry: Registry | None = None) -> None:
        self.layout = layout
        self.worker = worker
        self.heard: OrderedDict[bytes, int] = OrderedDict()  # of workers of other instances: their last record
        self._descriptor = os.dup(descriptor) if descriptor >= 0 else -1
        self._map = mmap.mmap(descriptor, layout.size)
        if descriptor < 0:
            self._map[:_SECRET] = secrets.token_bytes(_SECRET)
        # A lock is needed by whoever is not alone. The supervisor only reads, and clears what nobody uses any more.
        lock = self._descriptor if layout.workers > 1 else -1
        held = _SECRET // 8 + worker * _TABLES
        dropped = (registry or Registry()).counter(
            "castlegate_limit_keys_dropped_total",
            "Entries of the limit store dropped for others while they still counted.",
            "of",
        )
        rates = Table(self._map, layout.rates, layout.sets, 1, lock, held)
        self.rates = Rates(rates, dropped.child("rates"))
        quotas = Table(self._map, layout.quotas, layout.sets, 2, lock, held + 1)
        self.quotas = Quotas(quotas, dropped.child("quotas"), self._map, layout.changed)
        self.slots = Slots(Table(self._map, layout.slots, _SLOT_SETS, layout.workers, lock, held + 2), worker)

    @staticmethod
    def create(layout: Layout, secret: bytes) -> int:
        """A descriptor of fresh memory, to be given to workers. The system provides it as it is touched."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("castlegate-limits")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, layout.size)
        os.pwrite(descriptor, secret.ljust(_SECRET, b"\0")[:_SECRET], 0)
        return descriptor

    @property
    def secret(self) -> bytes:
        """What keys are made with, so that nobody can aim at another's place."""
        return self._map[:_SECRET]

    def keyed(self, prefix: bytes) -> blake2b:
        """What makes keys of one limit: a copy of it is given what the limit is per."""
        made = blake2b(digest_size=KEY, key=self.secret)
        made.update(len(prefix).to_bytes(4, "little") + prefix)
        return made

    def held(self) -> dict[str, int]:
        """Places that are taken, by table: also by keys that have been idle."""
        words = self.rates.table.words
        begin = _SECRET // 8
        return {
            name: sum(words[begin + number : begin + self.layout.workers * _TABLES : _TABLES].tolist())
            for number, name in enumerate(("rates", "quotas", "concurrency"))
        }

    def close(self) -> None:
        """Let go of it."""
        for table in (self.rates.table, self.quotas.table, self.slots.table):
            table.close()
        self._map.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def shared_key(prefix: bytes) -> blake2b:
    """What makes keys that all instances have in common: a copy of it is given what the limit is per."""
    made = blake2b(digest_size=SHARED_KEY)
    made.update(len(prefix).to_bytes(4, "little") + prefix)
    return made


def _claimed(table: Table, base: int, key: bytes, now: float, dropped: Counter) -> int:
    """A place for a key that has none: that of the key which counts for the shortest time, if none is free."""
    at = table.smallest(base)
    if table.words[at] > now:
        dropped.value += 1
    table.claim(at, base, key)
    return at


class Rates:
    """Of each key its theoretical arrival time, on the system's monotonic clock."""

    __slots__ = ("dropped", "table")

    def __init__(self, table: Table, dropped: Counter) -> None:
        self.table = table
        self.dropped = dropped  # keys whose place was given away while they still counted

    def take(self, key: bytes, pace: Pace, now: int) -> int:
        """Nanoseconds that are taken up with this one; negative: it is not admitted before so many have passed."""
        table = self.table
        words, base = table.words, table.place_of(key)
        table.lock(base)
        try:
            at = table.find(base, key) or _claimed(table, base, key, now, self.dropped)
            while True:
                found = words[at]
                kept = take(found, now, pace)
                if kept < 0:
                    return kept
                if words[at] == found:  # else somebody went on without the lock, while we had lost the processor
                    words[at] = kept
                    return kept - now
        finally:
            table.unlock(base)

    def give_back(self, key: bytes, pace: Pace) -> None:
        """What was taken is not used after all."""
        table = self.table
        base = table.place_of(key)
        table.lock(base)
        try:
            at = table.find(base, key)
            if at:
                table.words[at] -= pace.interval
        finally:
            table.unlock(base)

    def used(self, key: bytes, interval: int, taken: int, since: int, now: int) -> None:
        """So many were admitted elsewhere, from `since` on: that counts here as well, even beyond the burst."""
        table = self.table
        words, base = table.words, table.place_of(key)
        table.lock(base)
        try:
            at = table.find(base, key)
            kept = min(charge(words[at] if at else 0, since, taken, interval), now + _LONGEST_DEBT)
            if kept <= now:
                return
            at = at or _claimed(table, base, key, now, self.dropped)
            words[at] = kept
        finally:
            table.unlock(base)


class Quotas:
    """Of each key when its window ends, and how much of it is used."""

    __slots__ = ("_changed", "_map", "dropped", "table")

    def __init__(self, table: Table, dropped: Counter, memory: mmap.mmap, changed: int) -> None:
        self.table = table
        self.dropped = dropped
        self._map = memory
        self._changed = changed  # from this byte on, one for each set: it is to be written down

    def take(self, key: bytes, amount: int, ends: int, now: float) -> int:
        """How much is used with this one; negative: all of it is."""
        table = self.table
        words, base = table.words, table.place_of(key)
        table.lock(base)
        try:
            at = table.find(base, key) or _claimed(table, base, key, now, self.dropped)
            used = words[at + WAYS] if words[at] == ends else 0
            if used >= amount:
                return -1
            words[at + WAYS] = used + 1
            words[at] = ends
            self._map[self._changed + table.number_of(base)] = 1
            return used + 1
        finally:
            table.unlock(base)

    def give_back(self, key: bytes, ends: int) -> None:
        """What was taken is not used after all."""
        table = self.table
        base = table.place_of(key)
        table.lock(base)
        try:
            at = table.find(base, key)
            if at and table.words[at] == ends and table.words[at + WAYS]:
                table.words[at + WAYS] -= 1
                self._map[self._changed + table.number_of(base)] = 1
        finally:
            table.unlock(base)

    def used(self, key: bytes, taken: int, ends: int, now: float) -> None:
        """So many were admitted elsewhere, in the window that ends then: that counts here as well."""
        table = self.table
        words, base = table.words, table.place_of(key)
        table.lock(base)
        try:
            at = table.find(base, key)
            if ends <= now or (at and words[at] > ends):
                return
            at = at or _claimed(table, base, key, now, self.dropped)
            words[at + WAYS] = min((words[at + WAYS] if words[at] == ends else 0) + taken, _MOST_USED)
            words[at] = ends
            self._map[self._changed + table.number_of(base)] = 1
        finally:
            table.unlock(base)

    def restore(self, key: int, ends: int, used: int) -> None:
        """What was written down before. For whoever has the memory alone."""
        table = self.table
        raw = key.to_bytes(KEY, "little", signed=True)
        base = table.place_of(raw)
        at = table.smallest(base)
        if table.words[at] < ends:
            table.claim(at, base, raw)
            table.words[at + WAYS] = used
            table.words[at] = ends
            self._map[self._changed + table.number_of(base)] = 1

    def changed(self) -> list[tuple[int, int, int, int]]:
        """Place, key, end and use of every key in the sets that have changed since it was last asked."""
        table, found = self.table, []
        at = self._changed
        while (at := self._map.find(b"\x01", at, self._changed + table.sets)) >= 0:
            self._map[at] = 0  # before it is read: what changes from now on is found the next time
            number = at - self._changed
            base = table.begin_of(number)
            keys, ends, used = (table.words[base + n * WAYS : base + (n + 1) * WAYS].tolist() for n in range(3))
            found += [
                (number * WAYS + way, keys[way], ends[way], used[way]) for way in range(WAYS) if keys[way]
            ]  # fmt: skip
        return found

    def mark(self, rows: list[tuple[int, int, int, int]]) -> None:
        """They could not be written down: they are changed still."""
        for place, _, _, _ in rows:
            self._map[self._changed + place // WAYS] = 1


class Slots:
    """Of each key how many are held, by worker: each changes its own number alone."""

    __slots__ = ("_worker", "table")

    def __init__(self, table: Table, worker: int) -> None:
        self.table = table
        self._worker = worker

    def acquire(self, key: bytes, most: int) -> tuple[int, int]:
        """The cell that is to be released, and how many are held with this one; (0, held) if those are all."""
        table = self.table
        words, base = table.words, table.place_of(key)
        step, planes = WAYS, table.planes
        table.lock(base)
        try:
            at = table.find(base, key)
            if not at:
                at = self._free(base)
                if not at:
                    return 0, most
                table.claim(at, base, key)
            held = sum(words[at : at + step * planes : step].tolist())
            if held >= most:
                return 0, held
            cell = at + self._worker * step
            words[cell] += 1
            return cell, held + 1
        finally:
            table.unlock(base)

    def release(self, cell: int) -> None:
        """Its place stays the key's as long as any is held, so this needs no lock."""
        self.table.words[cell] -= 1

    def _free(self, base: int) -> int:
        """A place of which nothing is held; 0 if there is none."""
        table = self.table
        begin, step = base + WAYS, WAYS
        for at in range(begin, begin + WAYS):
            if not any(table.words[at : at + step * table.planes : step].tolist()):
                return at
        return 0

    def forget(self, worker: int) -> None:
        """What a worker held that has died."""
        table = self.table
        for number in range(table.sets):
            begin = table.begin_of(number) + WAYS * (1 + worker)
            if any(table.words[begin : begin + WAYS].tolist()):
                for at in range(begin, begin + WAYS):
                    table.words[at] = 0
