"""The partition log against a naive model, and the numbering of producers."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.broker.raw import batch

from castlegate_broker.batch import OVERHEAD
from castlegate_broker.errors import Code, Refused
from castlegate_broker.log import PartitionLog

_LARGE = 1 << 30


def _log(retention: int = _LARGE, producers: int = 10) -> PartitionLog:
    return PartitionLog(retention, producers)


def _append(log: PartitionLog, data: bytes, max_bytes: int = _LARGE) -> int:
    return log.append(memoryview(data), max_bytes).base_offset


def _code(log: PartitionLog, data: bytes, max_bytes: int = _LARGE) -> Code:
    before = log.end, log.cost
    with pytest.raises(Refused) as refused:
        _append(log, data, max_bytes)
    assert (log.end, log.cost) == before
    return refused.value.code


@dataclass
class Stored:
    base: int
    count: int
    tail: bytes


class LogAgainstAList(RuleBasedStateMachine):
    """All batches ever stored are in a list; the log must give what of them it still has."""

    retention = 3_000

    def __init__(self) -> None:
        super().__init__()
        self.log = _log(self.retention)
        self.stored: list[Stored] = []

    @rule(count=st.integers(1, 5), size=st.integers(0, 600))
    def append(self, count: int, size: int) -> None:
        data = batch(*[bytes([n]) * size for n in range(count)])
        base = _append(self.log, data)
        assert base == (self.stored[-1].base + self.stored[-1].count if self.stored else 0)
        self.stored.append(Stored(base, count, data[16:]))

    @rule(share=st.floats(0, 1))
    def delete_before(self, share: float) -> None:
        self.log.delete_before(self.log.start + round(share * (self.log.end - self.log.start)))

    @rule(data=st.data(), limit=st.integers(0, 5_000), at_least_one=st.booleans())
    def read(self, data: st.DataObject, limit: int, at_least_one: bool) -> None:
        offset = data.draw(st.integers(self.log.start, self.log.end))
        found = self.log.read(offset, limit, at_least_one=at_least_one)
        expected = [one for one in self.stored if one.base + one.count > offset][: len(found)]
        assert [one[16:] for one in found] == [one.tail for one in expected]
        assert [int.from_bytes(one[:8], "big") for one in found] == [one.base for one in expected]
        size = sum(map(len, found))
        assert size <= limit or (at_least_one and len(found) == 1)
        if at_least_one and offset < self.log.end:
            assert found

    @rule(outside=st.integers(1, 100), before=st.booleans())
    def read_out_of_range(self, outside: int, before: bool) -> None:
        offset = self.log.start - outside if before else self.log.end + outside
        with pytest.raises(Refused) as refused:
            self.log.read(offset, 100, at_least_one=True)
        assert refused.value.code is Code.OFFSET_OUT_OF_RANGE

    @invariant()
    def is_bounded(self) -> None:
        kept = self.log.read(self.log.start, _LARGE, at_least_one=False)
        assert self.log.cost == sum(len(one) + OVERHEAD for one in kept)
        assert self.log.cost <= self.retention or len(kept) == 1


TestLogAgainstAList = LogAgainstAList.TestCase
TestLogAgainstAList.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_offsets_grow_by_one_a_record() -> None:
    log = _log()
    assert [_append(log, batch(b"a", b"b", b"c")), _append(log, batch(b"d")), _append(log, batch(b"e"))] == [0, 3, 4]


def test_only_offset_and_leader_epoch_of_a_batch_are_written() -> None:
    log, sent = _log(), batch(b"value")
    _append(log, sent)
    _append(log, sent)
    (_, second) = log.read(0, _LARGE, at_least_one=True)
    assert second[:8] == (1).to_bytes(8, "big")
    assert second[8:12] == sent[8:12]
    assert second[12:16] == bytes(4)
    assert second[16:] == sent[16:]


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda data: data[:40], Code.CORRUPT_MESSAGE),
        (lambda data: data[:-1], Code.CORRUPT_MESSAGE),
        (lambda data: data + data, Code.INVALID_RECORD),
        (lambda data: data[:16] + b"\x01" + data[17:], Code.CORRUPT_MESSAGE),
        (lambda data: data[:22] + b"\x20" + data[23:], Code.INVALID_RECORD),
        (lambda data: data[:22] + b"\x10" + data[23:], Code.INVALID_TXN_STATE),
        (lambda data: data[:57] + bytes(4) + data[61:], Code.INVALID_RECORD),
        (lambda data: b"", Code.CORRUPT_MESSAGE),
    ],
    ids=["header cut", "records cut", "two", "old format", "control", "transactional", "no records", "nothing"],
)
def test_what_is_no_batch_is_refused(damage: object, code: Code) -> None:
    assert callable(damage)
    assert _code(_log(), damage(batch(b"value"))) is code


def test_a_batch_that_is_too_large_is_refused() -> None:
    data = batch(bytes(100))
    assert _code(_log(), data, len(data) - 1) is Code.MESSAGE_TOO_LARGE
    assert _append(_log(), data, len(data)) == 0


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    log = _log()
    try:
        _append(log, data)
    except Refused:
        assert log.end == 0


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=60), st.integers(-5, 3_000))
def test_opaque_records_are_searched_by_time_without_harm(junk: bytes, timestamp: int) -> None:
    log, whole = _log(), bytearray(batch(b"one", b"two", b"three"))
    whole[61 : 61 + len(junk)] = junk[: len(whole) - 61]
    _append(log, bytes(whole))
    log.first_not_older(timestamp)


def test_a_record_is_found_by_its_time() -> None:
    log = _log()
    _append(log, batch(b"a", b"b", timestamp=100))
    _append(log, batch(b"c", b"d", timestamp=200, compression=1))
    found = [log.first_not_older(time) for time in (0, 101, 102, 201, 202)]
    assert [one and one.offset for one in found] == [0, 1, 2, 2, None]
    latest = log.latest_timestamp()
    assert latest is not None
    assert latest.timestamp == 201


def _numbered(sequence: int, count: int = 1, *, epoch: int = 0, producer: int = 7) -> bytes:
    return batch(*[b"x"] * count, producer_id=producer, epoch=epoch, sequence=sequence)


def test_a_batch_sent_twice_is_stored_once_and_answered_with_its_offset() -> None:
    log = _log()
    batches = [_numbered(2 * n, 2) for n in range(5)]
    assert [_append(log, one) for one in batches] == [0, 2, 4, 6, 8]
    assert [_append(log, one) for one in batches] == [0, 2, 4, 6, 8]
    assert log.end == 10


def test_only_the_last_five_batches_are_known_again() -> None:
    log = _log()
    for sequence in range(6):
        _append(log, _numbered(sequence))
    assert _code(log, _numbered(0)) is Code.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert _append(log, _numbered(1)) == 1


def test_a_gap_in_the_numbering_is_refused() -> None:
    log = _log()
    _append(log, _numbered(0))
    assert _code(log, _numbered(2)) is Code.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert _append(log, _numbered(1)) == 1


def test_a_new_epoch_starts_at_zero_and_fences_the_old_one() -> None:
    log = _log()
    _append(log, _numbered(0))
    assert _code(log, _numbered(1, epoch=1)) is Code.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert _append(log, _numbered(0, epoch=1)) == 1
    assert _code(log, _numbered(1, epoch=0)) is Code.INVALID_PRODUCER_EPOCH


def test_numbering_goes_on_after_the_largest_number() -> None:
    log, last = _log(), (1 << 31) - 1
    _append(log, _numbered(last - 1, 3))
    assert _append(log, _numbered(1)) == 3


def test_a_producer_that_was_forgotten_may_go_on() -> None:
    log = _log(producers=2)
    for producer in (1, 2, 3):
        _append(log, _numbered(0, producer=producer))
    assert _append(log, _numbered(9, producer=1)) == 3


@dataclass
class Client:
    """A producer that sends again what it has no answer for, as an idempotent one does."""

    sequence: int = 0
    unanswered: list[tuple[int, int]] = field(default_factory=list)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.booleans()), max_size=40))
def test_lost_answers_never_make_a_record_appear_twice(steps: list[tuple[int, int, bool]]) -> None:
    log = _log()
    clients = [Client() for _ in range(3)]
    sent = 0
    for which, count, answer_is_lost in steps:
        client = clients[which]
        for sequence, again in client.unanswered:
            _append(log, _numbered(sequence, again, producer=which))
        client.unanswered.clear()
        _append(log, _numbered(client.sequence, count, producer=which))
        sent += count
        if answer_is_lost:
            client.unanswered.append((client.sequence, count))
        client.sequence += count
    assert log.end == sent
