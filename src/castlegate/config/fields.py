"""Which of a client's header fields end at the gateway, in whichever spelling servers take for them.

The one list of them: the edge reads by it what it does not pass on, and nothing of the configuration can refer to them.
"""

from __future__ import annotations

import re

# Fields of one hop (RFC 9110 §7.6.1): read by the connection that they came over, never passed on.
HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)

# Those that the gateway reads itself; what services get in their place is written anew.
_READ = HOP_BY_HOP | {
    "host", "content-length", "expect", "x-request-id", "traceparent", "tracestate", "forwarded", "via",
}  # fmt: skip
_OF_PROXIES = ("x-forwarded-", "x-real-ip")  # what proxies say of the client; believed of trusted ones only

_NOT_PLAIN = re.compile(r"[^a-z0-9]")


def spelling(name: str) -> str:
    """The same for all names that a server may take for one: many hand fields to programs as variables, in which
    capitals are gone and `-`, `_`, `.` and the like are one (RFC 3875 §4.1.18).
    """
    return _NOT_PLAIN.sub("-", name.lower())


def ends_at_gateway(name: str) -> bool:
    """Whether the edge reads the field and does not pass it on."""
    plain = spelling(name)
    return plain in _READ or plain.startswith(_OF_PROXIES)
