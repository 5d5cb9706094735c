"""Windows of the calendar, against the calendar of the standard library."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from castlegate.rules.windows import end_of

MOMENTS = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@given(MOMENTS)
def test_a_day_ends_at_the_next_midnight(moment: datetime) -> None:
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    assert end_of("daily", moment.timestamp()) == midnight.timestamp()


@given(MOMENTS)
def test_a_month_ends_at_the_first_of_the_next(moment: datetime) -> None:
    first = (moment.replace(day=28) + timedelta(days=4)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert end_of("monthly", moment.timestamp()) == first.timestamp()
