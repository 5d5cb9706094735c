"""How often something may happen: the generic cell rate algorithm (ITU-T I.371, as in ATM), on whole nanoseconds.

All that is kept of a key is its theoretical arrival time: when the bucket that it fills would have run empty. Reads no
clock and holds nothing: `now` and the time kept are passed in. Whole numbers, since fractions added up again and again
would admit one too many some day.
"""

from __future__ import annotations

import re

SECOND = 1_000_000_000  # nanoseconds

_RATE = re.compile(r"([0-9]+)\s*/\s*([0-9]*)\s*([a-z]+)")
_UNITS = {
    "ms": SECOND // 1000, "s": SECOND, "sec": SECOND, "second": SECOND, "m": 60 * SECOND, "min": 60 * SECOND,
    "minute": 60 * SECOND, "h": 3600 * SECOND, "hour": 3600 * SECOND, "d": 86400 * SECOND, "day": 86400 * SECOND,
    "month": 30 * 86400 * SECOND,
}  # fmt: skip
_LONGEST = 31 * 86400 * SECOND
_MOST = 1_000_000_000  # in a period


class Pace:
    """So many in a period, and so many at once: `burst` at once, then one each time an interval has passed. In any time
    at most `burst` and what the rate gives in it.
    """

    __slots__ = ("burst", "interval", "number", "period", "tolerance")

    def __init__(self, number: int, period: int, burst: int) -> None:
        self.number = number
        self.period = period  # nanoseconds
        self.burst = burst
        # Nanoseconds that each takes up: rounded up, so that no second admits more than it should.
        self.interval = -(-period // number)
        self.tolerance = (burst - 1) * self.interval  # nanoseconds that may be taken up by those before one

    def left(self, debt: int) -> int:
        """How many more would be admitted at once, where `debt` nanoseconds are taken up."""
        return (self.tolerance + self.interval - debt) // self.interval

    def until_more(self, debt: int) -> int:
        """Nanoseconds until `left` is one more than it is."""
        return debt - self.tolerance + self.left(debt) * self.interval


def parse_rate(text: str) -> tuple[int, int]:
    """`100/min`, `5/10s` → count and period in nanoseconds. Raises `ValueError`."""
    match = _RATE.fullmatch(text.strip())
    if match is None or match[3] not in _UNITS:
        raise ValueError("expected a rate, such as 10/s, 100/min or 1000/h")
    count, period = int(match[1]), int(match[2] or 1) * _UNITS[match[3]]
    if not 1 <= count <= _MOST or not 1 <= period <= _LONGEST:
        raise ValueError("expected a rate of at least one, in at most 31 days; to admit nobody, leave out the route")
    if count > period:
        raise ValueError("expected a rate of at most one in a nanosecond")
    return count, period


def charge(kept: int, since: int, taken: int, interval: int) -> int:
    """What to keep if `taken` more were admitted elsewhere from `since` on, whatever the bucket would have said."""
    return max(kept, since) + taken * interval


def take(kept: int, now: int, pace: Pace) -> int:
    """What to keep if one more is admitted now; if not, how long until it would be, as a negative number."""
    begin = kept if kept > now else now  # noqa: FURB136 - half the time of max()
    wait = begin - now - pace.tolerance
    return -wait if wait > 0 else begin + pace.interval
