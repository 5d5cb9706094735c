"""The topics: creates, grows, deletes and finds them, and keeps all logs together within one bound.

Knows nothing of requests. Reports changes that waiting fetches must hear of to the partition's watchers.
"""

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from castlegate_broker.configs import check_configs, config_int
from castlegate_broker.errors import Code, Refused
from castlegate_broker.log import Appended, PartitionLog
from castlegate_broker.settings import Settings

# Kafka's own rule: org.apache.kafka.common.internals.Topic
_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


class Watcher(Protocol):
    """Someone who waits for a partition to change."""

    def grown(self, size: int) -> None:
        """So many bytes were appended."""

    def gone(self) -> None:
        """The partition was deleted."""


class Partition:
    """A log and those who wait for it to grow."""

    __slots__ = ("log", "watchers")

    def __init__(self, log: PartitionLog) -> None:
        self.log = log
        self.watchers: set[Watcher] = set()


@dataclass(slots=True)
class Topic:
    """A named set of partitions with its own settings, as the client wrote them."""

    name: str
    id: bytes
    partitions: list[Partition]
    configs: dict[str, str] = field(default_factory=dict)


class Topics:
    """All topics of the broker."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._by_name: dict[str, Topic] = {}
        self._by_id: dict[bytes, Topic] = {}
        self._partitions = 0
        self._cost = 0

    @property
    def cost(self) -> int:
        """Bytes of memory that all logs hold."""
        return self._cost

    def __iter__(self) -> Iterator[Topic]:
        return iter(self._by_name.values())

    def find(self, name: str) -> Topic | None:
        """The topic of this name."""
        return self._by_name.get(name)

    def find_id(self, topic_id: bytes) -> Topic | None:
        """The topic of this id (KIP-516)."""
        return self._by_id.get(topic_id)

    def partition(self, name: str, index: int) -> Partition:
        """A partition that exists; raises `Refused`."""
        topic = self._by_name.get(name)
        if topic is None or not 0 <= index < len(topic.partitions):
            raise Refused(Code.UNKNOWN_TOPIC_OR_PARTITION)
        return topic.partitions[index]

    def check_new(self, name: str, count: int, configs: dict[str, str]) -> None:
        """Raise `Refused` if such a topic can't be created."""
        if not _NAME.fullmatch(name) or name in (".", ".."):
            raise Refused(
                Code.INVALID_TOPIC_EXCEPTION,
                "a topic's name is 1 to 249 of a-z A-Z 0-9 . _ - and neither '.' nor '..'",
            )
        if name in self._by_name:
            raise Refused(Code.TOPIC_ALREADY_EXISTS, f"topic '{name}' already exists")
        if len(self._by_name) >= self._settings.max_topics:
            raise Refused(Code.POLICY_VIOLATION, f"this broker holds at most {self._settings.max_topics} topics")
        if count < 1:
            raise Refused(Code.INVALID_PARTITIONS, "a topic has at least one partition")
        self._check_room(count)
        check_configs(configs)

    def create(self, name: str, count: int, configs: dict[str, str]) -> Topic:
        """Create a topic; raises `Refused`."""
        self.check_new(name, count, configs)
        topic = Topic(name, secrets.token_bytes(16), [], configs)
        self._add_partitions(topic, count)
        self._by_name[name] = self._by_id[topic.id] = topic
        return topic

    def check_grow(self, name: str, count: int) -> Topic:
        """The topic, if it can grow to so many partitions; raises `Refused`."""
        topic = self._by_name.get(name)
        if topic is None:
            raise Refused(Code.UNKNOWN_TOPIC_OR_PARTITION, f"no topic '{name}'")
        if count <= len(topic.partitions):
            raise Refused(
                Code.INVALID_PARTITIONS, f"topic '{name}' has {len(topic.partitions)} partitions and only grows"
            )
        self._check_room(count - len(topic.partitions))
        return topic

    def grow(self, name: str, count: int) -> None:
        """Give a topic more partitions; raises `Refused`."""
        topic = self.check_grow(name, count)
        self._add_partitions(topic, count - len(topic.partitions))

    def delete(self, topic: Topic) -> None:
        """Forget a topic with all its records, and tell those who wait for them."""
        del self._by_name[topic.name], self._by_id[topic.id]
        self._partitions -= len(topic.partitions)
        for partition in topic.partitions:
            self._cost -= partition.log.cost
            for watcher in tuple(partition.watchers):
                watcher.gone()

    def configure(self, topic: Topic, configs: dict[str, str]) -> None:
        """Replace a topic's settings; raises `Refused`."""
        check_configs(configs)
        topic.configs = configs
        retention = self._retention(topic)
        for partition in topic.partitions:
            partition.log.retention_bytes = retention

    def max_message_bytes(self, topic: Topic) -> int:
        """The largest batch that the topic takes."""
        return config_int(topic.configs, "max.message.bytes", self._settings.max_message_bytes)

    def append(self, topic: Topic, partition: Partition, records: memoryview) -> Appended:
        """Append a batch and wake those who wait; raises `Refused`."""
        log = partition.log
        before = log.cost
        appended = log.append(records, self.max_message_bytes(topic))
        self._cost += log.cost - before
        if self._cost > self._settings.total_bytes:
            self._shrink_largest()
        if appended.cost:
            for watcher in tuple(partition.watchers):
                watcher.grown(len(records))
        return appended

    def delete_records(self, partition: Partition, offset: int) -> None:
        """Give up all records before an offset; raises `Refused`."""
        before = partition.log.cost
        partition.log.delete_before(offset)
        self._cost += partition.log.cost - before

    def _shrink_largest(self) -> None:
        """Cut a sixteenth of the total bound off the largest log, so that few appends have to look for it."""
        logs = (partition.log for topic in self for partition in topic.partitions)
        largest = max(logs, key=lambda log: log.cost)
        before = largest.cost
        largest.trim(max(0, before - self._settings.total_bytes // 16))
        self._cost += largest.cost - before

    def _add_partitions(self, topic: Topic, count: int) -> None:
        retention = self._retention(topic)
        topic.partitions += [Partition(PartitionLog(retention, self._settings.max_producers)) for _ in range(count)]
        self._partitions += count

    def _retention(self, topic: Topic) -> int:
        wanted = config_int(topic.configs, "retention.bytes", -1)
        bound = self._settings.retention_bytes
        return bound if wanted < 0 else min(wanted, bound)

    def _check_room(self, count: int) -> None:
        if self._partitions + count > self._settings.max_partitions:
            raise Refused(
                Code.INVALID_PARTITIONS, f"this broker holds at most {self._settings.max_partitions} partitions"
            )
