"""Any split of any bytes gives the same: what is seen behind, what is answered, whether the connection lives on."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.testbeds.edge import Edge, split
from tests.wire.messages.passed import PASSED
from tests.wire.messages.refused import REFUSED

MESSAGES = {name: message for table in (REFUSED, PASSED) for name, (message, _) in table.items()}


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    edge = Edge()
    yield edge
    edge.close()


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_at_once(edge: Edge, name: str) -> None:
    message, status = REFUSED[name]
    assert edge.play([message]) == ([], [status], True)


@pytest.mark.parametrize("name", [name for name in MESSAGES if len(MESSAGES[name]) < 600])
def test_a_message_cut_anywhere_gives_the_same(edge: Edge, name: str) -> None:
    message = MESSAGES[name]
    whole = edge.play([message])
    for place in range(1, len(message)):
        assert edge.play([message[:place], message[place:]]) == whole, place
    assert edge.play(split(message, range(len(message)))) == whole


WORDS = [
    b"GET ", b"POST ", b"/a/x", b"*", b"http://o/a", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"Host: h\r\n", b"\r\n", b"\r", b"\n",
    b"Content-Length: ", b"5", b"0", b"Transfer-Encoding: chunked\r\n", b"hello", b"Connection: close\r\n", b"X: 1\r\n", b" ",
    b"\t", b":", b"\x00", b"Expect: 100-continue\r\n", b"Connection: keep-alive\r\n", b"%2e", b"..", b";", b",",
]  # fmt: skip
streams = st.one_of(
    st.lists(st.sampled_from(list(MESSAGES.values())).filter(lambda each: len(each) < 600), min_size=1, max_size=3),
    st.lists(st.sampled_from(WORDS), max_size=20),
    st.lists(st.sampled_from(list(MESSAGES.values())) | st.sampled_from(WORDS), max_size=4),
).map(b"".join)


@given(streams, st.lists(st.integers(min_value=0), max_size=12), st.integers(min_value=0), st.binary(max_size=2))
def test_any_split_of_any_stream_gives_the_same(
    edge: Edge, stream: bytes, cuts: list[int], place: int, put: bytes
) -> None:
    place %= len(stream) + 1
    stream = stream[:place] + put + stream[place + len(put) :]
    assert edge.play(split(stream, cuts)) == edge.play([stream])


def test_what_one_request_says_is_not_said_of_the_next(edge: Edge) -> None:
    """Every pair of messages on one connection, against each on its own: nothing that is remembered leaks."""
    singles = {
        name: (message, played)
        for name, (message, _) in PASSED.items()
        if len(message) < 600 and not (played := edge.play([message]))[2]
    }
    for name, (first, (seen_first, *_)) in singles.items():
        for other, (second, (seen_second, *_)) in singles.items():
            seen, _, closed = edge.play([first + second + first])
            assert (seen, closed) == (seen_first + seen_second + seen_first, False), (name, other)
