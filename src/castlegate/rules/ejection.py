"""Which instances of a service are taken out because of how they answer calls: outlier detection, as Envoy has it.

    in ──so many failures in a row, or a success rate far below the others'──▶ out ──its time is over──▶ in, from zero
The time grows with each ejection, up to a maximum, and shrinks by one step for each interval that an instance has been
in. No more than a share of the instances is out at once, and never the last that could be asked. Reads no clock: the
upstream passes `now`, tells what became of calls, and asks for what is due.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Annotated, Generic, NamedTuple, TypeVar

import msgspec

from castlegate.config.report import Place
from castlegate.config.units import Count, Seconds, write_seconds

K = TypeVar("K")

Fraction = Annotated[float, msgspec.Meta(gt=0, le=1)]
FractionOrZero = Annotated[float, msgspec.Meta(ge=0, le=1)]


class SuccessRate(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Compares the instances with one another after each interval."""

    instances: Count = 5
    """How many must have had enough requests for a comparison."""
    requests: Count = 100
    """How many are enough, in one interval and one worker."""
    deviations: Annotated[float, msgspec.Meta(gt=0, le=100)] = 1.9
    """An instance is taken out whose rate is below the mean of all by more than so many standard deviations."""


class Ejection(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Takes out instances that answer calls badly, for a time. Each worker judges by its own calls."""

    errors: Count = 5
    """So many failures in a row: answers from 500 on (but 501 and 505, which are about the request), no answer in time,
    a connection that broke, an answer that is not valid, or an instance that cannot be reached."""
    connects: Count = 5
    """So many calls in a row for which it could not be reached."""
    success_rate: SuccessRate = SuccessRate()
    """Against the other instances."""
    interval: Seconds = 10.0
    """After each of these the success rates are compared."""
    time: Seconds = 30.0
    """How long it is out the first time; twice as long the second time, and so on."""
    longest: Seconds = 300.0
    """At most so long."""
    share: Fraction = 0.5
    """At most this share of the instances is out at once because of failures; one always may be, and one is always
    left."""

    def check(self, at: Place) -> None:
        """That the longest time is one."""
        if self.longest < self.time and not (at.field("longest").spoilt or at.field("time").spoilt):
            at.field("longest").mistake(f"expected at least 'time', which is {write_seconds(self.time)}")


class Record:
    """What is known of one instance. `answered` and `failed` are of this interval."""

    __slots__ = ("answered", "connects", "errors", "failed", "since", "steady", "times", "unreached", "until", "why")

    def __init__(self) -> None:
        self.errors = 0  # in a row
        self.connects = 0
        self.answered = 0
        self.failed = 0
        self.times = 0  # ejections that count for how long the next one is
        self.until = 0.0  # when its time out is over; 0: it is in
        self.since = 0.0  # when that began
        self.unreached = False  # it is out because it could not be reached
        self.steady = False  # it has been in since the interval began
        self.why = ""


class Ejected(NamedTuple):
    """An instance that is out from now on."""

    until: float
    why: str


class Outliers(Generic[K]):
    """The instances of a service, by whatever names them. Every method but `fail` is for turns between calls."""

    def __init__(self, settings: Ejection) -> None:
        self._settings = settings
        # Changed by `add` and `remove`; the records by `fail`, `sweep` and `release`.
        self._records: dict[K, Record] = {}

    def add(self, instance: K) -> None:
        """One more; it is in."""
        self._records[instance] = Record()

    def remove(self, instance: K) -> None:
        """It is no longer one of them."""
        self._records.pop(instance, None)

    def succeed(self, instance: K) -> None:
        """It has answered a call well."""
        record = self._records.get(instance)
        if record is not None:
            record.errors = record.connects = 0
            record.answered += 1

    def fail(self, instance: K, now: float, usable: Callable[[], int], *, connect: bool) -> Ejected | None:
        """A call failed on it, `connect`: because it could not be reached. What is said if it is out because of that.
        `usable` says how many instances could be asked now, this one among them.
        """
        record, settings = self._records.get(instance), self._settings
        if record is None:
            return None  # its last calls, when it has been removed
        record.errors += 1
        record.failed += 1
        record.connects = record.connects + 1 if connect else 0
        if record.connects >= settings.connects:
            record.unreached = True
            return self._eject(record, now, usable, f"not reached {record.connects} times in a row")
        if record.errors >= settings.errors:
            record.unreached = record.connects == record.errors
            return self._eject(record, now, usable, f"{record.errors} failures in a row")
        return None

    @property
    def quiet(self) -> bool:
        """Whether an interval may pass without a sweep: nobody has failed in it, nobody has a time to make shorter."""
        return not any(record.failed or record.times for record in self._records.values())

    def begin(self) -> None:
        """The interval begins now, after quiet ones: what was counted in those is of no use."""
        for record in self._records.values():
            record.answered = record.failed = 0
            record.steady = not record.until

    def sweep(self, now: float, usable: Callable[[], int]) -> Iterator[tuple[K, Ejected]]:
        """An interval is over: those that are out from now on because others do better. Each is to be out, and `usable`
        to know it, before the next is asked for.
        """
        rates = {
            instance: record.answered / (record.answered + record.failed)
            for instance, record in self._records.items()
            if not record.until and record.answered + record.failed >= self._settings.success_rate.requests
        }
        for record in self._records.values():
            record.answered = record.failed = 0
            if not record.until:
                if record.steady and record.times:
                    record.times -= 1
                record.steady = True
        if len(rates) < self._settings.success_rate.instances:
            return
        mean = math.fsum(rates.values()) / len(rates)
        deviation = math.sqrt(math.fsum((rate - mean) ** 2 for rate in rates.values()) / len(rates))
        least = mean - self._settings.success_rate.deviations * deviation
        for instance, rate in sorted(rates.items(), key=lambda each: each[1]):
            if rate >= least:
                break
            why = f"{rate:.0%} of its calls succeeded, {mean:.0%} of all"
            ejected = self._eject(self._records[instance], now, usable, why)
            if ejected is not None:
                yield instance, ejected

    def release(self, instance: K) -> bool:
        """Take it in again, whether or not its time is over; its failures are forgotten. Whether it was out."""
        record = self._records.get(instance)
        if record is None or not record.until:
            return False
        record.until, record.why = 0.0, ""
        record.errors = record.connects = 0
        record.steady = record.unreached = False
        return True

    def reached(self, instance: K, at: float) -> bool:
        """It could be reached at that time: it is in again if it is out for no more than that it could not, before."""
        record = self._records.get(instance)
        return record is not None and record.unreached and record.since < at and self.release(instance)

    def due(self, now: float) -> list[K]:
        """Those whose time is over, taken in again."""
        over = [instance for instance, record in self._records.items() if 0 < record.until <= now]
        return [instance for instance in over if self.release(instance)]

    @property
    def next_due(self) -> float | None:
        """When the next time is over; None: nobody is out."""
        return min((record.until for record in self._records.values() if record.until), default=None)

    def ejected(self) -> dict[K, Ejected]:
        """Those that are out."""
        return {name: Ejected(record.until, record.why) for name, record in self._records.items() if record.until}

    def _eject(self, record: Record, now: float, usable: Callable[[], int], why: str) -> Ejected | None:
        """Take it out, if there is room: else it is judged again at its next failure."""
        if record.until:
            return None
        out = sum(each.until > 0 for each in self._records.values())
        if out + 1 > max(1, int(len(self._records) * self._settings.share)) or usable() <= 1:
            return None
        if record.times * self._settings.time < self._settings.longest:
            record.times += 1
        record.until = now + min(self._settings.time * record.times, self._settings.longest)
        record.since, record.why = now, why
        record.steady = False
        return Ejected(record.until, why)
