"""What operators say about the message broker and the services behind it."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

import msgspec

from castlegate.config.addresses import parse_address
from castlegate.config.fields import ends_at_gateway
from castlegate.config.report import Place
from castlegate.config.units import Count, Seconds, Size, TemplateText, write_seconds
from castlegate.message import ReplyMode
from castlegate.upstreams.kafka.client import Clients
from castlegate.upstreams.kafka.context import NAMES as CONTEXT_NAMES
from castlegate.upstreams.kafka.refusals import refused_settings, refused_together
from castlegate.wire.fields import HOP_BY_HOP

EMBEDDED = "127.0.0.1:9092"  # where the embedded broker listens

DialectName = Literal["nest", "spring", "faststream", "zilla", "plain"]

_NEVER_TO_ZILLA = ("content-length", "prefer")  # Zilla keeps them to itself

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_FIELD_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Fields of a response that the gateway writes itself, and those of one hop (RFC 9110 §7.6.1).
_OWN_FIELDS = {name.decode() for name in HOP_BY_HOP} | {"content-length", "date"}


def check_topic(name: str, at: Place) -> None:
    """Report a name that Kafka would not take for a topic."""
    if not _TOPIC.fullmatch(name) or name in (".", ".."):
        rule = "a topic's name has 1 to 249 letters, digits, '.', '_' and '-'"
        at.mistake(f"{rule}, found {at.shown(name)}")


class OwnedTopics(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The topics that belong to the gateway: its inbox."""

    create: bool = True
    """Create them where they are missing and the broker allows it."""
    partitions: Count = 8
    """Of the inbox topic for dialects whose requests name a reply partition."""
    single: Count = 4
    """Number of one-partition inbox topics for dialects that cannot name a partition."""
    replication: Annotated[int, msgspec.Meta(ge=-1, le=32767)] = -1
    """Replication factor; -1 takes the broker's default."""
    retention: Seconds = 3600.0
    """How long the broker keeps replies."""


class Streams(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Bounds on replies of several values (`reply: all` and `reply: stream`) and on answers of several (`gather`)."""

    most: Count = 1000
    """Such replies under way at once; one more is answered 503. With `queue` it bounds the memory that they take."""
    queue: Size = 1024 * 1024
    """Values that wait for one client of a stream, in bytes. Beyond that the client is too slow and is cut: a service
    cannot be held back, since its replies come by the same topic as everyone's."""
    slow: Seconds = 10.0
    """How long values may wait without the client taking any; then it is cut."""
    idle: Seconds = 30.0
    """Between two values of a stream; then it is cut. The first one has the route's `timeout`."""
    collected: Size = 10 * 1024 * 1024
    """Bytes of the array of `reply: all`, and of what is gathered; more are answered 502."""


class Kafka(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The Kafka cluster. Needed as soon as a service or an event goes through it.

    A plain address stands for `bootstrap` alone.
    """

    short: ClassVar[str] = "bootstrap"

    bootstrap: str
    """`host:port[,host:port...]`, or `embedded` for the in-memory broker meant for development."""
    librdkafka: dict[str, str | int | float | bool] = {}
    """Any client setting of librdkafka by its own name, such as `security.protocol` or `sasl.password`. Files are
    relative to the working directory."""
    inbox: str = "castlegate.replies"
    """Name of the inbox topic; the one-partition inboxes are called `NAME.0`, `NAME.1` and so on."""
    topics: OwnedTopics = OwnedTopics()
    """How the inbox topics are made."""
    max_pending: Count = 10_000
    """Requests that may wait for replies at once; one more is answered 503."""
    max_queued: Count = 20_000
    """Records that may wait in the producer; one more is answered 503."""
    max_record: Size = 1_000_000
    """Largest record sent; a larger one is answered 413. The broker's and the topic's own limits must allow it."""
    streams: Streams = Streams()
    """Bounds on replies of several values."""
    linger_above: Annotated[int, msgspec.Meta(ge=0)] = 8
    """With more requests than this waiting for replies, records are batched for a millisecond."""

    def check(self, at: Place) -> None:
        """The addresses, the inbox's name and whose settings are whose."""
        place = at.field("bootstrap")
        for address in self.bootstrap.split(","):
            if self.bootstrap == "embedded":
                break
            try:
                parse_address(address.strip())
            except ValueError:
                place.mistake(f"expected host:port[,host:port...] or 'embedded', found {place.shown(self.bootstrap)}")
                break
        check_topic(self.inbox, at.field("inbox"))
        self._check_librdkafka(at.field("librdkafka"))
        if self.topics.replication == 0:
            at.field("topics", "replication").mistake("expected -1 for the broker's default, or 1 and more, found 0")

    def _check_librdkafka(self, at: Place) -> None:
        """Ask librdkafka itself, which needs no broker for that."""
        if not self.librdkafka:
            return
        refused = refused_settings(self.librdkafka)
        for name, reason in refused.items():
            place = at.field(name)
            place.mistake(reason.partition(":")[0] if place.path in at.report.written else reason)
        if not refused and (reason := refused_together(Clients(self, client_id="check", longest_timeout=10).offline())):
            at.mistake(reason)


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

    def in_use(self) -> list[tuple[str, str]]:
        """Which is called what."""
        names = [(field, getattr(self, field)) for field in ("correlation", "reply_topic", "reply_partition", "error")]
        return [(field, name) for field, name in names if name is not None]

    def check(self, at: Place) -> None:
        """Names that are free and differ."""
        taken = dict.fromkeys(CONTEXT_NAMES, "the gateway writes a header of this name itself")
        for field, name in self.in_use():
            if not name or not name.isprintable():
                at.field(field).mistake(f"expected the name of a record header, found {at.field(field).shown(name)}")
            elif name in taken:
                at.field(field).mistake(taken[name])
            elif field != "error":  # requests carry no error
                taken[name] = f"'{field}' has this name too"


class KafkaOperation(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One operation of a Kafka service, where the defaults do not fit."""

    topic: str | None = None
    """Topic of its requests; else `service.operation`."""
    key: TemplateText | None = None
    """Record key (a template such as `{body.id}`), unless the route says one."""
    timeout: Seconds | None = None
    """For routes that say none."""
    replies: str | None = None
    """A fixed topic that the service answers on whatever the request says."""
    reply: ReplyMode | None = None
    """What is made of several values (NestJS's observables), for routes that say nothing; see `reply` of a route."""
    type_id: str | None = None
    """Value of the header `__TypeId__`: the Java class that a Spring listener with a JSON deserializer expects."""

    def check(self, at: Place) -> None:
        """The topics' names."""
        for name in ("topic", "replies"):
            topic = getattr(self, name)
            if topic is not None:
                check_topic(topic, at.field(name))
        if self.type_id is not None and not (self.type_id and self.type_id.isprintable()):
            place = at.field("type_id")
            place.mistake(f"expected the name of a class, found {place.shown(self.type_id)}")


class GroupSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The consumer group that a service reads its requests with. Each worker looks at its lag in the background; where
    a request would wait for longer than its timeout, it is refused at once (503, not sent). The group's name stands for
    `group` alone.
    """

    short: ClassVar[str] = "group"

    group: str
    """Its name."""
    every: Seconds = 5.0
    """Between two looks."""
    horizon: Seconds = 20.0
    """How far it is looked back: longer than the service takes between two commits of what it has read."""

    def check(self, at: Place) -> None:
        """The times."""
        if not self.group:
            at.field("group").mistake("expected the name of a consumer group, found nothing")
        if self.horizon < 2 * self.every:
            at.field("horizon").mistake(f"expected at least {write_seconds(2 * self.every)}, twice as long as 'every'")


def check_reply_mode(mode: ReplyMode, service: KafkaService, at: Place) -> None:
    """Report a mode for services that never answer with several values."""
    if mode != "last" and service.dialect != "nest":
        at.mistake(
            f"only services of the dialect 'nest' answer with several values, this one is '{service.dialect}'; "
            "leave it out"
        )


class KafkaService(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A service behind Kafka. The name of a dialect stands for `dialect` alone."""

    short: ClassVar[str] = "dialect"

    dialect: DialectName
    """How it writes request-reply on Kafka: `nest` (NestJS), `spring` (spring-kafka), `faststream`, `zilla` (Zilla's
    http-kafka binding), or `plain` with configurable headers."""
    names: HeaderNames = HeaderNames()
    """Header names of the `plain` dialect."""
    group: GroupSettings | None = None
    """The consumer group that it reads its requests with: refuses what would only wait."""
    operations: dict[str, KafkaOperation] = {}
    """Operations by name; those that are not listed take the defaults."""
    error_header: str | None = None
    """Record header whose presence on a reply of a `spring` service says that it failed; its value is the reason."""
    status_header: str | None = None
    """Record header of a reply that holds its HTTP status."""
    reply_headers: dict[str, str] = {}
    """Response field → record header of the reply that it is taken from."""
    forward_headers: list[str] = []
    """Fields of the client's request that go along as record headers of the same (lower-case) name."""

    def check(self, at: Place) -> None:
        """Names of operations and of headers."""
        self._check_dialect(at)
        for operation in self.operations:
            if not _TOPIC.fullmatch(operation):
                at.field("operations", operation).mistake("an operation's name has letters, digits, '.', '_' and '-'")
        for name in self.reply_headers:
            if not _FIELD_NAME.fullmatch(name):
                at.field("reply_headers", name).mistake("not a name of a header field")
            elif name.lower() in _OWN_FIELDS:
                at.field("reply_headers", name).mistake("this field is the gateway's own to write")
        for index, name in enumerate(self.forward_headers):
            if not _FIELD_NAME.fullmatch(name):
                place = at.field("forward_headers", index)
                place.mistake(f"expected the name of a header field, found {place.shown(name)}")
            elif ends_at_gateway(name) and name.lower() not in CONTEXT_NAMES:
                at.field("forward_headers", index).mistake(
                    "the gateway reads this field itself and does not pass it on"
                )

    def _check_dialect(self, at: Place) -> None:
        """What only some dialects have."""
        dialect = self.dialect
        if dialect != "plain" and self.names != HeaderNames():
            at.field("names").mistake(f"only the dialect 'plain' has names to choose, this one is '{dialect}'")
        if dialect != "spring" and self.error_header is not None:
            hint = "; say it as 'error' of 'names'" if dialect == "plain" else ""
            at.field("error_header").mistake(f"this is for the dialect 'spring', this one is '{dialect}'{hint}")
        if dialect == "zilla":
            for field in ("status_header", "reply_headers"):
                if getattr(self, field):
                    at.field(field).mistake("a reply of the dialect 'zilla' says status and fields itself")
            for index, name in enumerate(self.forward_headers):
                if name.lower() in _NEVER_TO_ZILLA:
                    at.field("forward_headers", index).mistake(f"Zilla's binding does not send '{name}' along")
        for name, operation in self.operations.items():
            place = at.field("operations", name)
            if operation.type_id is not None and dialect != "spring":
                place.field("type_id").mistake(f"this is for the dialect 'spring', this one is '{dialect}'")
            if operation.reply is not None:
                check_reply_mode(operation.reply, self, place.field("reply"))
