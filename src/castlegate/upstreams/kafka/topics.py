"""What is known of topics, and making those that belong to the gateway. Blocking: called by the watch thread alone."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from enum import Enum
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AclOperation, AdminClient, OffsetSpec  # type: ignore[attr-defined]  # exported, not declared
from confluent_kafka.cimpl import NewTopic

from castlegate.upstreams.kafka.settings import Kafka

_CREATE_S = 5.0
_APPEAR_S = 2.0  # a topic just created is shown by every broker only after a moment
_APPEAR_STEP_S = 0.02


class Presence(Enum):
    """Whether a topic can be used."""

    UNKNOWN = "unknown"  # nobody has looked yet, or it could not be told
    PRESENT = "present"
    MISSING = "missing"
    FORBIDDEN = "forbidden"


class TopicInfo(NamedTuple):
    """What the brokers say of a topic."""

    presence: Presence
    partitions: int = 0
    id: str = ""  # changes when a topic is deleted and made anew
    problem: str = ""  # for the operator: why it is not there and what to do


NOT_LOOKED_AT = TopicInfo(Presence.UNKNOWN)


class Order(NamedTuple):
    """Read these partitions of a topic, and no other of it."""

    topic: str
    partitions: tuple[int, ...]
    since: float | None = None  # seconds since 1970 where a place is needed; None: what comes from now on
    forget: frozenset[int] = frozenset()  # partitions whose place means nothing any more
    offsets: Mapping[int, int] = {}  # where to begin, by partition: filled in before the inbox gets it


class Owned(NamedTuple):
    """How a topic that belongs to the gateway is made."""

    partitions: int
    configuration: Mapping[str, str]


class Unreachable(Exception):
    """No broker answered; the reason is for the operator."""


class Refused(Exception):
    """A broker answered with an error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Topics:
    """The topics of a cluster, through one admin client."""

    def __init__(self, admin: AdminClient, settings: Kafka) -> None:
        self._admin = admin
        self._settings = settings

    def look(
        self, names: Iterable[str], owned: Mapping[str, Owned], reads: frozenset[str], timeout: float
    ) -> dict[str, TopicInfo]:
        """Describe all of these, after creating what is missing of the owned. Raises `Unreachable`.

        Of `reads` the gateway reads, to the others it writes.
        """
        found = self._describe(list(names), reads, timeout)
        missing = {
            name: owned[name] for name, info in found.items() if name in owned and info.presence is Presence.MISSING
        }
        created = []
        for name, wanted in missing.items():
            problem = self._create(name, wanted) if self._settings.topics.create else "it is not to be created"
            if not problem:
                created.append(name)
            else:
                command = creation_command(self._settings, name, wanted)
                found[name] = found[name]._replace(
                    problem=f"topic {name} does not exist and {problem}; create it: {command}"
                )
        if created:
            found.update(self._appeared(created, reads, timeout))
        return found

    def glance(self, topic: str, timeout: float) -> int | None:
        """How many partitions a topic has, 0 for one that is not there, as any broker tells; None if none answers."""
        try:
            found = self._admin.list_topics(topic, timeout=timeout).topics[topic]
        except KafkaException:
            return None
        return 0 if found.error is not None else len(found.partitions)

    def place(self, order: Order, timeout: float) -> Order:
        """The order with the offsets to begin at. Raises `Unreachable` and `Refused`."""
        asked = [TopicPartition(order.topic, partition) for partition in order.partitions]
        offsets = self._offsets(asked, OffsetSpec.latest(), timeout)  # type: ignore[no-untyped-call]
        if order.since is not None:
            spec = OffsetSpec.for_timestamp(round(order.since * 1000))
            # -1 where nothing was written since: then the end, which was read before.
            for partition, offset in self._offsets(asked, spec, timeout).items():
                if offset >= 0:
                    offsets[partition] = offset
        return order._replace(offsets=offsets)

    def _offsets(self, asked: list[TopicPartition], spec: OffsetSpec, timeout: float) -> dict[int, int]:
        futures = self._admin.list_offsets(dict.fromkeys(asked, spec), request_timeout=timeout)
        return {at.partition: _answer(future).offset for at, future in futures.items()}

    def _describe(self, names: list[str], reads: frozenset[str], timeout: float) -> dict[str, TopicInfo]:
        if not names:
            _answer(self._admin.describe_cluster(request_timeout=timeout))
            return {}
        asked = self._admin.describe_topics(
            TopicCollection(names), request_timeout=timeout, include_authorized_operations=True
        )
        return {name: self._info(name, name in reads, future) for name, future in asked.items()}

    def _info(self, name: str, read: bool, future: Future[Any]) -> TopicInfo:
        try:
            described = _answer(future)
        except Refused as refused:
            if refused.code == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return TopicInfo(Presence.MISSING, problem=f"topic {name} does not exist")
            forbidden = refused.code == KafkaError.TOPIC_AUTHORIZATION_FAILED
            presence = Presence.FORBIDDEN if forbidden else Presence.UNKNOWN
            return TopicInfo(presence, problem=f"topic {name}: {refused}")
        # Who may see a topic may not be allowed to use it; brokers without rules allow all or do not say.
        allowed = described.authorized_operations
        if allowed and (AclOperation.READ if read else AclOperation.WRITE) not in allowed:
            return TopicInfo(Presence.FORBIDDEN, problem=f"topic {name} may not be {'read' if read else 'written to'}")
        return TopicInfo(Presence.PRESENT, len(described.partitions), str(described.topic_id))

    def _create(self, name: str, wanted: Owned) -> str:
        """Make it; says why that failed, or nothing."""
        replication = self._settings.topics.replication
        topic = NewTopic(name, wanted.partitions, replication, config=dict(wanted.configuration))
        future = self._admin.create_topics([topic], request_timeout=_CREATE_S, operation_timeout=_CREATE_S)[name]
        try:
            _answer(future)
        except Refused as refused:
            if refused.code != KafkaError.TOPIC_ALREADY_EXISTS:
                return f"could not be created ({refused})"
        return ""

    def _appeared(self, names: list[str], reads: frozenset[str], timeout: float) -> dict[str, TopicInfo]:
        end = time.monotonic() + _APPEAR_S
        while True:
            found = self._describe(names, reads, timeout)
            if all(info.presence is Presence.PRESENT for info in found.values()) or time.monotonic() > end:
                return found
            time.sleep(_APPEAR_STEP_S)


def _answer(future: Future[Any]) -> Any:
    """The result. Raises `Unreachable` and `Refused`.

    The client keeps what has failed (confluent-kafka 2.16): raised here, the exception would keep all frames with it.
    """
    failure = future.exception()
    if failure is None:
        return future.result()
    error: KafkaError = failure.args[0]
    if error.code() < 0:  # librdkafka's own: nobody answered
        raise Unreachable(error.str())
    raise Refused(error.code(), error.str())


def creation_command(settings: Kafka, name: str, wanted: Owned) -> str:
    """What an operator types to make an owned topic."""
    replication = settings.topics.replication
    return " ".join(
        [
            f"kafka-topics.sh --bootstrap-server {settings.bootstrap} --create",
            f"--topic {name} --partitions {wanted.partitions}",
            *([f"--replication-factor {replication}"] if replication > 0 else []),
            *(f"--config {key}={value}" for key, value in wanted.configuration.items()),
        ]
    )


def inbox_topic(settings: Kafka, partitions: int) -> Owned:
    """One that replies come to."""
    retention = str(round(settings.topics.retention * 1000))
    return Owned(partitions, {"cleanup.policy": "delete", "retention.ms": retention})
