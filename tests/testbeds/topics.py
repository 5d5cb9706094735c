"""Topics made before they are needed, and usable when they are said to be there."""

import time
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

_POLL_S = 0.05


def create_topics(
    bootstrap: str,
    partitions: Mapping[str, int],
    timeout_s: float = 30.0,
    *,
    replication: int = 1,
    settings: Mapping[str, str] | None = None,
) -> None:
    """Create each topic with so many partitions, and wait for their leaders; one that exists stays as it is."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    wanted = [
        NewTopic(name, num_partitions=count, replication_factor=replication, config=dict(settings or {}))
        for name, count in partitions.items()
    ]
    for done in admin.create_topics(wanted, operation_timeout=timeout_s, request_timeout=timeout_s).values():
        try:
            done.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
    _wait_for_leaders(bootstrap, partitions, timeout_s)


def _wait_for_leaders(bootstrap: str, partitions: Mapping[str, int], timeout_s: float) -> None:
    """A new topic is in the metadata before its partitions answer: NOT_LEADER_FOR_PARTITION for a moment."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "topics", "log_level": 0})
    deadline = time.monotonic() + timeout_s
    try:
        for partition in (
            TopicPartition(name, number) for name, count in partitions.items() for number in range(count)
        ):
            while not _has_leader(consumer, partition):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{partition} has no leader after {timeout_s:g} s")
                time.sleep(_POLL_S)
    finally:
        consumer.close()


def _has_leader(consumer: Consumer, partition: TopicPartition) -> bool:
    try:
        return consumer.get_watermark_offsets(partition, timeout=5) is not None
    except KafkaException:
        return False
