"""FastStream services on Kafka (0.7).

A service answers to the topic in `reply_to`, on no partition of our choosing, with `content-type` and
`correlation_id`; a handler that fails answers nothing, so all a caller sees is a timeout. Its parser decodes every
header of a request as UTF-8 and gives up on one that is not: whoever adds headers sees to that.

Replies: `application/json` is JSON, `text/plain` text, an empty type bytes, and with an empty value nothing. It never
sends a null value.
"""

from __future__ import annotations

from castlegate.message import Call
from castlegate.upstreams.kafka.dialects.dialect import (
    Answer,
    ReceivedHeaders,
    Record,
    ReplyAddress,
    Value,
    is_made_by_gateway,
)
from castlegate.upstreams.kafka.dialects.replies import BYTES, JSON, TEXT, ReplyMaker, bad_answer, check_json, is_utf8
from castlegate.upstreams.kafka.settings import KafkaService

CORRELATION = "correlation_id"
REPLY_TOPIC = "reply_to"
CONTENT_TYPE = "content-type"

_SENT_JSON = (CONTENT_TYPE, b"application/json")
_SENT_TEXT = (CONTENT_TYPE, b"text/plain")


class FastStream:
    """One operation (`@broker.subscriber`) of a FastStream service."""

    __slots__ = ("_address", "_make", "_topic")

    correlation = CORRELATION
    partitioned = False

    def __init__(self, settings: KafkaService) -> None:
        self._make = ReplyMaker(settings)
        self._address: ReplyAddress | None = None
        self._topic = (REPLY_TOPIC, b"")

    def encode(self, call: Call, reply_to: ReplyAddress, correlation_id: bytes) -> Record:
        """The body with its type, where that is one FastStream knows; without a type it tries JSON, then bytes."""
        if reply_to is not self._address:
            self._address = reply_to
            self._topic = (REPLY_TOPIC, reply_to.topic.encode())
        assert isinstance(call.body, bytes)
        kind = _kind_sent(call) if call.body else _SENT_JSON
        if kind is None:
            return Record([self._topic, (CORRELATION, correlation_id)], call.body)
        return Record([self._topic, (CORRELATION, correlation_id), kind], call.body or b"{}")

    def decode(self, headers: ReceivedHeaders, value: bytes | None) -> Answer:
        """By content type."""
        if value is None:
            raise bad_answer("The service's answer has no value.")
        kind = (headers.get(CONTENT_TYPE) or b"").partition(b";")[0].strip().lower()
        make = self._make.reply
        if kind == b"application/json":
            check_json(value)
            return Value(make(headers, 200, JSON, value))
        if kind == b"text/plain":
            if not is_utf8(value):
                raise bad_answer("The service's answer is not text.")
            return Value(make(headers, 200, TEXT, value))
        if not value:
            return Value(make(headers, 204, None, b""))
        return Value(make(headers, 200, BYTES, value))


def _kind_sent(call: Call) -> tuple[str, bytes] | None:
    # What the endpoint says of a body it made goes before what the client said of its own.
    kind = call.headers.get(b"content-type")
    if kind is None:
        if is_made_by_gateway(call):
            return _SENT_JSON
        kind = call.request.headers.get(b"content-type")
        if kind is None:
            return None
    kind = kind.partition(b";")[0].strip().lower()
    if kind == b"application/json" or kind.endswith(b"+json"):
        return _SENT_JSON
    return _SENT_TEXT if kind.startswith(b"text/") else None
