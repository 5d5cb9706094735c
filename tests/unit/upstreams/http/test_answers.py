"""Any split of any answer gives the same, and a connection goes back to its pool after a whole answer only."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.faults.test_upstream_http import BAD_ANSWERS, ENDS
from tests.testbeds.answers import Answers
from tests.testbeds.edge import split

HEAD = b"HTTP/1.1 200 OK\r\n"
GOOD = {
    "a length": HEAD + b"Content-Length: 5\r\n\r\nhello",
    "nothing": HEAD + b"content-length: 0\r\n\r\n",
    "chunks": HEAD + b"Transfer-Encoding: Chunked\r\n\r\n5;x\r\nhello\r\n3\r\n you\r\n0\r\nx-t: 1\r\n\r\n",
    "the end of the connection": HEAD + b"x: 1\r\n\r\nhello",
    "no body by its status": b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n",
    "an interim answer before it": b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    + HEAD
    + b"content-length: 2\r\n\r\nok",
    "a close that is said": HEAD + b"connection: close\r\ncontent-length: 2\r\n\r\nok",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "no reason": b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok",
    "bytes behind it": HEAD + b"content-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n",
    "fields of one hop": HEAD + b"connection: x-a\r\nx-a: 1\r\nkeep-alive: 5\r\ncontent-length: 2\r\n\r\nok",
}
ANSWERS = {**GOOD, **{name: each for name, each in {**BAD_ANSWERS, **ENDS}.items() if len(each) < 300}}


@pytest.fixture(scope="module")
def answers() -> Iterator[Answers]:
    answers = Answers()
    yield answers
    answers.close()


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("closes", [True, False])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_cut_anywhere_gives_the_same(answers: Answers, name: str, closes: bool, method: bytes) -> None:
    message = ANSWERS[name]
    whole = answers.play(method, [message], closes=closes)
    for place in range(1, len(message)):
        in_two = answers.play(method, [message[:place], message[place:]], closes=closes)
        if in_two.error == "bad_answer" == whole.error:
            # Of surplus bytes that come late the first caller sees nothing; what was right before a fault is streamed.
            assert in_two.error == whole.error
            assert not whole.reused
        else:
            assert in_two == whole, place


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_a_bad_answer_is_none_of_any_call(answers: Answers, name: str) -> None:
    got = answers.play(b"GET", [BAD_ANSWERS[name]], closes=False)
    assert (got.status, got.error, got.reused) == (None, "bad_answer", False)


WORDS = [
    *GOOD.values(),
    HEAD,
    b"content-length: 2\r\n",
    b"transfer-encoding: chunked\r\n",
    b"\r\n",
    b"ok",
    b"0\r\n",
    b"\n",
    b"\x00",
    b"5",
]
streams = st.lists(st.sampled_from(WORDS) | st.binary(max_size=3), max_size=8).map(b"".join)


@given(
    streams, st.lists(st.integers(min_value=0), max_size=10), st.booleans(), st.sampled_from([b"GET", b"HEAD", b"POST"])
)
def test_any_split_of_any_answer_ends_alike(
    answers: Answers, stream: bytes, cuts: list[int], closes: bool, method: bytes
) -> None:
    whole = answers.play(method, [stream], closes=closes)
    in_pieces = answers.play(method, split(stream, cuts), closes=closes)
    # A fault in a body may be found before any of it was handed on, or behind what was right.
    assert in_pieces.error == whole.error
    if whole.error is None:
        assert in_pieces == whole
