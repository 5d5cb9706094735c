"""The adaptive limit, beside a simulated service that does so many things at once, each in the same time."""

import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from castlegate.rules.gradient import Gradient


class Simulated:
    """A service with so many `workers`; as many calls as the limit allows are always wanted (at most `wanted`)."""

    def __init__(self, gradient: Gradient, workers: int, seconds: float) -> None:
        self.gradient = gradient
        self.workers = workers
        self.seconds = seconds
        self.now = 0.0
        self.free = [0.0] * workers  # when each is free
        self.ends: list[tuple[float, float]] = []  # end, begin

    def run(self, seconds: float, wanted: int) -> None:
        until = self.now + seconds
        while self.now < until:
            while len(self.ends) < min(wanted, self.gradient.limit):
                begins = max(self.now, heapq.heappop(self.free))
                heapq.heappush(self.free, begins + self.seconds)
                heapq.heappush(self.ends, (begins + self.seconds, self.now))
            end, began = heapq.heappop(self.ends)
            self.now = max(self.now, end)
            self.gradient.observe(self.now - began, len(self.ends) + 1, self.now)

    def slow_down(self, seconds: float) -> None:
        self.seconds = seconds


@pytest.mark.parametrize("workers", [4, 16, 64, 256])
def test_it_finds_what_a_service_can_do_at_once(workers: int) -> None:
    gradient = Gradient(8, 2000)
    Simulated(gradient, workers, 0.01).run(60, wanted=5000)
    assert workers * 0.9 <= gradient.limit <= max(30, workers * 2.5)


def test_it_grows_no_further_than_what_is_wanted() -> None:
    gradient = Gradient(8, 2000)
    Simulated(gradient, 64, 0.01).run(60, wanted=20)
    assert gradient.limit <= 60


def test_a_service_that_has_become_slower_is_not_held_at_the_least() -> None:
    gradient = Gradient(8, 2000)
    service = Simulated(gradient, 64, 0.01)
    service.run(60, wanted=5000)
    service.slow_down(0.05)
    service.run(120, wanted=5000)
    assert gradient.limit >= 50


def test_a_service_that_has_lost_most_of_its_workers_is_asked_less() -> None:
    gradient = Gradient(8, 2000)
    service = Simulated(gradient, 128, 0.01)
    service.run(60, wanted=5000)
    before = gradient.limit
    service.free = sorted(service.free)[:32]
    service.run(30, wanted=5000)
    assert gradient.limit < before / 2


@settings(max_examples=50)
@given(
    st.integers(1, 20),
    st.integers(1, 300),
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 500), st.floats(0, 0.1)), max_size=400),
)
def test_it_never_leaves_its_bounds(least: int, more: int, seen: list[tuple[float, int, float]]) -> None:
    gradient, now = Gradient(least, least + more), 0.0
    for seconds, in_flight, gap in seen:
        now += gap
        gradient.observe(seconds, in_flight, now)
        assert least <= gradient.limit <= least + more
