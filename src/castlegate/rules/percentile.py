"""A percentile of what was seen lately. Pure."""

from __future__ import annotations

_KEPT = 256  # observations
_EVERY = 32  # observations between two looks at all of them


class Percentile:
    """Of the last observations; `value` is None until there are enough of them."""

    __slots__ = ("_count", "_kept", "_percent", "value")

    def __init__(self, percent: float) -> None:
        self._percent = percent
        self._kept = [0.0] * _KEPT
        self._count = 0
        self.value: float | None = None

    def observe(self, seconds: float) -> None:
        """One more."""
        count = self._count
        self._kept[count % _KEPT] = seconds
        self._count = count = count + 1
        if count % _EVERY == 0:
            known = sorted(self._kept[:count])
            self.value = known[min(len(known) - 1, int(len(known) * self._percent / 100))]
