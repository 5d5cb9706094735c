"""W3C trace context and request ids: continued if well formed, else made anew.

https://www.w3.org/TR/trace-context/ - a version later than 00 is read by its first four fields; `ff` is invalid.
"""

from __future__ import annotations

import os
import re

_TRACEPARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")


class Ids:
    """Random hexadecimal ids, drawn from the system in blocks: one system call for many requests.

    An id of 16 digits is all zero, which W3C forbids, once in 2^64.
    """

    __slots__ = ("_at", "_block")

    BLOCK = 4096  # bytes of entropy drawn at once

    def __init__(self) -> None:
        self._block = b""
        self._at = 0

    def take(self, digits: int) -> bytes:
        """So many hexadecimal digits."""
        at = self._at
        end = self._at = at + digits
        if end > len(self._block):
            self._block = os.urandom(self.BLOCK).hex().encode()
            at, end = 0, digits
            self._at = digits
        return self._block[at:end]

    def fresh(self) -> tuple[bytes, Trace]:
        """The id of a request that brings none, and a trace, sampled."""
        new = self.take(80)
        return new[:32], Trace(b"00-%b-%b-01" % (new[32:64], new[64:]), None)


class Trace:
    """The trace a request belongs to and our own span in it."""

    __slots__ = ("state", "traceparent")

    def __init__(self, traceparent: bytes, state: bytes | None) -> None:
        self.traceparent = traceparent  # the field for the services behind us; names our span
        self.state = state  # tracestate, passed on as it came


def continue_trace(traceparent: bytes | None, tracestate: bytes | None, ids: Ids) -> Trace:
    """The caller's trace if its field is well formed, else a new one, sampled."""
    if traceparent is not None:
        match = _TRACEPARENT.fullmatch(traceparent)
        if match is not None and (match[1] != b"00" or match[4] is None):
            ours = b"00-%b-%b-%b" % (match[2], ids.take(16), match[3])
            return Trace(ours, tracestate)
    new = ids.take(48)
    return Trace(b"00-%b-%b-01" % (new[:32], new[32:]), None)


def acceptable_request_id(value: bytes | None) -> bytes | None:
    """A client's request id if it is safe to keep: at most 128 characters that mean nothing to a log or a header."""
    if value is None or _REQUEST_ID.fullmatch(value) is None:
        return None
    return value
