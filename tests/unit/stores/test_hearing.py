"""What other instances tell, and what becomes of it in the counts of this one."""

import asyncio
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castlegate.rules.gcra import SECOND, Pace
from castlegate.stores.counts import SHARED_KEY, Counts, Layout
from castlegate.stores.kafka_store import Hearing, KafkaStore
from castlegate.stores.settings import LimitStore
from castlegate.stores.telling import MOST, QuotaUsed, RateUsed, Record, Used, decode, encode, most_in
from castlegate.telemetry.metrics import Registry
from castlegate.wire.timer import Timer

TEN = Pace(10, 3600 * SECOND, 10)
KEY = b"k" * SHARED_KEY
OTHER = b"o" * SHARED_KEY
TOMORROW = int(time.time()) + 86400


class Nowhere:
    """A log that is never asked."""

    caught_up = True

    async def admit(self, deadline: float) -> None:
        raise AssertionError

    def start(self, table: object) -> None:
        raise AssertionError

    async def stop(self) -> None:
        raise AssertionError

    async def append(self, key: bytes, value: bytes | None, deadline: float) -> int:
        raise AssertionError

    async def reached(self, offset: int, deadline: float) -> None:
        raise AssertionError

    async def beginning(self, deadline: float) -> None:
        raise AssertionError


class Instance:
    """Its counts, and what hears for them."""

    def __init__(self) -> None:
        self.counts = Counts(Layout(1000, 1))
        self.registry = Registry()
        self.hearing = Hearing(b"i" * SHARED_KEY, self.counts, self.registry)
        timer = Timer(asyncio.new_event_loop())
        self.store = KafkaStore(LimitStore(store="kafka"), self.counts, Nowhere(), timer, self.registry, 1_000_000)
        self._loop = timer._loop

    def hear(self, *used: Used, number: int = 1, instance: bytes = OTHER, late_s: int = 0) -> None:
        told_at = int(time.time()) - late_s
        self.hearing.apply(b"", encode(Record(instance, OTHER, number, told_at, list(used))))

    def admitted(self, times: int = 20) -> int:
        """How many more of a rate of ten are."""
        return sum(self.store.rates.take(KEY, TEN, time.monotonic_ns()) > 0 for _ in range(times))

    def close(self) -> None:
        self.counts.close()
        self._loop.close()


@pytest.fixture
def instance() -> Iterator[Instance]:
    made = Instance()
    yield made
    made.close()


def rate(taken: int, ago_ms: int = 0) -> RateUsed:
    return RateUsed(KEY, taken, TEN.interval, ago_ms)


def test_what_others_admitted_is_subtracted(instance: Instance) -> None:
    instance.hear(rate(4))
    assert instance.admitted() == 6


def test_what_was_too_much_is_a_debt(instance: Instance) -> None:
    instance.hear(rate(30))
    debt = instance.store.rates.take(KEY, TEN, time.monotonic_ns())
    assert -debt == pytest.approx(30 * TEN.interval - TEN.tolerance, rel=0.01)


def test_what_others_admitted_long_ago_has_run_off_since(instance: Instance) -> None:
    instance.hear(rate(4, 3600_000))
    assert instance.admitted() == 10


def test_a_record_that_comes_late_counts_from_when_it_was_told(instance: Instance) -> None:
    instance.hear(rate(4), late_s=3600 * 2)
    assert instance.admitted() == 10


def test_a_record_counts_once_however_often_it_is_written(instance: Instance) -> None:
    for number in (1, 1, 2, 1, 2):
        instance.hear(rate(2), number=number)
    assert instance.admitted() == 6


def test_its_own_records_are_not_counted_again() -> None:
    instance = Instance()
    own = instance.hearing._instance
    instance.hear(rate(4), instance=own)
    assert instance.admitted() == 10
    instance.close()


def test_quotas_count_in_their_own_window(instance: Instance) -> None:
    quotas = instance.store.quotas
    instance.hear(QuotaUsed(KEY, 3, TOMORROW))
    instance.hear(QuotaUsed(KEY, 5, TOMORROW - 2 * 86400), number=2)
    assert quotas.take(KEY, 5, TOMORROW, time.time()) == 4
    instance.hear(QuotaUsed(KEY, 7, TOMORROW), number=3)
    assert quotas.take(KEY, 5, TOMORROW, time.time()) == -1
    assert quotas.take(KEY, 5, TOMORROW + 86400, TOMORROW + 1.0) == 1


def test_more_than_can_be_counted_at_once_is_counted_in_turns() -> None:
    async def hear() -> int:
        instance = Instance()
        instance.hear(*[RateUsed(number.to_bytes(SHARED_KEY, "big"), 1, SECOND, 0) for number in range(1, MOST)])
        heard = instance.registry.families["castlegate_limit_heard_total"].children[("ok",)]
        at_first = heard.value
        for _ in range(MOST):
            await asyncio.sleep(0)
        assert heard.value == MOST - 1
        instance.close()
        return int(at_first)

    assert 0 < asyncio.run(hear()) < MOST - 1


@given(st.binary(max_size=200))
def test_anything_may_be_written_to_the_topic(value: bytes) -> None:
    found = decode(value)
    assert found is None or encode(found)


@given(st.integers(100, 200_000))
def test_a_record_is_no_larger_than_it_may_be(size: int) -> None:
    used: list[Used] = [RateUsed(KEY, 10**9, 31 * 86400 * SECOND, 10**12)] * most_in(size)
    record = Record(OTHER, OTHER, 2**53, 2**53, used)
    assert len(encode(record)) <= max(size, 120)
