"""A percentile that is followed."""

import random

import pytest

from castlegate.rules.percentile import Percentile


@pytest.mark.parametrize("percent", [50.0, 90.0, 95.0, 99.0])
@pytest.mark.parametrize("kind", ["even", "long tail", "two humps"])
def test_the_wanted_share_is_below(percent: float, kind: str) -> None:
    chance = random.Random(7)
    draw = {
        "even": lambda: chance.uniform(0.01, 0.02),
        "long tail": lambda: chance.paretovariate(2) / 100,
        "two humps": lambda: chance.uniform(0.005, 0.006) if chance.random() < 0.75 else chance.uniform(0.5, 0.6),
    }[kind]
    found, below, asked = Percentile(percent), 0, 0
    for number in range(60_000):
        seconds = draw()
        if number > 20_000 and found.value is not None:
            asked += 1
            below += seconds <= found.value
        found.observe(seconds)
    assert below / asked == pytest.approx(percent / 100, abs=0.01)


def test_it_follows_what_changes() -> None:
    found = Percentile(95)
    for _ in range(200):
        found.observe(0.5)
    for _ in range(3000):
        found.observe(0.005)
    assert found.value is not None
    assert found.value < 0.006


def test_a_burst_of_slow_ones_moves_it_no_further_than_they_are_many() -> None:
    found = Percentile(95)
    for _ in range(1000):
        found.observe(0.005)
    for _ in range(16):
        found.observe(0.5)
    assert found.value is not None
    assert found.value < 0.012


def test_nothing_is_said_before_enough_was_seen() -> None:
    found = Percentile(95)
    for _ in range(32):
        found.observe(1.0)
    assert found.value is None
    found.observe(1.0)
    assert found.value is not None
