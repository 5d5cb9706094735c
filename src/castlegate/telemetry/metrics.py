"""Counters, gauges and histograms, and their Prometheus text.

A child is bound to its label values once; the hot path then adds to a number. A family holds a bounded number of
label sets, so no stream of odd values can grow it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Generic, TypeVar

MAX_CHILDREN = 20_000  # label sets a family may hold; what comes after shares one whose labels all say "other"

# Seconds: the upper bounds of the buckets of every duration.
DURATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Counter:
    """Counts up: add to `value`."""

    __slots__ = ("value",)
    kind = "counter"

    def __init__(self) -> None:
        self.value = 0

    def samples(self) -> list[tuple[str, str, float]]:
        """(suffix of the name, further label, value)."""
        return [("", "", self.value)]


class Gauge:
    """Goes up and down: set `value`, or let `read` tell it when asked."""

    __slots__ = ("read", "value")
    kind = "gauge"

    def __init__(self) -> None:
        self.value: float = 0
        self.read: Callable[[], float] | None = None

    def samples(self) -> list[tuple[str, str, float]]:
        """(suffix of the name, further label, value)."""
        return [("", "", self.value if self.read is None else self.read())]


class Histogram:
    """Durations in seconds by bucket; `counts[-1]` holds what exceeds every bound."""

    __slots__ = ("counts", "total")
    kind = "histogram"

    def __init__(self) -> None:
        self.counts = [0] * (len(DURATION_BUCKETS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(DURATION_BUCKETS, seconds)] += 1
        self.total += seconds

    def samples(self) -> list[tuple[str, str, float]]:
        """(suffix of the name, further label, value)."""
        rows: list[tuple[str, str, float]] = []
        running = 0
        for bound, count in zip((*map(str, DURATION_BUCKETS), "+Inf"), self.counts, strict=True):
            running += count
            rows.append(("_bucket", f'le="{bound}"', running))
        return [*rows, ("_sum", "", self.total), ("_count", "", running)]


C = TypeVar("C", Counter, Gauge, Histogram)


class Family(Generic[C]):
    """One metric: its children by label values."""

    def __init__(self, make: type[C], name: str, text: str, labels: tuple[str, ...]) -> None:
        self._make: type[C] = make
        self._name = name
        self._text = text
        self._labels = labels
        self._children: dict[tuple[str, ...], C] = {}

    def child(self, *values: str) -> C:
        """The child with these label values, made when first asked for."""
        child = self._children.get(values)
        if child is None:
            if len(self._children) >= MAX_CHILDREN:
                values = ("other",) * len(self._labels)
            child = self._children.setdefault(values, self._make())
        return child

    def render(self) -> str:
        """Prometheus text exposition of the family."""
        lines = [f"# HELP {self._name} {self._text}", f"# TYPE {self._name} {self._make.kind}"]
        for values, child in self._children.items():
            pairs: list[str] = [
                f'{label}="{_escape(value)}"' for label, value in zip(self._labels, values, strict=True)
            ]
            for suffix, further, value in child.samples():
                labels = ",".join([*pairs, further] if further else pairs)
                lines.append(f"{self._name}{suffix}{{{labels}}} {value:.10g}" if labels else
                             f"{self._name}{suffix} {value:.10g}")  # fmt: skip
        return "\n".join(lines) + "\n"


class Registry:
    """Every metric of a worker. Asking for a name again gives the same family."""

    def __init__(self) -> None:
        self._families: dict[str, Family[Counter] | Family[Gauge] | Family[Histogram]] = {}

    def counter(self, name: str, text: str, *labels: str) -> Family[Counter]:
        """A family of counters; the name ends in `_total`."""
        return self._family(Counter, name, text, labels)

    def gauge(self, name: str, text: str, *labels: str) -> Family[Gauge]:
        """A family of gauges."""
        return self._family(Gauge, name, text, labels)

    def histogram(self, name: str, text: str, *labels: str) -> Family[Histogram]:
        """A family of duration histograms; the name ends in `_seconds`."""
        return self._family(Histogram, name, text, labels)

    def render(self) -> str:
        """All of it as Prometheus text (format 0.0.4)."""
        return "".join(family.render() for family in self._families.values())

    def _family(self, make: type[C], name: str, text: str, labels: tuple[str, ...]) -> Family[C]:
        family = self._families.get(name)
        if family is None:
            family = self._families[name] = Family(make, name, text, labels)
        return family  # type: ignore[return-value]  # a name belongs to one kind


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
