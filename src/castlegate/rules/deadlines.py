"""Who must be answered until when, without a timer object for each.

A hashed wheel: an entry stands in the bucket of the grain of time in which it is due, so adding, removing and finding
the due ones cost the same however many wait. Does no I/O and reads no clock: `now` is passed in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

GRAIN = 0.02  # seconds a bucket spans: how late an expiry may be found
_GRAINS_A_SECOND = 1 / GRAIN

E = TypeVar("E")


class Deadlines(Generic[E]):
    """Entries by the time they are due. An entry is added and removed with the same deadline."""

    __slots__ = ("_buckets", "_count", "_next", "_wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        """`wake` is called when there is an entry where there was none."""
        self._wake = wake
        self._buckets: dict[int, set[E]] = {}
        self._count = 0
        self._next = 0  # no bucket below this one exists

    def __len__(self) -> int:
        return self._count

    def add(self, entry: E, deadline: float) -> None:
        """Have `entry` returned by the first `due(now)` after `deadline`."""
        grain = int(deadline * _GRAINS_A_SECOND)
        bucket = self._buckets.get(grain)
        if bucket is None:
            bucket = self._buckets[grain] = set()
            if len(self._buckets) == 1 or grain < self._next:
                self._next = grain
        bucket.add(entry)
        self._count += 1
        if self._count == 1:  # a bucket may be left over from when there were none, so its making says nothing
            self._wake()

    def remove(self, entry: E, deadline: float) -> None:
        """Take it out before it is due; nothing if it was returned already."""
        bucket = self._buckets.get(int(deadline * _GRAINS_A_SECOND))
        if bucket is not None and entry in bucket:
            bucket.remove(entry)
            self._count -= 1

    def due(self, now: float) -> list[E]:
        """Every entry whose grain has passed; they are entries no longer."""
        last = int(now * _GRAINS_A_SECOND) - 1
        if last < self._next or not self._buckets:
            return []
        entries: list[E] = []
        if last - self._next > len(self._buckets):
            grains = sorted(grain for grain in self._buckets if grain <= last)
        else:
            grains = [grain for grain in range(self._next, last + 1) if grain in self._buckets]
        for grain in grains:
            entries.extend(self._buckets.pop(grain))
        self._next = last + 1
        self._count -= len(entries)
        return entries
