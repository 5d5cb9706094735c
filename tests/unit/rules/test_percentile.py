"""A percentile of the last observations."""

from hypothesis import given
from hypothesis import strategies as st

from castlegate.rules.percentile import Percentile


@given(st.lists(st.floats(0, 10), min_size=256, max_size=600), st.sampled_from([50.0, 90.0, 95.0, 99.0]))
def test_so_many_of_the_last_ones_were_no_slower(seen: list[float], percent: float) -> None:
    seen = seen[: len(seen) // 32 * 32]  # it looks at them now and then
    found = Percentile(percent)
    for seconds in seen:
        found.observe(seconds)
    last = seen[-256:]
    value = found.value
    assert value is not None
    assert sum(each <= value for each in last) >= len(last) * percent / 100
    assert sum(each < value for each in last) <= len(last) * percent / 100


def test_nothing_is_said_before_enough_was_seen() -> None:
    found = Percentile(95)
    for _ in range(31):
        found.observe(1.0)
    assert found.value is None
