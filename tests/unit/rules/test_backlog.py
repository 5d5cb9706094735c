"""How long a request is expected to wait."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castlegate.rules.backlog import Backlog


def look(backlog: Backlog, lags: list[int], reads: list[int]) -> float:
    """A look each second; returns the time of the last."""
    for second, (lag, read) in enumerate(zip(lags, reads, strict=True)):
        backlog.saw(float(second), lag, read)
    return float(len(lags) - 1)


def test_the_lag_divided_by_how_fast_it_is_read() -> None:
    backlog = Backlog(10)
    now = look(backlog, [100] * 11, list(range(0, 220, 20)))
    assert backlog.wait(now) == pytest.approx(5.0)


def test_nobody_who_reads_is_endless() -> None:
    backlog = Backlog(10)
    assert backlog.wait(look(backlog, [3] * 11, [7] * 11)) == math.inf


def test_nothing_is_said_before_it_was_looked_at_for_long_enough() -> None:
    backlog = Backlog(10)
    assert backlog.wait(look(backlog, [3] * 10, [7] * 10)) == 0


def test_nothing_is_said_of_looks_that_are_old() -> None:
    backlog = Backlog(10)
    now = look(backlog, [3] * 11, [7] * 11)
    assert backlog.wait(now + 11) == 0


def test_a_group_that_commits_now_and_then_has_no_lag_if_it_ever_had_none() -> None:
    backlog = Backlog(10)
    lags = [0, 100, 200, 300, 400, 0, 100, 200, 300, 400, 500]
    assert backlog.wait(look(backlog, lags, [0] * 5 + [500] * 6)) == 0


def test_replies_that_come_sooner_are_believed() -> None:
    backlog = Backlog(10)
    now = look(backlog, [3] * 11, [7] * 11)
    backlog.answered(now, 0.25)
    assert backlog.wait(now) == 0.25
    backlog.timed_out()
    assert backlog.wait(now) == math.inf


def test_and_only_for_a_while() -> None:
    backlog = Backlog(10)
    backlog.answered(0.0, 0.25)
    assert backlog.wait(look(backlog, [3] * 12, [7] * 12)) == math.inf


@given(st.lists(st.tuples(st.floats(0.1, 5), st.integers(0, 1000), st.integers(0, 100)), max_size=50))
def test_it_is_never_less_than_nothing_and_keeps_no_more_than_its_horizon(
    looks: list[tuple[float, int, int]],
) -> None:
    backlog, now, read = Backlog(10), 0.0, 0
    for gap, lag, more in looks:
        now += gap
        read += more
        backlog.saw(now, lag, read)
        assert backlog.wait(now) >= 0
        assert len(backlog._looks) <= 10 / 0.1 + 2
