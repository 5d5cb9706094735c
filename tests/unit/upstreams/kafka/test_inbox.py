"""How the inbox sorts what it reads."""

from typing import Any

import pytest

from castlegate.telemetry.metrics import Counter, Gauge, Histogram
from castlegate.upstreams.kafka.inbox import Counters, Events, Inbox

TAG = b"0123456789abcdef"
OURS = TAG + b"0000000000000001"
THEIRS = b"f" * 16 + b"0000000000000001"


class Record:
    """As much of a `confluent_kafka.Message` as is looked at."""

    def __init__(self, headers: Any, topic: str = "inbox", value: bytes | None = b"v") -> None:
        self._headers, self._topic, self._value = headers, topic, value

    def error(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 0, 0  # none

    def topic(self) -> str:
        return self._topic

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> Any:
        if self._headers == "not UTF-8":
            raise SystemError("returned a result with an exception set")  # as confluent-kafka 2.16 does
        return self._headers


@pytest.fixture
def unidentified() -> list[int]:
    return []


@pytest.fixture
def inbox(unidentified: list[int]) -> Inbox:
    def never(*_: object) -> None:
        raise AssertionError

    events = Events(never, unidentified.append, never, never, never, never)
    inbox = Inbox(None, TAG, events, Counters(Counter(), Gauge(), Histogram()))  # type: ignore[arg-type]
    inbox.correlation = {"inbox": ("correlation-id", "kafka_correlationId")}
    return inbox


def sort(inbox: Inbox, *records: Record) -> list[bytes]:
    return [received[0] for received in inbox._sort(list(records))]  # type: ignore[arg-type]


def test_only_what_carries_our_tag_is_handed_over(inbox: Inbox, unidentified: list[int]) -> None:
    ours = [Record([("correlation-id", OURS)]), Record([("kafka_correlationId", OURS), ("x", None)], value=None)]
    theirs = [Record([("correlation-id", THEIRS)]), Record([("correlation-id", b"")])]
    assert sort(inbox, *ours, *theirs) == [OURS, OURS]
    assert inbox._counters.foreign.value == 2
    assert unidentified == []


def test_the_last_of_a_repeated_header_is_the_one(inbox: Inbox) -> None:
    assert sort(inbox, Record([("correlation-id", THEIRS), ("correlation-id", OURS)])) == [OURS]
    assert sort(inbox, Record([("correlation-id", OURS), ("correlation-id", THEIRS)])) == []


def test_records_without_a_readable_id_are_counted_and_the_rest_of_the_batch_is_read(
    inbox: Inbox, unidentified: list[int]
) -> None:
    bad = [Record(None), Record([]), Record("not UTF-8"), Record([("correlation-id", None)]),
           Record([("correlation-id", OURS)], topic="elsewhere")]  # fmt: skip
    assert sort(inbox, *bad, Record([("correlation-id", OURS)])) == [OURS]
    assert unidentified == [5]
