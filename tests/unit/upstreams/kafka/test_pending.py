"""The pending table against a model that remembers everything."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from castlegate.errors import CallFailed
from castlegate.upstreams.kafka.dialects.dialect import ReceivedHeaders
from castlegate.upstreams.kafka.pending import DUPLICATE, LATE, MALFORMED, OK, UNKNOWN, Pending, PendingFull

TAG = b"0123456789ab"
LIMIT = 5
MEMORY = 4


class Recorder:
    """A sink that is done after so many records."""

    def __init__(self, wants: int = 1) -> None:
        self.wants = wants
        self.got: list[bytes | None] = []
        self.done = False

    def feed(self, headers: ReceivedHeaders, value: bytes | None) -> str:
        assert not self.done
        self.got.append(value)
        self.done = len(self.got) == self.wants
        return MALFORMED if value is None else OK

    def fail(self, error: CallFailed) -> None:
        raise AssertionError(error)


def table(first: int = 41, memory: int = MEMORY) -> Pending:
    return Pending(limit=LIMIT, tag=TAG, first=first, memory=memory, random=bytes)


class Table(RuleBasedStateMachine):
    open_ids: Bundle[bytes] = Bundle("open_ids")
    closed_ids: Bundle[bytes] = Bundle("closed_ids")

    def __init__(self) -> None:
        super().__init__()
        self.pending = table()
        self.sinks: dict[bytes, Recorder] = {}
        self.issued: list[bytes] = []
        self.given_up: list[bytes] = []

    @precondition(lambda self: len(self.sinks) < LIMIT)
    @rule(target=open_ids, wants=st.integers(1, 3))
    def opens(self, wants: int) -> bytes:
        sink = Recorder(wants)
        correlation_id = self.pending.open(sink)
        assert correlation_id not in self.issued
        assert len(correlation_id) == 32
        assert correlation_id.startswith(TAG)
        self.sinks[correlation_id] = sink
        self.issued.append(correlation_id)
        return correlation_id

    @precondition(lambda self: len(self.sinks) == LIMIT)
    @rule()
    def refuses_more(self) -> None:
        with pytest.raises(PendingFull):
            self.pending.open(Recorder())

    @rule(correlation_id=open_ids, value=st.sampled_from([b"a", None]))
    def feeds(self, correlation_id: bytes, value: bytes | None) -> None:
        sink = self.sinks[correlation_id]
        before = list(sink.got)
        expected = DUPLICATE if sink.done else MALFORMED if value is None else OK
        assert self.pending.feed(correlation_id, {}, value) == expected
        assert sink.got == (before if expected == DUPLICATE else [*before, value])

    @rule(target=closed_ids, correlation_id=consumes(open_ids))
    def closes(self, correlation_id: bytes) -> bytes:
        if not self.sinks.pop(correlation_id).done:
            self.given_up.append(correlation_id)
        self.pending.close(correlation_id)
        self.pending.close(correlation_id)  # once is enough, twice does no harm
        return correlation_id

    @rule(correlation_id=closed_ids)
    def feeds_what_is_gone(self, correlation_id: bytes) -> None:
        kind = self.pending.feed(correlation_id, {}, b"x")
        remembered, forgotten = self.given_up[-MEMORY:], self.given_up[:-MEMORY]
        if correlation_id in remembered:
            assert kind == LATE
        elif all(correlation_id > each for each in forgotten):
            assert kind == DUPLICATE
        else:
            assert kind == LATE

    @invariant()
    def holds_who_waits(self) -> None:
        assert len(self.pending) == len(self.sinks)
        assert set(self.pending.sinks()) == set(self.sinks.values())


Table.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestTable = Table.TestCase


@pytest.mark.parametrize(
    "correlation_id",
    [
        b"",
        b"\xff\xfe",
        TAG,
        b"x" * 1_000_000,
        b"%s%020x" % (b"f" * 12, 42),  # another worker's
        b"%s%020x" % (TAG, 41),  # before the first one
        b"%s%020x" % (TAG, 43),  # not issued yet
        TAG + b"0000000000000000002A",  # the right number, written otherwise
        TAG + b"+000000000000000002a",
        TAG + b"00_0000000000000002a",
        TAG + b" 000000000000000002a",
        TAG + b"0000000000000000002a0",
        TAG + b"zzzzzzzzzzzzzzzzzzzz",
    ],
)
def test_an_id_that_was_never_issued_is_unknown(correlation_id: bytes) -> None:
    pending = table(first=41)
    assert pending.open(Recorder()) == TAG + b"0000000000000000002a"
    assert pending.feed(correlation_id, {}, b"x") == UNKNOWN


def test_the_id_of_another_request_cannot_be_told_from_ones_own() -> None:
    pending, victim = Pending(limit=LIMIT, tag=TAG, first=41), Recorder()
    own, other = pending.open(Recorder()), pending.open(victim)
    assert own[12:22] != other[12:22]
    guess = own[:-10] + other[-10:]  # the counter is easily guessed
    assert pending.feed(guess, {}, b"forged") != OK
    assert victim.got == []
    pending.close(other)
    assert pending.feed(guess, {}, b"forged") == UNKNOWN
    assert pending.feed(other, {}, b"honest") == LATE


def test_secrets_are_used_once() -> None:
    pending = Pending(limit=LIMIT, tag=TAG, first=41)
    ids = []
    for _ in range(5000):
        ids.append(pending.open(Recorder()))
        pending.close(ids[-1])
    assert len({each[12:22] for each in ids}) == 5000


def test_a_worker_that_starts_again_does_not_know_the_ids_of_its_earlier_life() -> None:
    earlier, now = table(), Pending(limit=LIMIT, tag=b"fedcba987654", first=41, random=bytes)
    old = earlier.open(Recorder())
    now.open(Recorder())
    assert now.feed(old, {}, b"x") == UNKNOWN


def test_a_stream_is_one_request_until_its_sink_is_done() -> None:
    pending, sink = table(), Recorder(wants=3)
    correlation_id = pending.open(sink)
    kinds = [pending.feed(correlation_id, {}, b"%d" % n) for n in range(4)]
    assert kinds == [OK, OK, OK, DUPLICATE]
    assert sink.got == [b"0", b"1", b"2"]
