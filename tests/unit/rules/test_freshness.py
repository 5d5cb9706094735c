"""What `Cache-Control` says, and what it only seems to say."""

import pytest

from castlegate.rules.freshness import max_age


@pytest.mark.parametrize(
    ("control", "seconds"),
    [
        (None, None),
        (b"public", None),
        (b"public, max-age=600", 600),
        (b'MAX-AGE="600"', 600),
        (b"s-maxage=600", None),
        (b"x-max-age=600", None),
        (b"max-age=-1", None),
        (b"no-store", 0),
        (b"max-age=600,no-cache", 0),
        (b'no-cache="set-cookie", max-age=600', 0),
        (b"x-no-store, max-age=600", 600),
        (b"no-storeroom, max-age=600", 600),
    ],
)
def test_it_says_how_long(control: bytes | None, seconds: float | None) -> None:
    assert max_age(control) == seconds
