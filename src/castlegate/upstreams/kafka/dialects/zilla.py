"""Services written for Zilla's http-kafka binding: HTTP messages as records, heads as record headers.

Requests: `:method`, `:scheme`, `:authority` and `:path` as the client said them, where to answer, and the correlation
id. Of the client's fields Zilla sends all but `content-length` and `prefer`; here, as with every dialect, only those
that `forward_headers` lists, and the type of a body that the gateway made. Zilla's own id is an idempotency key and a
digest; services only copy it, so ours will do.

Replies: `:status` (200 if there is none), and every header without a colon in its name is a field of the response, but
for those of one hop, the body's length, and what the gateway itself puts on each record. A reply is the service's own
answer whatever its status, errors included, and goes to the client as it is. Of a header that repeats the last one
counts, so there is one `set-cookie` at most.
"""

from __future__ import annotations

import re

from castlegate.headers import Headers
from castlegate.message import Call, Reply
from castlegate.upstreams.kafka.context import NAMES as CONTEXT_NAMES
from castlegate.upstreams.kafka.context import as_utf8
from castlegate.upstreams.kafka.dialects.dialect import (
    Answer,
    ReceivedHeaders,
    Record,
    ReplyAddress,
    SentHeaders,
    Value,
    is_made_by_gateway,
)
from castlegate.upstreams.kafka.dialects.replies import (
    JSON,
    WITHOUT_BODY,
    bad_answer,
    check_json,
    checked_field,
    is_json_type,
    looks_like_json,
    status_of,
    text_or_bytes,
)
from castlegate.wire.fields import HOP_BY_HOP, without_named

CORRELATION = "zilla:correlation-id"
REPLY_TOPIC = "zilla:reply-to"
STATUS = ":status"

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Not the service's to say: of one hop, the body's length, and ours that it may have copied.
_NOT_PASSED = frozenset({*(name.decode() for name in HOP_BY_HOP), "content-length", *CONTEXT_NAMES})


class Zilla:
    """One operation of a service."""

    __slots__ = ("_address", "_topic")

    correlation = CORRELATION
    partitioned = False

    def __init__(self) -> None:
        self._address: ReplyAddress | None = None
        self._topic = (REPLY_TOPIC, b"")

    def encode(self, call: Call, reply_to: ReplyAddress, correlation_id: bytes) -> Record:
        """The request's first line as headers, the body as it is."""
        if reply_to is not self._address:
            self._address = reply_to
            self._topic = (REPLY_TOPIC, reply_to.topic.encode())
        assert isinstance(call.body, bytes)
        request = call.request
        headers: SentHeaders = [
            (":method", call.method),
            (":scheme", request.scheme),
            (":authority", as_utf8(request.host)),
            (":path", as_utf8(call.target)),
            self._topic,
            (CORRELATION, correlation_id),
        ]
        if is_made_by_gateway(call) and b"content-type" not in call.headers:
            headers.append(("content-type", b"application/json"))
        return Record(headers, call.body)

    def decode(self, headers: ReceivedHeaders, value: bytes | None) -> Answer:
        """The response that it is."""
        said = headers.get(STATUS)
        lines = _fields(headers)
        body = value or b""
        status = status_of(said) if said is not None else 200 if body else 204
        if status in WITHOUT_BODY:
            return Value(Reply(status, Headers(lines).without(b"content-type"), b""))
        fields = Headers(lines)
        kind = fields.get(b"content-type")
        if kind is None and body:
            if looks_like_json(body):
                kind = b"application/json"
                fields = Headers([*lines, JSON])
            else:
                fields = Headers([*lines, text_or_bytes(body)])
        if kind is not None and body and is_json_type(kind) and b"content-encoding" not in fields:
            check_json(body)
        return Value(Reply(status, fields, body))


def _fields(headers: ReceivedHeaders) -> list[bytes]:
    """Lines of the response's fields. Raises `CallFailed` (502) for one that is no field."""
    lines: list[bytes] = []
    connection = b""
    for name, value in headers.items():
        if ":" in name or value is None:
            continue
        if _NAME.fullmatch(name) is None:
            raise bad_answer("The service's answer has a header that cannot be a field.")
        lower = name.lower()
        if lower == "connection":
            connection = value
        if lower not in _NOT_PASSED:
            lines.append(b"%b: %b\r\n" % (lower.encode("ascii"), checked_field(value)))
    return without_named(lines, connection) if connection else lines
