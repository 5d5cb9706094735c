"""Every error that a client or an endpoint can meet.

    GatewayError            has a Kind and a detail fit for the client
    ├─ RequestRefused       the client's side: its request is not acceptable
    └─ CallFailed           a service's side: it was asked, or was to be asked, and gave no usable answer
    ConfigError             the operator's side: see castlegate.config.report

One table says for each kind what status it has, and whether trying again later can help. What a client may safely
repeat is said by the outcome, not by the status.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple


class Outcome(StrEnum):
    """What became of the request towards the service."""

    NOT_SENT = "not_sent"  # nothing of it left: safe to repeat
    UNKNOWN = "unknown"  # it left, or may have: the service may have acted
    ANSWERED = "answered"  # the service answered


class Kind(NamedTuple):
    """A kind of error: its name in metrics and problem types, its HTTP status, its title."""

    name: str
    status: int
    title: str
    retry_after: int | None = None  # seconds


class Kinds:
    """The table of kinds."""

    # The client's side.
    BAD_REQUEST = Kind("bad_request", 400, "Bad request")
    FRAMING = Kind("framing", 400, "Ambiguous or malformed message")
    UNAUTHORIZED = Kind("unauthorized", 401, "Who you are must be said")
    FORBIDDEN = Kind("forbidden", 403, "Not allowed")
    BAD_PATH = Kind("bad_path", 400, "Path not acceptable")
    BAD_INPUT = Kind("bad_input", 400, "Input missing or malformed")
    INVALID = Kind("invalid", 400, "Request does not have the shape that is asked for")
    NOT_FOUND = Kind("not_found", 404, "No such route")
    METHOD_NOT_ALLOWED = Kind("method_not_allowed", 405, "Method not allowed")
    REQUEST_TIMEOUT = Kind("request_timeout", 408, "Request not received in time")
    BODY_TOO_LARGE = Kind("body_too_large", 413, "Content too large")
    UNSUPPORTED_MEDIA = Kind("unsupported_media", 415, "Content of another type expected")
    URI_TOO_LONG = Kind("uri_too_long", 414, "URI too long")
    TOKEN_REFUSED = Kind("token_refused", 400, "Token not accepted")
    EXPECTATION = Kind("expectation", 417, "Expectation failed")
    HEADERS_TOO_LARGE = Kind("headers_too_large", 431, "Header fields too large")
    SLOW_CLIENT = Kind("slow_client", 499, "Client too slow for its stream")
    CLIENT_GONE = Kind("client_gone", 499, "Client closed the connection")
    METHOD_UNKNOWN = Kind("method_unknown", 501, "Method not implemented")
    HTTP_VERSION = Kind("http_version", 505, "HTTP version not supported")
    LIMITED = Kind("limited", 429, "Too many requests", 1)
    CROWDED = Kind("crowded", 503, "Too many requests at once", 1)
    # Ours.
    INTERNAL = Kind("internal", 500, "Internal error")
    OVERLOADED = Kind("overloaded", 503, "Gateway overloaded", 1)
    DRAINING = Kind("draining", 503, "Gateway shutting down", 1)
    UNCOUNTED = Kind("uncounted", 503, "Limits cannot be checked now", 1)
    UNVERIFIABLE = Kind("unverifiable", 503, "Credentials cannot be verified now", 5)
    NOT_KEPT = Kind("not_kept", 503, "Tokens cannot be issued now", 5)
    # The service's side.
    CONNECT = Kind("connect", 502, "Service not reachable")
    CERTIFICATE = Kind("certificate", 502, "Service's certificate not valid")
    TLS = Kind("tls", 502, "No TLS connection to the service")
    NO_ANSWER = Kind("no_answer", 502, "Service closed the connection without an answer")
    RESET = Kind("reset", 502, "Service broke off")
    BAD_ANSWER = Kind("bad_answer", 502, "Service gave no valid answer")
    SERVICE_ERROR = Kind("service_error", 500, "Service error")  # status of its own
    NO_INSTANCE = Kind("no_instance", 503, "Service has no instances", 5)
    CONNECT_TIMEOUT = Kind("connect_timeout", 504, "Service not reachable in time")
    TIMEOUT = Kind("timeout", 504, "Service did not answer in time")
    BEHIND = Kind("behind", 503, "Service is behind", 1)
    BREAKER_OPEN = Kind("breaker_open", 503, "Service is left alone for a while", 1)
    SATURATED = Kind("saturated", 503, "Service has enough to do", 1)
    POOL_EXHAUSTED = Kind("pool_exhausted", 503, "Service busy", 1)
    PENDING_FULL = Kind("pending_full", 503, "Too many requests waiting for replies", 1)
    QUEUE_FULL = Kind("queue_full", 503, "Too many messages waiting to be sent", 1)
    BROKER_UNAVAILABLE = Kind("broker_unavailable", 503, "Message broker not available", 2)
    TOPIC_MISSING = Kind("topic_missing", 503, "Service's topic does not exist", 5)
    NOT_PERMITTED = Kind("not_permitted", 503, "Gateway may not reach the service", 5)
    RECORD_TOO_LARGE = Kind("record_too_large", 413, "Content too large for the message broker")
    FUNCTION_FAILED = Kind("function_failed", 500, "Internal error")
    FUNCTION_BUSY = Kind("function_busy", 503, "Too many calls at once", 1)
    INCOMPLETE = Kind("incomplete", 502, "Too few services gave a usable answer")
    NOT_STORED = Kind("not_stored", 503, "Message not acknowledged", 1)


_NONE: Mapping[str, object] = {}


class GatewayError(Exception):
    """Base of all; `detail` is shown to the client, so it names no address and no internal."""

    def __init__(
        self,
        kind: Kind,
        detail: str = "",
        *,
        status: int | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        members: Mapping[str, object] = _NONE,
    ) -> None:
        super().__init__(detail or kind.title)
        self.kind = kind
        self.detail = detail
        self.status = kind.status if status is None else status
        self.headers = headers
        self.members = members  # more of the problem document (RFC 9457 §3.2)

    @property
    def outcome(self) -> Outcome | None:
        """None where no service was to be asked."""
        return None


class RequestRefused(GatewayError):
    """The client's request is not acceptable."""


class CallFailed(GatewayError):
    """A call of a service that gave no usable answer; `outcome` says whether it may have been executed."""

    def __init__(
        self,
        kind: Kind,
        outcome: Outcome,
        detail: str = "",
        *,
        status: int | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        members: Mapping[str, object] = _NONE,
    ) -> None:
        super().__init__(kind, detail, status=status, headers=headers, members=members)
        self._outcome = outcome

    @property
    def outcome(self) -> Outcome:
        """Whether the service may have seen it."""
        return self._outcome
