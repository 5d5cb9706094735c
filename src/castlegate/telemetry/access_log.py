"""One line of JSON for each request, encoded where it ends and written off the loop."""

from __future__ import annotations

import re
import time
from functools import lru_cache
from typing import Protocol
from urllib.parse import unquote_plus

import msgspec

from castlegate.errors import GatewayError
from castlegate.telemetry.log_writer import MAX_BUFFERED, LogWriter
from castlegate.telemetry.metrics import Counter
from castlegate.telemetry.trace import Trace

_NAMES = re.compile(r"[\[\].]+")  # `user[token]` and `user.token` name a token too


# One template instead of an encoder: half of it never needs escaping.
_LINE = (
    b'{"time":"%b.%03dZ","id":"%b","trace":"%b","client":"%b","method":"%b","host":"%b","path":%b,"query":%b,'
    b'"route":%b,"status":%d,"error":"%b","outcome":"%b","bytes_in":%d,"bytes_out":%d,"ms":%.3f,"agent":%b%b}\n'
)


_nothing_to_escape = re.compile(rb"[ !#-\[\]-~]*").fullmatch


def json_text(value: bytes) -> bytes:
    """A JSON string of ISO-8859-1."""
    if _nothing_to_escape(value):
        return b'"%b"' % value
    return msgspec.json.encode(value.decode("latin-1"))


class Asked(Protocol):
    """What is told of a request. The edge has seen to it that only path and query may need to be escaped."""

    id: bytes
    method: bytes
    host: bytes
    path: bytes
    query: bytes

    @property
    def trace(self) -> Trace:
        """The one it belongs to."""


class Client(Protocol):
    """What is told of the client."""

    log_client: bytes
    log_agent: bytes
    """JSON already."""


class Named(Protocol):
    """What is told of the route."""

    json_name: bytes


class Caller(Protocol):
    """Who is known to have asked: members `principal` and `auth` of the line, absent where nobody is."""

    @property
    def subject(self) -> str:
        """Whom the credentials are about."""

    @property
    def scheme(self) -> str:
        """How they were verified."""


class Record(Protocol):
    """A request that has ended."""

    status: int
    sent: int
    """Bytes of the answer."""
    error: GatewayError | None

    @property
    def request(self) -> Asked:
        """It."""

    @property
    def fields(self) -> Client:
        """What the client said and where it is."""

    @property
    def route(self) -> Named:
        """What it counted as."""


class AccessLog:
    """Where lines go: standard output or a file."""

    @classmethod
    def open(cls, path: str, redact: list[str], dropped: Counter, before: AccessLog | None = None) -> AccessLog | None:
        """The log that the configuration names, if it names one. The same path as `before` has keeps its writer."""
        if path == "off":
            return None
        return cls(
            before.writer if before is not None and before.writer.path == path else LogWriter(path, dropped), redact
        )

    def __init__(self, writer: LogWriter, redact: list[str]) -> None:
        self.writer = writer
        self._secret = frozenset(name.lower() for name in redact)
        self._is_secret = lru_cache(1024)(self._names_a_secret)  # bounded with them: names are part of a bounded target
        self._second = 0
        self._stamp = b""

    def write(self, record: Record, bytes_in: int, seconds: float, caller: Caller | None) -> None:
        """Log a request soon."""
        writer = self.writer
        lines = writer.lines
        if len(lines) >= MAX_BUFFERED:
            writer.dropped.value += 1
            return
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        request, fields, error = record.request, record.fields, record.error
        query = request.query
        lines.append(_LINE % (
            self._stamp, int((now - second) * 1000), request.id, request.trace.traceparent[3:35], fields.log_client,
            request.method, request.host, json_text(request.path), self._redacted(query) if query else b'""',
            record.route.json_name, record.status,
            b"" if error is None else error.kind.name.encode(),
            b"" if error is None or error.outcome is None else error.outcome.value.encode(),
            bytes_in, record.sent, seconds * 1000, fields.log_agent, b"" if caller is None else _said_of(caller),
        ))  # fmt: skip

    def _redacted(self, query: bytes) -> bytes:
        """A query as JSON, with the values of sensitive names replaced."""
        pairs = query.split(b"&")
        for index, pair in enumerate(pairs):
            name, equals, _ = pair.partition(b"=")
            if equals and self._is_secret(name):
                pairs[index] = name + b"=[redacted]"
            elif b";" in pair:
                pairs[index] = self._redacted_behind(pair)
        return json_text(b"&".join(pairs))

    def _redacted_behind(self, pair: bytes) -> bytes:
        """A pair that some read as several, with semicolons between (HTML 4.01, B.2.2)."""
        said = pair.split(b";")
        for index, each in enumerate(said):
            name, equals, _ = each.partition(b"=")
            if equals and self._is_secret(name):
                return b";".join([*said[:index], name + b"=[redacted]"])
        return pair

    def _names_a_secret(self, name: bytes) -> bool:
        return not self._secret.isdisjoint(_NAMES.split(unquote_plus(name.decode("latin-1")).lower()))


def _said_of(caller: Caller) -> bytes:
    encode = msgspec.json.encode
    return b',"principal":%b,"auth":%b' % (encode(caller.subject), encode(caller.scheme))
