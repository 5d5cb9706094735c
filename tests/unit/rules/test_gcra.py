"""Rates, against a model that remembers every request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castlegate.rules.gcra import SECOND, Pace, parse_rate, take

PACES = st.builds(
    Pace,
    st.integers(1, 2000),
    st.sampled_from([SECOND // 1000, SECOND, 60 * SECOND, 3600 * SECOND, 7 * SECOND]),
    st.integers(1, 50),
)
GAPS = st.lists(
    st.one_of(st.integers(0, 5), st.integers(0, SECOND), st.integers(0, 100 * SECOND)), min_size=1, max_size=80
)


def times(gaps: list[int]) -> list[int]:
    now, found = SECOND, []
    for gap in gaps:
        now += gap
        found.append(now)
    return found


@given(PACES, GAPS)
def test_in_any_time_no_more_than_the_rate_and_the_burst(pace: Pace, gaps: list[int]) -> None:
    kept, admitted = 0, list[int]()
    for now in times(gaps):
        found = take(kept, now, pace)
        if found > 0:
            kept = found
            admitted.append(now)
    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            most = pace.burst + (admitted[last] - admitted[first]) * pace.number / pace.period
            assert last - first + 1 <= most


@given(PACES, GAPS)
def test_it_admits_what_a_bucket_of_tokens_would(pace: Pace, gaps: list[int]) -> None:
    """The slow model: a bucket that holds `burst` tokens of an interval each, filled by time."""
    kept, level, before = 0, pace.burst * pace.interval, 0
    for now in times(gaps):
        level = min(pace.burst * pace.interval, level + now - before)
        before = now
        found = take(kept, now, pace)
        assert (found > 0) == (level >= pace.interval)
        if found > 0:
            kept = found
            level -= pace.interval
            assert pace.left(found - now) == level // pace.interval


@given(PACES, GAPS)
def test_who_waits_as_long_as_told_is_admitted_and_not_a_moment_before(pace: Pace, gaps: list[int]) -> None:
    kept = 0
    for now in times(gaps):
        found = take(kept, now, pace)
        if found > 0:
            kept = found
            continue
        assert take(kept, now - found, pace) > 0
        assert take(kept, now - found - 1, pace) < 0


@given(PACES, st.integers(1, 50))
def test_more_is_left_when_it_is_said(pace: Pace, taken: int) -> None:
    debt = min(taken, pace.burst) * pace.interval
    wait = pace.until_more(debt)
    assert wait > 0
    assert pace.left(debt - wait) == pace.left(debt) + 1
    assert pace.left(debt - wait + 1) == pace.left(debt)


@pytest.mark.parametrize(
    ("text", "number", "seconds"),
    [("10/s", 10, 1), ("100/min", 100, 60), ("1000/h", 1000, 3600), ("5/10s", 5, 10), ("1 / 2 day", 1, 172800)],
)
def test_rates_are_read(text: str, number: int, seconds: int) -> None:
    assert parse_rate(text) == (number, seconds * SECOND)


@pytest.mark.parametrize(
    "text", ["", "10", "10/", "/s", "0/s", "-1/s", "1.5/s", "10/fortnight", "1/0s", "1/40d", "9999999/ms"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a rate"):
        parse_rate(text)
