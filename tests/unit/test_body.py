"""Bodies take no more memory than they may."""

import tracemalloc

from castlegate.body import Body, Budget, Share
from castlegate.waiting import DirectTask


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
        for number in range(2**15):  # that nobody reads
            body.feed(pieces[number % 256])
        assert tracemalloc.get_traced_memory()[1] < 2 * 2**15
        task = DirectTask(body.read_all(2**20, Share(Budget(2**20))), lambda whole, _error: read.append(whole))
        task.start()
        for number in range(2**15):  # each read at once
            body.feed(pieces[number % 256])
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**16
        body.end()
    finally:
        tracemalloc.stop()
    assert read == [bytes(range(256)) * 256]
    assert not source.paused
