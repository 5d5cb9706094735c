"""Values with a unit in them: `800ms`, `64KiB`. In Python they are plain seconds and bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-zµ]*)")
_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class Unit:
    """How a scalar of the document is read; stands in `Annotated`. `parse` raises `ValueError`."""

    name: str
    example: str
    parse: Callable[[str], float | int]


def parse_seconds(text: str) -> float:
    """`1.5s` → 1.5."""
    return _parse(text, _SECONDS, "a duration", "800ms, 2s or 5m")


def parse_bytes(text: str) -> int:
    """`64KiB` → 65536."""
    return int(_parse(text, _BYTES, "a size", "64KiB or 10MiB"))


def _parse(text: str, units: dict[str, float] | dict[str, int], what: str, example: str) -> float:
    match = _NUMBER.fullmatch(text.strip())
    if match is None or match[2] not in units:
        raise ValueError(f"expected {what} with its unit, such as {example}")
    return float(match[1]) * units[match[2]]


Seconds = Annotated[float, Unit("duration", "800ms", parse_seconds)]
Size = Annotated[int, Unit("size", "64KiB", parse_bytes)]
