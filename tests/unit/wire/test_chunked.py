"""The chunked coding: any split of a body gives the same, and no line costs more than its length."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castlegate.wire.chunked import LONGEST_LINE, ChunkedDecoder
from castlegate.wire.fields import Malformed

WELL_FORMED = {
    b"0\r\n\r\n": (b"", []),
    b"5\r\nhello\r\n0\r\n\r\n": (b"hello", []),
    b"005;a=b;c\r\nhello\r\n00\r\n\r\n": (b"hello", []),
    b'1 ;q="\\"x"\r\n\n\r\nA\r\n0123456789\r\n0\r\n\r\n': (b"\n0123456789", []),
    b"0\r\nX-A: 1\r\nx-b:\t2 \r\nX-C:\r\n\r\n": (b"", [(b"x-a", b"1"), (b"x-b", b"2"), (b"x-c", b"")]),
}

MALFORMED = [
    b"\r\n", b"zz\r\n", b"0x5\r\nhello", b"+5\r\nhello", b"-1\r\n", b" 5\r\nhello", b"5 \r\nhello", b"5\nhello\r\n",
    b"5\r\nhelloo", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello0\r\n", b"5\r\nhello\r0", b"1_0\r\n", b"5;\x00\r\nhello",
    b"5;a\rb\r\nhello", b"ffffffffffffffff\r\n", b"5\r\nhello\r\n0\r\nx\r\n\r\n", b"0\r\nX : 1\r\n\r\n",
    b"0\r\n X: 1\r\n\r\n", b"0\r\nX: \x00\r\n\r\n", b"0\r\nX: 1\n\r\n", b"0\r\n: 1\r\n\r\n", b"0\r\n\n",
    b"5;" + b"x" * LONGEST_LINE + b"\r\n",
]  # fmt: skip


def decode(pieces: list[bytes]) -> tuple[bytes, list[tuple[bytes, bytes]], bool, bytes]:
    decoder, body, rest = ChunkedDecoder(8, 8192), b"", b""
    for piece in pieces:
        rest += piece
        while rest and not decoder.done:
            chunks, rest = decoder.feed(rest)
            body += b"".join(chunks)
    return body, decoder.trailers, decoder.done, rest


def outcome(pieces: list[bytes]) -> object:
    try:
        return decode(pieces)
    except Malformed as malformed:
        return malformed.detail


def split(message: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(message), *(cut % (len(message) + 1) for cut in cuts)})
    return [message[start:end] for start, end in itertools.pairwise(places)]


@pytest.mark.parametrize("message", WELL_FORMED)
def test_a_body_is_decoded(message: bytes) -> None:
    body, trailers = WELL_FORMED[message]
    assert decode([message + b"next"]) == (body, trailers, True, b"next")


@pytest.mark.parametrize("message", MALFORMED)
def test_a_malformed_body_is_refused_at_once(message: bytes) -> None:
    """Without waiting for bytes that may never come."""
    with pytest.raises(Malformed):
        decode([message])


bodies = st.one_of(
    st.sampled_from([*WELL_FORMED, *MALFORMED]),
    st.binary(max_size=60),
    st.lists(st.sampled_from([b"5", b"0", b"\r\n", b"\n", b"\r", b";a", b"hello", b"X: 1", b" ", b":", b"\x00"])).map(
        b"".join
    ),
)


@given(bodies, st.lists(st.integers(min_value=0), max_size=20))
def test_any_split_of_a_body_gives_the_same(message: bytes, cuts: list[int]) -> None:
    assert outcome(split(message, cuts)) == outcome([message])


@pytest.mark.parametrize(
    "line", [b"a:" + b" " * 8000 + b"\x01", b"a" * 8000 + b"\x01:", b"a: " + b"x \t" * 2600 + b"\x01"]
)
def test_a_trailer_costs_no_more_than_its_length(line: bytes) -> None:
    started = time.process_time()
    with pytest.raises(Malformed):
        decode([b"0\r\n" + line + b"\r\n\r\n"])
    assert time.process_time() - started < 1
