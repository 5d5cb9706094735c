"""What a confluent-kafka client (librdkafka) sees of any broker."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    OffsetSpec,
)
from confluent_kafka.cimpl import NewPartitions, NewTopic
from tests.testbeds.topics import create_topics

_PATIENCE_S = 20.0


def _name(what: str) -> str:
    return f"{what}-{uuid.uuid4().hex[:10]}"


def _topic(bootstrap: str, partitions: int = 1) -> str:
    name = _name("topic")
    create_topics(bootstrap, {name: partitions})
    return name


def _admin(bootstrap: str) -> AdminClient:
    """A client to be held in a variable: one that goes before its answer does may hang."""
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})


def _produce(bootstrap: str, topic: str, values: Sequence[str], **settings: Any) -> list[Message]:
    """Write values in order and return their delivery reports, all without an error."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0, "log_level": 0, **settings})
    reports: list[Message] = []

    def report(error: KafkaError | None, message: Message) -> None:
        assert error is None, error
        reports.append(message)

    for value in values:
        producer.produce(topic, value, key=value, headers={"n": value.encode()}, on_delivery=report)
    assert producer.flush(_PATIENCE_S) == 0
    return reports


@contextmanager
def _consumer(bootstrap: str, group: str, **settings: Any) -> Iterator[Consumer]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "heartbeat.interval.ms": 100,
            "session.timeout.ms": 6_000,
            "log_level": 0,
            **settings,
        }
    )
    try:
        yield consumer
    finally:
        consumer.close()


def _read(consumer: Consumer, count: int) -> list[Message]:
    messages: list[Message] = []
    deadline = time.monotonic() + _PATIENCE_S
    while len(messages) < count:
        assert time.monotonic() < deadline, f"{len(messages)} of {count} messages came"
        messages += consumer.consume(count - len(messages), 0.2)
    assert [message.error() for message in messages if message.error()] == []
    return messages


def _values(messages: list[Message]) -> list[str]:
    return [bytes(message.value() or b"").decode() for message in messages]


def _poll_until(consumers: list[Consumer], done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, [consumer.assignment() for consumer in consumers]
        for consumer in consumers:
            consumer.poll(0.02)


def _code(error: pytest.ExceptionInfo[KafkaException]) -> int:
    code: int = error.value.args[0].code()
    return code


def test_records_come_back_as_they_were_written(bootstrap: str) -> None:
    topic = _topic(bootstrap)
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    headers: list[tuple[str, bytes | str | None]] = [("a", b"1"), ("a", b"\x00\xff"), ("none", None)]
    producer.produce(topic, b"\x00value", key=b"key", headers=headers, timestamp=1_700_000_000_123)
    producer.produce(topic, None, key=b"tombstone")
    assert producer.flush(_PATIENCE_S) == 0
    with _consumer(bootstrap, _name("group")) as consumer:
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        first, second = _read(consumer, 2)
    assert (first.key(), first.value(), first.headers()) == (b"key", b"\x00value", headers)
    assert first.timestamp()[1] == 1_700_000_000_123
    assert (first.offset(), second.offset()) == (0, 1)
    assert (second.value(), second.headers()) == (None, None)


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_an_idempotent_producer_writes_each_record_once_and_in_order(bootstrap: str, compression: str) -> None:
    topic = _topic(bootstrap)
    values = [f"value {number}" for number in range(2_000)]
    reports = _produce(
        bootstrap, topic, values, **{"enable.idempotence": True, "compression.type": compression, "linger.ms": 5}
    )
    assert [report.offset() for report in reports] == list(range(2_000))
    with _consumer(bootstrap, _name("group")) as consumer:
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        assert _values(_read(consumer, 2_000)) == values


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_all_kinds_of_acknowledgement_write(bootstrap: str, acks: str) -> None:
    topic = _topic(bootstrap)
    assert len(_produce(bootstrap, topic, ["one", "two"], acks=acks)) == 2
    with _consumer(bootstrap, _name("group")) as consumer:
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        assert _values(_read(consumer, 2)) == ["one", "two"]


def test_a_manual_assignment_starts_where_it_says_and_at_the_end_waits_for_more(bootstrap: str) -> None:
    topic = _topic(bootstrap)
    _produce(bootstrap, topic, ["zero", "one", "two"])
    with _consumer(bootstrap, _name("group")) as consumer:
        consumer.assign([TopicPartition(topic, 0, 2)])
        assert _values(_read(consumer, 1)) == ["two"]
        assert consumer.poll(0.05) is None
        _produce(bootstrap, topic, ["three"])
        assert _values(_read(consumer, 1)) == ["three"]
        consumer.seek(TopicPartition(topic, 0, 1))
        assert _values(_read(consumer, 3)) == ["one", "two", "three"]


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_members_share_partitions_and_take_over_from_those_who_leave(bootstrap: str, strategy: str) -> None:
    topic, group = _topic(bootstrap, 6), _name("group")
    settings = {"partition.assignment.strategy": strategy}
    with _consumer(bootstrap, group, **settings) as first, _consumer(bootstrap, group, **settings) as second:
        first.subscribe([topic])
        second.subscribe([topic])

        def shares(*members: Consumer) -> list[int]:
            return sorted(len(member.assignment()) for member in members)

        _poll_until([first, second], lambda: shares(first, second) == [3, 3])
        with _consumer(bootstrap, group, **settings) as third:
            third.subscribe([topic])
            everyone = [first, second, third]
            _poll_until(everyone, lambda: shares(*everyone) == [2, 2, 2])
            held = {partition.partition for member in everyone for partition in member.assignment()}
            assert held == set(range(6))
        _poll_until([first, second], lambda: shares(first, second) == [3, 3])
        _produce(bootstrap, topic, [str(number) for number in range(60)])
        got: list[Message] = []

        def all_read() -> bool:
            for member in (first, second):
                got.extend(member.consume(60, 0.05))
            return len(got) >= 60

        _poll_until([], all_read)
        assert sorted(map(int, _values(got))) == list(range(60))


def test_committed_offsets_survive_the_consumer(bootstrap: str) -> None:
    topic, group = _topic(bootstrap), _name("group")
    _produce(bootstrap, topic, ["zero", "one", "two", "three"])
    with _consumer(bootstrap, group) as consumer:
        consumer.subscribe([topic])
        messages = _read(consumer, 2)
        consumer.commit(message=messages[-1], asynchronous=False)
    with _consumer(bootstrap, group) as consumer:
        consumer.subscribe([topic])
        assert _values(_read(consumer, 2)) == ["two", "three"]
        (committed,) = consumer.committed([TopicPartition(topic, 0)], timeout=_PATIENCE_S)
        assert committed.offset == 2


def test_a_consumer_without_a_group_membership_commits_and_finds_its_offsets(bootstrap: str) -> None:
    topic, group = _topic(bootstrap, 2), _name("group")
    with _consumer(bootstrap, group) as consumer:
        wanted = [TopicPartition(topic, 1, 7, metadata="half way")]
        consumer.commit(offsets=wanted, asynchronous=False)
        never, found = consumer.committed([TopicPartition(topic, 0), TopicPartition(topic, 1)], timeout=_PATIENCE_S)
    assert never.offset < 0
    assert (found.offset, found.metadata) == (7, "half way")


def test_topics_are_created_grown_and_deleted(bootstrap: str) -> None:
    admin, name = _admin(bootstrap), _name("topic")
    admin.create_topics([NewTopic(name, num_partitions=2, replication_factor=1)])[name].result()
    _until(lambda: name in admin.list_topics(timeout=5).topics)
    admin.create_partitions([NewPartitions(name, 5)])[name].result()
    _until(lambda: len(admin.list_topics(name, timeout=5).topics[name].partitions) == 5)
    admin.delete_topics([name])[name].result()
    _until(lambda: name not in admin.list_topics(timeout=5).topics)


@pytest.mark.parametrize(
    ("name", "partitions", "replicas", "config", "code"),
    [
        ("bad/name", 1, 1, {}, KafkaError.TOPIC_EXCEPTION),
        ("x" * 250, 1, 1, {}, KafkaError.TOPIC_EXCEPTION),
        ("..", 1, 1, {}, KafkaError.TOPIC_EXCEPTION),
        ("ok", 0, 1, {}, KafkaError.INVALID_PARTITIONS),
        ("ok", 1, 3, {}, KafkaError.INVALID_REPLICATION_FACTOR),
        ("ok", 1, 1, {"no.such.setting": "1"}, KafkaError.INVALID_CONFIG),
        ("ok", 1, 1, {"retention.ms": "soon"}, KafkaError.INVALID_CONFIG),
    ],
)
def test_what_is_no_topic_is_refused(
    bootstrap: str, name: str, partitions: int, replicas: int, config: dict[str, str], code: int
) -> None:
    admin = _admin(bootstrap)
    wanted = NewTopic(name, num_partitions=partitions, replication_factor=replicas, config=config)
    with pytest.raises(KafkaException) as refused:
        admin.create_topics([wanted])[name].result()
    assert _code(refused) == code


def test_a_topic_is_created_once_and_deleted_once(bootstrap: str) -> None:
    admin, name = _admin(bootstrap), _topic(bootstrap)
    with pytest.raises(KafkaException) as twice:
        admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])[name].result()
    assert _code(twice) == KafkaError.TOPIC_ALREADY_EXISTS
    with pytest.raises(KafkaException) as fewer:
        admin.create_partitions([NewPartitions(name, 1)])[name].result()
    assert _code(fewer) == KafkaError.INVALID_PARTITIONS
    admin.delete_topics([name])[name].result()
    with pytest.raises(KafkaException) as gone:
        admin.delete_topics([name])[name].result()
    assert _code(gone) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_settings_of_a_topic_are_told_and_changed(bootstrap: str) -> None:
    admin, name = _admin(bootstrap), _name("topic")
    config = {"max.message.bytes": "1000", "cleanup.policy": "compact"}
    admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1, config=config)])[name].result()
    resource = ConfigResource(ConfigResource.Type.TOPIC, name)

    def told(key: str) -> str:
        found: str = admin.describe_configs([resource])[resource].result()[key].value
        return found

    _until(lambda: told("max.message.bytes") == "1000")
    assert told("cleanup.policy") == "compact"
    change = ConfigEntry("max.message.bytes", "2000", incremental_operation=AlterConfigOpType.SET)
    changed = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[change])
    admin.incremental_alter_configs([changed])[changed].result()
    _until(lambda: told("max.message.bytes") == "2000")
    assert told("cleanup.policy") == "compact"


def test_a_record_larger_than_its_topic_takes_is_refused(bootstrap: str) -> None:
    admin, name = _admin(bootstrap), _name("topic")
    wanted = NewTopic(name, num_partitions=1, replication_factor=1, config={"max.message.bytes": "1000"})
    admin.create_topics([wanted])[name].result()
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    codes: list[int | None] = []
    for size in (100, 2_000, 100):
        producer.produce(name, bytes(size), on_delivery=lambda error, _: codes.append(error.code() if error else None))
        assert producer.flush(_PATIENCE_S) == 0
    assert codes == [None, KafkaError.MSG_SIZE_TOO_LARGE, None]


def test_offsets_are_found_by_time(bootstrap: str) -> None:
    topic = _topic(bootstrap)
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 50, "log_level": 0})
    start = 1_700_000_000_000
    for number in range(10):
        producer.produce(topic, str(number), timestamp=start + 1_000 * number)
    assert producer.flush(_PATIENCE_S) == 0
    with _consumer(bootstrap, _name("group")) as consumer:

        def at(time_ms: int) -> int:
            (found,) = consumer.offsets_for_times([TopicPartition(topic, 0, time_ms)], timeout=_PATIENCE_S)
            offset: int = found.offset
            return offset

        assert [at(start - 5), at(start), at(start + 1), at(start + 8_500)] == [0, 0, 1, 9]
        # There is none: librdkafka shows the end, -1.
        assert at(start + 9_001) == -1
        assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=_PATIENCE_S) == (0, 10)
    admin, partition = _admin(bootstrap), TopicPartition(topic, 0)
    newest = admin.list_offsets({partition: OffsetSpec.max_timestamp()})[partition].result()
    assert (newest.offset, newest.timestamp) == (9, start + 9_000)


def test_records_are_deleted_before_an_offset_and_reading_there_is_out_of_range(bootstrap: str) -> None:
    topic = _topic(bootstrap)
    _produce(bootstrap, topic, ["zero", "one", "two", "three"])
    admin, partition = _admin(bootstrap), TopicPartition(topic, 0, 3)
    assert admin.delete_records([partition])[partition].result().low_watermark == 3
    with _consumer(bootstrap, _name("group"), **{"auto.offset.reset": "error"}) as consumer:
        consumer.assign([TopicPartition(topic, 0, 1)])
        deadline = time.monotonic() + _PATIENCE_S
        while (message := consumer.poll(0.2)) is None:
            assert time.monotonic() < deadline
        error = message.error()
        assert error is not None
        assert error.code() == KafkaError._AUTO_OFFSET_RESET
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        assert _values(_read(consumer, 1)) == ["three"]


def test_groups_are_listed_described_and_deleted(bootstrap: str) -> None:
    admin, topic, group = _admin(bootstrap), _topic(bootstrap, 2), _name("group")
    with _consumer(bootstrap, group, **{"client.id": "reader"}) as consumer:
        consumer.subscribe([topic])
        _poll_until([consumer], lambda: len(consumer.assignment()) == 2)
        consumer.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
        described = admin.describe_consumer_groups([group])[group].result()
        assert described.state.name == "STABLE"
        (member,) = described.members
        assert member.client_id == "reader"
        assert [partition.partition for partition in member.assignment.topic_partitions] == [0, 1]
        with pytest.raises(KafkaException) as busy:
            admin.delete_consumer_groups([group])[group].result()
        assert _code(busy) == KafkaError.NON_EMPTY_GROUP
    assert group in {one.group_id for one in admin.list_consumer_groups().result().valid}
    asked = ConsumerGroupTopicPartitions(group)
    committed = admin.list_consumer_group_offsets([asked])[group].result().topic_partitions
    assert [(one.partition, one.offset) for one in committed] == [(0, 1)]
    admin.delete_consumer_groups([group])[group].result()
    assert group not in {one.group_id for one in admin.list_consumer_groups().result().valid}


def test_a_producer_has_its_topic_created_on_the_way(bootstrap: str) -> None:
    topic = _name("topic")
    assert [report.offset() for report in _produce(bootstrap, topic, ["first"])] == [0]


def test_a_deleted_topic_takes_its_committed_offsets_along(bootstrap: str) -> None:
    admin, topic, group = _admin(bootstrap), _topic(bootstrap), _name("group")
    with _consumer(bootstrap, group) as consumer:
        consumer.commit(offsets=[TopicPartition(topic, 0, 3)], asynchronous=False)
        admin.delete_topics([topic])[topic].result()
        create_again = NewTopic(topic, num_partitions=1, replication_factor=1)
        _until(lambda: topic not in admin.list_topics(timeout=5).topics)
        admin.create_topics([create_again])[topic].result()

        def committed() -> int:
            (found,) = consumer.committed([TopicPartition(topic, 0)], timeout=_PATIENCE_S)
            offset: int = found.offset
            return offset

        _until(lambda: committed() < 0)


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
