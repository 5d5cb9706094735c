"""Counters, gauges and histograms in memory that can be read when their writer is dead.

A child is bound to its label values once; the hot path then adds to a cell. A family holds a bounded number of label
sets, so no stream of odd values can grow it. A worker writes its cells without locks into memory that the supervisor
gave it, and announces each new child; the supervisor mirrors them and reads the cells whenever it is asked.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

MAX_CHILDREN = 20_000  # label sets a family may hold; what comes after shares one whose labels all say "other"

# Seconds: the upper bounds of the buckets of every duration.
DURATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_CELL = 8  # bytes
_BUCKETS = len(DURATION_BUCKETS) + 1
_EXEMPLAR_EVERY = 64  # observations of a bucket


class Memory:
    """Cells of one writer. Grows only within its size, which the system provides as it is touched."""

    SIZE = 32 * 1024 * 1024  # bytes: four million numbers, or 39,000 histograms

    def __init__(self, descriptor: int = -1) -> None:
        """`descriptor`: from `Memory.create`, may be closed afterwards; without one nobody else can read it."""
        self.map = mmap.mmap(descriptor, self.SIZE)
        self._used = 0

    @classmethod
    def create(cls) -> int:
        """A descriptor of fresh memory, to be given to a worker."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("castlegate-metrics")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, cls.SIZE)
        return descriptor

    def take(self, cells: int) -> int | None:
        """The offset of so many cells in a row; None if there is no room."""
        at = self._used
        if at + cells * _CELL > self.SIZE:
            return None
        self._used = at + cells * _CELL
        return at


class Counter(ctypes.c_uint64):
    """Counts up: add to `value`."""

    __slots__ = ()
    kind = "counter"
    cells = 1

    def add(self, other: Counter) -> None:
        """Take over what another writer counted."""
        self.value += other.value


class Gauge(ctypes.c_double):
    """Goes up and down: set `value`, or let `Registry.refresh` do it with what `Family.watch` was given."""

    __slots__ = ()
    kind = "gauge"
    cells = 1

    def add(self, other: Gauge) -> None:
        """Another writer's share of the whole."""
        self.value += other.value


class Exemplar(ctypes.Structure):
    """The trace of one observation."""

    _fields_ = (
        ("trace", ctypes.c_char * 32),
        ("seconds", ctypes.c_double),
        ("at", ctypes.c_double),  # since 1970
    )


class Histogram:
    """Durations in seconds by bucket; `counts[-1]` holds what exceeds every bound."""

    __slots__ = ("counts", "exemplars", "total")
    kind = "histogram"
    cells = _BUCKETS + 1 + 6 * _BUCKETS

    def __init__(self, cells: Any = None, at: int = 0) -> None:
        if cells is None:
            cells = bytearray(self.cells * _CELL)
        self.counts = (ctypes.c_uint64 * _BUCKETS).from_buffer(cells, at)
        self.total = ctypes.c_double.from_buffer(cells, at + _BUCKETS * _CELL)
        self.exemplars = (Exemplar * _BUCKETS).from_buffer(cells, at + (_BUCKETS + 1) * _CELL)

    from_buffer: ClassVar[Callable[[Any, int], Histogram]]  # as ctypes calls it

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(DURATION_BUCKETS, seconds)] += 1
        self.total.value += seconds

    def observe_traced(self, seconds: float, traceparent: bytes) -> None:
        """The same, with its trace as an exemplar once in a while."""
        bucket = bisect_left(DURATION_BUCKETS, seconds)
        counts = self.counts
        count = counts[bucket] = counts[bucket] + 1
        self.total.value += seconds
        if count % _EXEMPLAR_EVERY == 1:
            exemplar = self.exemplars[bucket]
            exemplar.trace, exemplar.seconds, exemplar.at = traceparent[3:35], seconds, time.time()

    def add(self, other: Histogram) -> None:
        """Take over what another writer counted; the later exemplars stay."""
        self.total.value += other.total.value
        for bucket in range(_BUCKETS):
            self.counts[bucket] += other.counts[bucket]
            if other.exemplars[bucket].at > self.exemplars[bucket].at:
                self.exemplars[bucket] = other.exemplars[bucket]


Histogram.from_buffer = Histogram

Child = Counter | Gauge | Histogram
C = TypeVar("C", Counter, Gauge, Histogram)
KINDS: dict[str, type[Counter] | type[Gauge] | type[Histogram]] = {
    "counter": Counter, "gauge": Gauge, "histogram": Histogram,
}  # fmt: skip


class Announcement(msgspec.Struct, array_like=True):
    """A new child, told to whoever mirrors the registry."""

    kind: str
    name: str
    text: str
    labels: tuple[str, ...]
    values: tuple[str, ...]
    at: int  # offset in the memory


class Family(Generic[C]):
    """One metric: its children by label values."""

    def __init__(self, registry: Registry, make: type[C], name: str, text: str, labels: tuple[str, ...]) -> None:
        self._registry = registry
        self.make: type[C] = make
        self.name = name
        self.text = text
        self.labels = labels
        self.children: dict[tuple[str, ...], C] = {}
        self.watched: dict[tuple[str, ...], Callable[[], float]] = {}  # of gauges

    def child(self, *values: str) -> C:
        """The child with these label values, made when first asked for."""
        child = self.children.get(values)
        if child is None:
            other = ("other",) * len(self.labels)
            if len(self.children) >= MAX_CHILDREN and values != other:
                return self.child(*other)
            child = self.children[values] = self._registry.place(self, values)
        return child

    def watch(self, read: Callable[[], float], *values: str) -> None:
        """Have a gauge set to what `read` says whenever the registry is refreshed."""
        self.child(*values)
        self.watched[values] = read

    def forget(self, *values: str) -> None:
        """Watch a gauge no longer: what it told of is gone."""
        gauge = self.children.get(values)
        if self.watched.pop(values, None) is not None and isinstance(gauge, Gauge):
            gauge.value = 0


class Registry:
    """Every metric of a writer, or its mirror. Asking for a name again gives the same family."""

    def __init__(self, memory: Memory | None = None, announce: Callable[[Announcement], None] | None = None) -> None:
        self._memory = memory or Memory()
        self._announce = announce
        self.families: dict[str, Family[Any]] = {}

    def counter(self, name: str, text: str, *labels: str) -> Family[Counter]:
        """A family of counters; the name ends in `_total`."""
        return self._family(Counter, name, text, labels)

    def gauge(self, name: str, text: str, *labels: str) -> Family[Gauge]:
        """A family of gauges."""
        return self._family(Gauge, name, text, labels)

    def histogram(self, name: str, text: str, *labels: str) -> Family[Histogram]:
        """A family of duration histograms; the name ends in `_seconds`."""
        return self._family(Histogram, name, text, labels)

    def refresh(self) -> None:
        """Set the gauges that are watched."""
        for family in self.families.values():
            for values, read in family.watched.items():
                family.children[values].value = read()

    def place(self, family: Family[C], values: tuple[str, ...]) -> C:
        """Give a child its cells. Without room it counts for nobody, rather than failing a request."""
        at = self._memory.take(family.make.cells)
        if at is None:
            return family.make()
        if self._announce is not None:
            told = Announcement(family.make.kind, family.name, family.text, family.labels, values, at)
            self._announce(told)
        return family.make.from_buffer(self._memory.map, at)

    def mirror(self, told: Announcement) -> None:
        """A child that another writer has announced: it reads the same cells."""
        make = KINDS[told.kind]
        family: Family[Any] = self._family(make, told.name, told.text, told.labels)
        family.children[told.values] = make.from_buffer(self._memory.map, told.at)

    def add(self, other: Registry, *, gauges: bool) -> None:
        """Add what another one holds."""
        for family in other.families.values():
            if family.make is Gauge and not gauges:
                continue
            ours = self._family(family.make, family.name, family.text, family.labels)
            for values, child in list(family.children.items()):
                with contextlib.suppress(OverflowError):
                    ours.child(*values).add(child)

    def _family(self, make: type[C], name: str, text: str, labels: tuple[str, ...]) -> Family[C]:
        family = self.families.get(name)
        if family is None:
            family = self.families[name] = Family(self, make, name, text, labels)
        return family
