"""Spring listeners on Kafka (spring-kafka 3, `@KafkaListener` with `@SendTo`).

The header names are NestJS's, their encodings are not: the correlation id is any bytes, echoed unchanged, and the
partition to answer to a big-endian int of 4 bytes (`ByteBuffer.getInt`). No request says `spring_json_header_types`:
a listener fails whose correlation id is declared as text there.

Replies: a header of a name that the service's settings tell is a failure with its value as the reason. A value that
starts with `{` or `[` is JSON, and so is text in quotes if it reads as that, since Spring's JSON serializer writes text
so; other UTF-8 is text, the rest bytes. Type headers (`__TypeId__`) are for Java and ignored. A null or empty value
says "nothing": 204. A listener that returns null or nothing, or throws, answers nothing: a caller sees a timeout.
"""

from __future__ import annotations

from castlegate.errors import CallFailed
from castlegate.message import Call
from castlegate.upstreams.kafka.dialects.dialect import (
    Answer,
    ReceivedHeaders,
    Record,
    ReplyAddress,
    SentHeaders,
    Value,
)
from castlegate.upstreams.kafka.dialects.replies import (
    JSON,
    ReplyMaker,
    check_json,
    looks_like_json,
    service_error,
    text_or_bytes,
)
from castlegate.upstreams.kafka.settings import KafkaOperation, KafkaService

CORRELATION = "kafka_correlationId"
REPLY_TOPIC = "kafka_replyTopic"
REPLY_PARTITION = "kafka_replyPartition"
TYPE_ID = "__TypeId__"


class Spring:
    """One operation (`@KafkaListener`) of a Spring service."""

    __slots__ = ("_address", "_error", "_fixed", "_make", "_type")

    correlation = CORRELATION
    partitioned = True

    def __init__(self, settings: KafkaService, operation: KafkaOperation) -> None:
        self._error = settings.error_header
        self._make = ReplyMaker(settings)
        type_id = operation.type_id
        self._type: SentHeaders = [] if type_id is None else [(TYPE_ID, type_id.encode())]
        self._address: ReplyAddress | None = None
        self._fixed: SentHeaders = []  # the same for all requests while the address is

    def encode(self, call: Call, reply_to: ReplyAddress, correlation_id: bytes) -> Record:
        """The body as it is; JSON deserializers take no empty one, so nothing is `{}`."""
        if reply_to is not self._address:
            self._prepare(reply_to)
        assert isinstance(call.body, bytes)
        return Record([*self._fixed, (CORRELATION, correlation_id)], call.body or b"{}")

    def decode(self, headers: ReceivedHeaders, value: bytes | None) -> Answer:
        """Error, nothing, or a body."""
        if self._error is not None and self._error in headers:
            raise service_error(headers[self._error] or b"", self._make.error_status(headers))
        if not value:
            return Value(self._make.reply(headers, 204, None, b""))
        if looks_like_json(value):
            check_json(value)
            return Value(self._make.reply(headers, 200, JSON, value))
        kind = JSON if _is_quoted(value) else text_or_bytes(value)
        return Value(self._make.reply(headers, 200, kind, value))

    def _prepare(self, reply_to: ReplyAddress) -> None:
        self._address = reply_to
        self._fixed = [*self._type, (REPLY_TOPIC, reply_to.topic.encode())]
        if reply_to.partition is not None:
            self._fixed.append((REPLY_PARTITION, reply_to.partition.to_bytes(4, "big")))


def _is_quoted(value: bytes) -> bool:
    if not (value[:1] == value[-1:] == b'"'):
        return False
    try:
        check_json(value)
    except CallFailed:
        return False
    return True
