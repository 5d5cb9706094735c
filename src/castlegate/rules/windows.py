"""How much may happen in a day or a month of the calendar, by UTC: which window a moment is in, and when that ends.

Seconds since 1970; reads no clock.
"""

from __future__ import annotations

import time
from calendar import timegm
from typing import Literal

Window = Literal["daily", "monthly"]

_DAY = 86400


def end_of(window: Window, now: float) -> int:
    """When the window that `now` is in ends, and the next one begins."""
    if window == "daily":
        return (int(now) // _DAY + 1) * _DAY
    year, month = time.gmtime(now)[:2]
    return timegm((year + month // 12, month % 12 + 1, 1, 0, 0, 0))
