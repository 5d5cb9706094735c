"""What operators say about the message broker and the services behind it."""

from __future__ import annotations

from typing import Literal

import msgspec

from castlegate.config.units import Seconds, Size

DialectName = Literal["nest", "faststream", "plain"]


class OwnedTopics(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The topics that belong to the gateway: its inbox."""

    create: bool = True
    """Create them where they are missing and the broker allows it."""
    partitions: int = 8
    """Of the inbox topic for dialects whose requests name a reply partition."""
    single: int = 4
    """Number of one-partition inbox topics for dialects that cannot name a partition."""
    replication: int = -1
    """Replication factor; -1 takes the broker's default."""
    retention: Seconds = 3600.0
    """How long the broker keeps replies."""


class Kafka(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The Kafka cluster. Needed as soon as a service or an event goes through it."""

    bootstrap: str
    """`host:port[,host:port...]`, or `embedded` for the in-memory broker meant for development."""
    librdkafka: dict[str, str | int | float | bool] = {}
    """Any client setting of librdkafka by its own name, such as `security.protocol` or `sasl.password`."""
    inbox: str = "castlegate.replies"
    """Name of the inbox topic; the one-partition inboxes are called `NAME.0`, `NAME.1` and so on."""
    topics: OwnedTopics = OwnedTopics()
    """How the inbox topics are made."""
    max_pending: int = 10_000
    """Requests that may wait for replies at once; one more is answered 503."""
    max_queued: int = 20_000
    """Records that may wait in the producer; one more is answered 503."""
    max_record: Size = 1_000_000
    """Largest record sent; a larger one is answered 413. The broker's and the topic's own limits must allow it."""
    linger_above: int = 8
    """With more requests than this waiting for replies, records are batched for half a millisecond."""


class HeaderNames(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Record headers of the `plain` dialect."""

    correlation: str = "correlation-id"
    """Carries the correlation id; the service copies it to its reply."""
    reply_topic: str = "reply-topic"
    """Names the topic to answer to."""
    reply_partition: str | None = "reply-partition"
    """Names the partition to answer to, as decimal text; null for services that cannot choose one."""
    error: str | None = "error"
    """Its presence on a reply says that the service failed; its value is the reason."""


class KafkaOperation(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One operation of a Kafka service, where the defaults do not fit."""

    topic: str | None = None
    """Topic of its requests; else `service.operation`."""
    key: str | None = None
    """Record key (a template such as `{body.id}`), unless the route says one."""
    timeout: Seconds | None = None
    """For routes that say none."""
    replies: str | None = None
    """A fixed topic that the service answers on whatever the request says."""


class KafkaService(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A service behind Kafka. The name of a dialect stands for `dialect` alone."""

    dialect: DialectName
    """How it writes request-reply on Kafka: `nest` (NestJS), `faststream`, or `plain` with configurable headers."""
    names: HeaderNames = HeaderNames()
    """Header names of the `plain` dialect."""
    operations: dict[str, KafkaOperation] = {}
    """Operations by name; those that are not listed take the defaults."""
    status_header: str | None = None
    """Record header of a reply that holds its HTTP status."""
    reply_headers: dict[str, str] = {}
    """Response field → record header of the reply that it is taken from."""
    forward_headers: list[str] = []
    """Fields of the client's request that go along as record headers of the same (lower-case) name."""
