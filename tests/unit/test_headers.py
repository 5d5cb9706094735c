"""Fields are found by their whole name, wherever they stand."""

import pytest

from castlegate.headers import Headers

FIELDS = Headers.of(
    [
        (b"a", b"1"),
        (b"x-a", b"2"),
        (b"b", b"c: 3"),
        (b"d", b""),
        (b"e", b"4"),
        (b"e", b"5"),
        (b"a-b", b"6"),
        (b"z", b"7"),
    ]
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"a", b"1"), (b"x-a", b"2"), (b"b", b"c: 3"), (b"c", None), (b"d", b""), (b"e", b"4, 5"), (b"a-b", b"6"),
        (b"z", b"7"), (b"-a", None), (b"x", None), (b"", None),
    ],
)  # fmt: skip
def test_a_field_is_found_or_not(name: bytes, value: bytes | None) -> None:
    assert FIELDS.get(name) == value
    assert Headers().get(name) is None
