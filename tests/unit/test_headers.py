"""Fields are found by their whole name, wherever they stand; bodies take no more memory than they may."""

import tracemalloc

import pytest

from castlegate.body import Body, Budget, Share
from castlegate.headers import Headers
from castlegate.waiting import DirectTask

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


class Source:
    """Feeds as much as it is asked for."""

    paused = False

    def pause_body(self) -> None:
        self.paused = True

    def resume_body(self) -> None:
        self.paused = False

    def drop_body(self) -> None:
        raise AssertionError("it is read to its end")


def test_a_body_in_the_smallest_pieces_takes_no_more_memory_than_it_has_bytes() -> None:
    source = Source()
    body, pieces = Body(source), [bytes([number]) for number in range(256)]
    read: list[bytes | None] = []
    tracemalloc.start()
    try:
        for number in range(Body.HIGH_WATER):  # that nobody reads
            body.feed(pieces[number % 256])
        assert tracemalloc.get_traced_memory()[1] < 2 * Body.HIGH_WATER
        task = DirectTask(body.read_all(2**20, Share(Budget(2**20))), lambda whole, _error: read.append(whole))
        task.start()
        for number in range(2**20 - Body.HIGH_WATER):  # each read at once
            body.feed(pieces[number % 256])
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
        body.end()
    finally:
        tracemalloc.stop()
    assert read == [bytes(range(256)) * 4096]
    assert not source.paused
