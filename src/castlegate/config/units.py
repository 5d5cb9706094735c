"""Values with a unit in them: `800ms`, `64KiB`. In Python they are plain seconds and bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-zµ]*)")
_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}

_MOST = 1e15  # seconds or bytes

# What people write instead, in lower case.
_MEANT = {
    "msec": "ms", "millis": "ms", "milliseconds": "ms", "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "min": "m", "mins": "m", "minute": "m", "minutes": "m", "hour": "h", "hours": "h", "hr": "h", "day": "d",
    "days": "d", "b": "B", "byte": "B", "bytes": "B", "k": "KiB", "ki": "KiB", "kib": "KiB", "kb": "KB", "m": "MiB",
    "mi": "MiB", "mib": "MiB", "mb": "MB", "g": "GiB", "gi": "GiB", "gib": "GiB", "gb": "GB", "s": "s", "ms": "ms",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Unit:
    """How a scalar of the document is read and written; stands in `Annotated`."""

    name: str
    example: str
    factors: Mapping[str, float]
    write: Callable[[float], str]

    def parse(self, text: str) -> float:
        """The value in seconds or bytes; raises `ValueError`."""
        match = _NUMBER.fullmatch(text.strip())
        if match is None or match[2] not in self.factors:
            raise ValueError(f"expected a {self.name} with its unit, such as {self.example}")
        value = float(match[1]) * self.factors[match[2]]
        if value > _MOST:
            raise ValueError(f"expected a {self.name} that anyone could mean, such as {self.example}")
        return value

    def meant(self, text: str) -> str | None:
        """What to write instead of `text`, where that is clear."""
        match = _NUMBER.fullmatch(text.strip())
        if match is None:
            return None
        number, unit = match[1], match[2]
        if unit:
            meant = _MEANT.get(unit.lower(), "")
            return f"{number}{meant}" if meant in self.factors else None
        if "KiB" in self.factors:
            return f"{number}KiB or {number}B" if float(number) < 1024 else f"{number}B"
        if float(number) <= 60:
            return f"{number}s or {float(number) * 1000:.15g}ms"
        return f"{number}ms or {float(number) / 1000:.15g}s"


def write_seconds(seconds: float) -> str:
    """0.8 → `800ms`: in the largest unit that leaves a whole number."""
    for unit in ("d", "h", "m", "s", "ms"):
        count = seconds / _SECONDS[unit]
        if count >= 1 and round(count, 9) == int(count):
            return f"{int(count)}{unit}"
    return f"{seconds:g}s"


def write_bytes(size: float) -> str:
    """65536 → `64KiB`: in the largest unit that leaves a whole number."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{int(size) // _BYTES[unit]}{unit}"
    for unit in ("GB", "MB", "KB"):
        if size and size % _BYTES[unit] == 0:
            return f"{int(size) // _BYTES[unit]}{unit}"
    return f"{int(size)}B"


_DURATION = Unit("duration", "800ms, 2s or 5m", _SECONDS, write_seconds)
_SIZE = Unit("size", "64KiB or 10MiB", _BYTES, write_bytes)

# Every duration and size is more than nothing, and no larger than anyone could mean.
Seconds = Annotated[float, _DURATION, Meta(gt=0, le=366 * 86400)]
SecondsOrZero = Annotated[float, _DURATION, Meta(ge=0, le=366 * 86400)]
Size = Annotated[int, _SIZE, Meta(ge=1, le=2**40)]
SizeOrZero = Annotated[int, _SIZE, Meta(ge=0, le=2**40)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]


@dataclass(frozen=True)
class Template:
    """Marks text, or JSON, that may hold references such as `{path.id}`; stands in `Annotated`."""


TemplateText = Annotated[str, Template()]


@dataclass(frozen=True)
class Expression:
    """Marks text that is a condition in CEL; stands in `Annotated`."""


ExpressionText = Annotated[str, Expression()]
