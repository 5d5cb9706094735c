"""NestJS microservices on Kafka (@nestjs/microservices 12, kafkajs).

A value that starts with `{` or `[` is JSON both ways, any other is text: 42 arrives as "42". The correlation id must
not look like JSON or start with a zero byte; ours is hexadecimal. The partition to answer to is decimal text, since
NestJS reads it with `parseFloat`.

Replies: `kafka_nest-err` is an error, whatever else there is; `kafka_nest-is-disposed` marks the last record, by being
there. A record without it is one value of an observable; a null value on a disposed record is the plain end of one, or
a handler that returned nothing.
"""

from __future__ import annotations

from castlegate.message import Call
from castlegate.upstreams.kafka.dialects.dialect import Answer, End, ReceivedHeaders, Record, ReplyAddress, Value
from castlegate.upstreams.kafka.dialects.replies import (
    JSON,
    ReplyMaker,
    check_json,
    looks_like_json,
    service_error,
    text_or_bytes,
)
from castlegate.upstreams.kafka.settings import KafkaService

CORRELATION = "kafka_correlationId"
REPLY_TOPIC = "kafka_replyTopic"
REPLY_PARTITION = "kafka_replyPartition"
ERROR = "kafka_nest-err"
DISPOSED = "kafka_nest-is-disposed"


class Nest:
    """One operation (`@MessagePattern`) of a NestJS service."""

    __slots__ = ("_address", "_make", "_partition", "_topic")

    correlation = CORRELATION
    partitioned = True

    def __init__(self, settings: KafkaService) -> None:
        self._make = ReplyMaker(settings)
        self._address: ReplyAddress | None = None
        self._topic = (REPLY_TOPIC, b"")
        self._partition: tuple[str, bytes] | None = None

    def encode(self, call: Call, reply_to: ReplyAddress, correlation_id: bytes) -> Record:
        """JSON or text as it is; an empty value would arrive as "", so nothing is `{}`."""
        if reply_to is not self._address:
            self._prepare(reply_to)
        assert isinstance(call.body, bytes)
        if self._partition is None:
            return Record([self._topic, (CORRELATION, correlation_id)], call.body or b"{}")
        return Record([self._topic, self._partition, (CORRELATION, correlation_id)], call.body or b"{}")

    def decode(self, headers: ReceivedHeaders, value: bytes | None) -> Answer:
        """Error, value of an observable, last value or end."""
        error = headers.get(ERROR)
        if error is not None:
            raise service_error(error, self._make.error_status(headers))
        last = DISPOSED in headers
        if value is None:
            nothing = self._make.reply(headers, 204, None, b"")
            return End(nothing) if last else Value(nothing, last=False)
        if looks_like_json(value):
            check_json(value)
            return Value(self._make.reply(headers, 200, JSON, value), last=last)
        return Value(self._make.reply(headers, 200, text_or_bytes(value), value), last=last)

    def _prepare(self, reply_to: ReplyAddress) -> None:
        self._address = reply_to
        self._topic = (REPLY_TOPIC, reply_to.topic.encode())
        self._partition = None if reply_to.partition is None else (REPLY_PARTITION, b"%d" % reply_to.partition)
