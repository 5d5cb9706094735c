"""What limits count, in one process and in several that share it."""

import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castlegate.rules.gcra import SECOND, Pace, take
from castlegate.stores.counts import KEY, Counts, Layout
from castlegate.stores.table import WAYS, sets_for

TEN = Pace(10, 3600 * SECOND, 10)
SECRET = b"s" * 16
NOW = SECOND


@pytest.fixture
def shared() -> Iterator[Callable[[int], Counts]]:
    """Makes a worker's view of one memory."""
    layout = Layout(1000, 4)
    descriptor = Counts.create(layout, SECRET)
    views: list[Counts] = []

    def view(worker: int) -> Counts:
        views.append(Counts(layout, descriptor, worker))
        return views[-1]

    yield view
    for each in views:
        each.close()
    os.close(descriptor)


def key(number: int) -> bytes:
    return number.to_bytes(KEY, "little")


def admitted(counts: Counts, times: int, name: bytes = b"key key ") -> int:
    return sum(counts.rates.take(name, TEN, NOW) > 0 for _ in range(times))


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, SECOND)), max_size=400))
def test_each_key_is_counted_as_if_it_were_alone(asked: list[tuple[int, int]]) -> None:
    counts, kept, now, pace = Counts(Layout(10_000, 1)), dict[int, int](), NOW, Pace(2, SECOND, 3)
    for number, gap in asked:
        now += gap
        expected = take(kept.get(number, 0), now, pace)
        if expected > 0:
            kept[number] = expected
        found = counts.rates.take(key(number), pace, now)
        assert found == (expected - now if expected > 0 else expected)
    assert counts.rates.dropped.value == 0


def test_state_is_bounded_and_the_longest_idle_go_first() -> None:
    counts = Counts(Layout(8, 1))  # one set
    assert sets_for(8) == 1
    recent: OrderedDict[int, None] = OrderedDict()
    for number in range(1, 200):
        counts.rates.take(key(number), TEN, NOW + number)
        recent[number] = None
    assert counts.held()["rates"] == WAYS
    assert counts.rates.dropped.value == 199 - WAYS
    for number in list(recent)[-WAYS:]:
        # One of ten is taken already.
        assert counts.rates.take(key(number), TEN, NOW + 200) > TEN.interval


def test_dropping_what_has_passed_costs_nothing() -> None:
    counts = Counts(Layout(8, 1))
    for number in range(1, 200):
        counts.rates.take(key(number), Pace(1, SECOND, 1), NOW + number * SECOND)
    assert counts.rates.dropped.value == 0


def test_keys_whose_bytes_overlap_are_different_keys() -> None:
    counts = Counts(Layout(8, 1))
    counts.rates.take(b"aaaabbbb", TEN, NOW)
    counts.rates.take(b"ccccdddd", TEN, NOW)
    assert admitted(counts, 20, b"bbbbcccc") == 10


def test_what_is_given_back_can_be_taken_again() -> None:
    counts = Counts(Layout(100, 1))
    assert admitted(counts, 20) == 10
    counts.rates.give_back(b"key key ", TEN)
    assert admitted(counts, 20) == 1


def test_workers_see_one_count(shared: Callable[[int], Counts]) -> None:
    first, second = shared(0), shared(1)
    assert admitted(first, 4) == 4
    assert admitted(second, 20) == 6
    assert first.held()["rates"] == 1


HAMMER = """
import sys
from castlegate.rules.gcra import SECOND, Pace
from castlegate.stores.counts import Counts, Layout
counts = Counts(Layout(1000, 4), int(sys.argv[1]), int(sys.argv[2]))
pace, admitted = Pace(100_000, 3600 * SECOND, 100_000), 0
print("ready", flush=True)
sys.stdin.readline()
for number in range(60_000):
    admitted += counts.rates.take(b"key key ", pace, SECOND) > 0
    counts.rates.take(number.to_bytes(8, "little"), pace, SECOND)
print(admitted, counts.rates.table.missed)
"""


def test_processes_that_take_at_once_admit_exactly_the_limit() -> None:
    descriptor = Counts.create(Layout(1000, 4), SECRET)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HAMMER, str(descriptor), str(worker)],
            pass_fds=(descriptor,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for worker in range(2)
    ]
    os.close(descriptor)
    admitted = missed = 0
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        told = process.communicate(timeout=60)[0].split()
        admitted, missed = admitted + int(told[0]), missed + int(told[1])
    # One more for each time that a lock was not to be had: its holder had lost the processor just there.
    assert 100_000 <= admitted <= 100_000 + missed


def test_quotas_are_counted_to_the_end_of_their_window() -> None:
    quotas = Counts(Layout(100, 1)).quotas
    assert [quotas.take(key(7), 3, 1000, 900.0) for _ in range(5)] == [1, 2, 3, -1, -1]
    assert quotas.take(key(7), 3, 2000, 1000.0) == 1
    quotas.give_back(key(7), 2000)
    assert quotas.take(key(7), 3, 2000, 1000.0) == 1


def test_quotas_that_changed_are_told_once_and_can_be_restored() -> None:
    quotas = Counts(Layout(100, 1)).quotas
    for number in range(1, 40):
        quotas.take(key(number), 5, 1000, 900.0)
    quotas.take(key(1), 5, 1000, 900.0)
    rows = quotas.changed()
    assert {(row[1], row[3]) for row in rows} == {(1, 2), *((number, 1) for number in range(2, 40))}
    assert quotas.changed() == []
    other = Counts(Layout(10_000, 1)).quotas
    for _, number, ends, used in rows:
        other.restore(number, ends, used)
    assert other.take(key(1), 5, 1000, 900.0) == 3


def test_slots_are_held_and_released(shared: Callable[[int], Counts]) -> None:
    first, second = shared(0).slots, shared(1).slots
    held = [first.acquire(key(1), 3), second.acquire(key(1), 3), second.acquire(key(1), 3)]
    assert [count for _, count in held] == [1, 2, 3]
    assert first.acquire(key(1), 3) == (0, 3)
    second.release(held[1][0])
    assert first.acquire(key(1), 3)[1] == 3


def test_what_a_dead_worker_held_is_forgotten(shared: Callable[[int], Counts]) -> None:
    first, second = shared(0).slots, shared(1).slots
    first.acquire(key(1), 10)
    second.acquire(key(1), 10)
    second.acquire(key(2), 10)
    first.forget(1)
    assert first.acquire(key(1), 10)[1] == 2
    assert first.acquire(key(2), 10)[1] == 1
