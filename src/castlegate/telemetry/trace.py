"""W3C trace context and request ids: continued if well formed, else made anew.

https://www.w3.org/TR/trace-context/ - a version later than 00 is read by its first four fields; `ff` is invalid.
"""

from __future__ import annotations

import os
import re

_TRACEPARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")


class Ids:
    """Random hexadecimal ids, drawn from the system in blocks: one system call for many requests."""

    __slots__ = ("_at", "_block")

    BLOCK = 4096  # bytes of entropy drawn at once

    def __init__(self) -> None:
        self._block = ""
        self._at = 0

    def take(self, digits: int) -> str:
        """An id of so many hexadecimal digits, never all zero."""
        at = self._at
        taken = self._block[at : at + digits]
        if len(taken) < digits or taken.count("0") == digits:
            self._block = os.urandom(self.BLOCK).hex()
            self._at = 0
            return self.take(digits)
        self._at = at + digits
        return taken


class Trace:
    """The trace a request belongs to and our own span in it."""

    __slots__ = ("flags", "parent", "span_id", "state", "trace_id")

    def __init__(self, trace_id: str, span_id: str, flags: str, parent: str | None, state: bytes | None) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.flags = flags
        self.parent = parent  # span id of the caller
        self.state = state  # tracestate, passed on as it came

    @property
    def traceparent(self) -> bytes:
        """The field for the services behind us."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}".encode()


def continue_trace(traceparent: bytes | None, tracestate: bytes | None, ids: Ids) -> Trace:
    """The caller's trace if its field is well formed, else a new one, sampled."""
    if traceparent is not None:
        match = _TRACEPARENT.fullmatch(traceparent)
        if match is not None and (match[1] != b"00" or match[5] is None):
            return Trace(match[2].decode(), ids.take(16), match[4].decode(), match[3].decode(), tracestate)
    return Trace(ids.take(32), ids.take(16), "01", None, None)


def acceptable_request_id(value: bytes | None) -> str | None:
    """A client's request id if it is safe to keep: at most 128 characters that mean nothing to a log or a header."""
    if value is None or _REQUEST_ID.fullmatch(value) is None:
        return None
    return value.decode()
