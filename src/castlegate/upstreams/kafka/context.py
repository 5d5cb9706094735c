"""What every record carries besides its dialect's own headers: trace, request id, deadline, and chosen client fields.

A client cannot set any of these: they are written after whatever is forwarded, and readers take the last of a name.
"""

from __future__ import annotations

import time

from castlegate.message import Call
from castlegate.upstreams.kafka.dialects.dialect import SentHeaders

TRACEPARENT = "traceparent"  # W3C trace context, as ASCII bytes
TRACESTATE = "tracestate"
REQUEST_ID = "x-request-id"
DEADLINE = "x-deadline-ms"  # milliseconds since 1970 as decimal text; after it nobody waits for the answer
NAMES = frozenset({TRACEPARENT, TRACESTATE, REQUEST_ID, DEADLINE})


class Forwarding:
    """Fields of a client's request that go along as record headers."""

    __slots__ = ("_names",)

    def __init__(self, names: list[str]) -> None:
        lower = [name.lower() for name in names]
        self._names = [(name.encode("ascii"), name) for name in dict.fromkeys(lower) if name not in NAMES]

    def __bool__(self) -> bool:
        return bool(self._names)

    def of(self, call: Call) -> SentHeaders:
        """The fields that the request has."""
        fields = call.request.headers
        return [(name, as_utf8(value)) for field, name in self._names if (value := fields.get(field)) is not None]


def said_by_endpoint(call: Call) -> SentHeaders:
    """The headers that come with the call."""
    return [(name.decode("latin-1"), as_utf8(value)) for name, value in call.headers.pairs()]


def add_context(headers: SentHeaders, call: Call, now: float, deadline: float) -> None:
    """Trace, request id and deadline; `now` and `deadline` are loop time."""
    request = call.request
    trace = request.trace
    headers.append((TRACEPARENT, trace.traceparent))
    headers.append((REQUEST_ID, request.id))
    headers.append((DEADLINE, b"%d" % ((time.time() + deadline - now) * 1000)))
    if trace.state is not None and trace.state.isascii():
        headers.append((TRACESTATE, trace.state))


def as_utf8(value: bytes) -> bytes:
    """A field's value as most services read it; what is not UTF-8 is taken for Latin-1 (RFC 9110 §5.5)."""
    if value.isascii():
        return value
    try:
        value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1").encode()
    return value
