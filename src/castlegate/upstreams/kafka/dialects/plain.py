"""Services that copy a correlation header and answer to the topic they are told, under header names of their choice.

Requests: the value is the body as it is; headers name the correlation id, the topic and, where the service can choose
one, the partition to answer to (decimal text).

Replies: the error header, where there is one, is a failure with its value as the reason (text, or JSON with `message`
and `status`). `content-type` is taken over; without it a value that starts with `{` or `[` is JSON, other UTF-8 text,
the rest bytes. A null value, or an empty one without a type, says "nothing": 204.
"""

from __future__ import annotations

from castlegate.message import Call
from castlegate.upstreams.kafka.dialects.dialect import Answer, ReceivedHeaders, Record, ReplyAddress, Value
from castlegate.upstreams.kafka.dialects.replies import (
    JSON,
    ReplyMaker,
    check_json,
    checked_field,
    is_json_type,
    looks_like_json,
    service_error,
    text_or_bytes,
)
from castlegate.upstreams.kafka.settings import KafkaService

CONTENT_TYPE = "content-type"


class Plain:
    """One operation of a service with these header names."""

    __slots__ = ("_address", "_make", "_names", "_partition", "_topic", "correlation", "partitioned")

    def __init__(self, settings: KafkaService) -> None:
        self._names = settings.names
        self.correlation = settings.names.correlation
        self.partitioned = settings.names.reply_partition is not None
        self._make = ReplyMaker(settings)
        self._address: ReplyAddress | None = None
        self._topic = (self._names.reply_topic, b"")
        self._partition: tuple[str, bytes] | None = None

    def encode(self, call: Call, reply_to: ReplyAddress, correlation_id: bytes) -> Record:
        """The body as it is."""
        if reply_to is not self._address:
            self._prepare(reply_to)
        assert isinstance(call.body, bytes)
        if self._partition is None:
            return Record([self._topic, (self.correlation, correlation_id)], call.body)
        return Record([self._topic, self._partition, (self.correlation, correlation_id)], call.body)

    def decode(self, headers: ReceivedHeaders, value: bytes | None) -> Answer:
        """Error, nothing, or a body of the type it says it is."""
        error_name = self._names.error
        if error_name is not None and error_name in headers:
            raise service_error(headers[error_name] or b"", self._make.error_status(headers))
        kind = headers.get(CONTENT_TYPE)
        if value is None or not (value or kind):
            return Value(self._make.reply(headers, 204, None, b""))
        if kind:
            if is_json_type(kind):
                check_json(value)
            return Value(self._make.reply(headers, 200, b"content-type: %b\r\n" % checked_field(kind), value))
        if looks_like_json(value):
            check_json(value)
            return Value(self._make.reply(headers, 200, JSON, value))
        return Value(self._make.reply(headers, 200, text_or_bytes(value), value))

    def _prepare(self, reply_to: ReplyAddress) -> None:
        self._address = reply_to
        self._topic = (self._names.reply_topic, reply_to.topic.encode())
        name = self._names.reply_partition
        if name is not None and reply_to.partition is not None:
            self._partition = (name, b"%d" % reply_to.partition)
        else:
            self._partition = None
