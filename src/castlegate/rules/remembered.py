"""A table of what was found out before, that never holds more than it may and never forgets all of it at once.

It has two halves. When the young one is full it becomes the old one, and what was old is forgotten; what is asked for
moves to the young one. So what goes is what was not asked for the longest, at the price of a dictionary.
"""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """At most so many entries, or one more if that number is odd; none is `None`."""

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, most: int) -> None:
        self._half = -(-most // 2)
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: K) -> V | None:
        """What is remembered of it."""
        found = self._young.get(key)
        if found is None and self._old:
            found = self._old.pop(key, None)
            if found is not None:
                self.put(key, found)
        return found

    def put(self, key: K, value: V) -> None:
        """Remember it, in place of what was remembered of it before."""
        if not self._half:
            return
        if key not in self._young:
            self._old.pop(key, None)
            if len(self._young) >= self._half:
                self._old, self._young = self._young, {}
        self._young[key] = value

    def drop(self, key: K) -> None:
        """Forget it."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._young, self._old = {}, {}
