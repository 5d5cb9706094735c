"""What one worker tells is read by all others, none of it twice, and who has missed some of it knows that."""

from base64 import urlsafe_b64encode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from castlegate.issuer.board import Board


def name(number: int) -> str:
    return urlsafe_b64encode(sha256(str(number).encode()).digest()).rstrip(b"=").decode()


@pytest.fixture
def boards(tmp_path: Path) -> Iterator[list[Board]]:
    made = [Board(tmp_path / "board") for _ in range(3)]
    yield made
    for each in made:
        each.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 500), st.booleans()), max_size=12))
def test_whoever_reads_gets_all_that_was_told_or_is_told_that_it_is_too_much(
    boards: list[Board], turns: list[tuple[int, int, bool]]
) -> None:
    told: list[str] = []
    began = read = boards[0].count
    for who, count, look in turns:
        names = [name(len(told) + number) for number in range(count)]
        boards[who].tell(names)
        told += names
        if look:
            found = boards[(who + 1) % 3].since(read)
            missed = told[read - began :]
            assert found == (missed if len(missed) < 1024 else None)
            read = boards[who].count
    assert {each.count for each in boards} == {began + len(told)}


def test_it_goes_on_where_it_was_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "board"
    board = Board(path)
    board.tell([name(1), name(2)])
    board.close()
    board = Board(path)
    assert (board.count, board.since(1)) == (2, [name(2)])
    assert board.since(3) is None, "it was another board"
    board.close()
    assert path.stat().st_mode & 0o077 == 0
