"""What travels: requests and responses at the client's side, calls and replies at the services'.

Field names are lower-case bytes, values bytes as received; bodies are `bytes` when they arrived whole, else a `Body`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from castlegate.errors import GatewayError, Kinds, RequestRefused
from castlegate.waiting import Waiter

if TYPE_CHECKING:
    from castlegate.telemetry.trace import Trace

Pairs = list[tuple[bytes, bytes]]

_NO_PARAMS: dict[str, str] = {}
_UNREAD: Any = object()


class Headers:
    """Fields in the order of arrival, by lower-case name."""

    __slots__ = ("_index", "pairs")

    def __init__(self, pairs: Pairs | None = None, index: dict[bytes, bytes] | None = None) -> None:
        self.pairs: Pairs = [] if pairs is None else pairs
        self._index = index

    @property
    def index(self) -> dict[bytes, bytes]:
        """Name to last value; built when first asked for."""
        index = self._index
        if index is None:
            index = self._index = dict(self.pairs)
        return index

    def get(self, name: bytes) -> bytes | None:
        """The value; of a field that repeats, all of them joined by commas (RFC 9110 §5.3)."""
        index = self.index
        value = index.get(name)
        if value is None or len(index) == len(self.pairs):
            return value
        return b", ".join([v for n, v in self.pairs if n == name])

    def get_all(self, name: bytes) -> list[bytes]:
        """Every value of the field."""
        return [v for n, v in self.pairs if n == name]

    def add(self, name: bytes, value: bytes) -> None:
        """Append a field."""
        self.pairs.append((name, value))
        self._index = None

    def set(self, name: bytes, value: bytes) -> None:
        """Replace every field of that name by one."""
        self.remove(name)
        self.add(name, value)

    def remove(self, name: bytes) -> None:
        """Drop every field of that name."""
        if name in self.index:
            self.pairs = [pair for pair in self.pairs if pair[0] != name]
            self._index = None

    def __contains__(self, name: bytes) -> bool:
        return name in self.index


class BodySource(Protocol):
    """Who feeds a body: it is told when to hold back and when nobody wants the rest."""

    def pause_body(self) -> None:
        """Stop reading from the wire."""

    def resume_body(self) -> None:
        """Read on."""

    def drop_body(self) -> None:
        """The reader has gone; the rest is to be discarded."""


class Body:
    """A stream of chunks for one reader, with backpressure towards its source.

    Fed by its source, read by `read()`; whoever drops it before the end calls `close()`. At most `HIGH_WATER` bytes
    plus one read of the socket wait in it.
    """

    HIGH_WATER = 256 * 1024  # bytes waiting at which the source is paused; resumed below half

    __slots__ = (
        "_chunks", "_ended", "_error", "_paused", "_source", "_waiter", "_waiting",
        "length", "limit", "on_wanted", "received", "trailers",
    )  # fmt: skip

    def __init__(self, source: BodySource, length: int | None = None) -> None:
        self.length = length  # announced length, None if chunked or until close
        self.limit: int | None = None  # bytes; reading on beyond it raises 413
        self.received = 0
        self.trailers: Pairs = []
        self.on_wanted: Callable[[], None] | None = None  # called before the first wait: sends 100 Continue
        self._source = source
        self._chunks: deque[bytes] = deque()
        self._waiting = 0
        self._ended = False
        self._paused = False
        self._error: BaseException | None = None
        self._waiter: Waiter[None] | None = None

    # Source's side.

    def feed(self, chunk: bytes) -> None:
        """Append what arrived."""
        self.received += len(chunk)
        if self._error is not None:
            return
        if self.limit is not None and self.received > self.limit:
            self.fail(RequestRefused(Kinds.BODY_TOO_LARGE, f"The body is larger than {self.limit} bytes."))
            return
        self._chunks.append(chunk)
        self._waiting += len(chunk)
        if self._waiting > self.HIGH_WATER and not self._paused:
            self._paused = True
            self._source.pause_body()
        self._wake()

    def end(self, trailers: Pairs | None = None) -> None:
        """All of it has arrived."""
        if trailers:
            self.trailers = trailers
        self._ended = True
        self._wake()

    def fail(self, error: BaseException) -> None:
        """It will never be complete; `read` raises `error`, also instead of what still waits."""
        if not self._ended and self._error is None:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            waiter.settle(None)

    @property
    def paused(self) -> bool:
        """Whether the source was asked to hold back."""
        return self._paused

    # Reader's side.

    @property
    def complete(self) -> bool:
        """Whether all of it has arrived."""
        return self._ended

    async def read(self) -> bytes:
        """The next chunk; `b""` at the end. Raises what the source failed with."""
        while True:
            if self._error is not None:
                raise self._error
            if self._chunks:
                chunk = self._chunks.popleft()
                self._waiting -= len(chunk)
                if self._paused and self._waiting < self.HIGH_WATER // 2:
                    self._paused = False
                    self._source.resume_body()
                return chunk
            if self._ended:
                return b""
            if self.on_wanted is not None:
                wanted, self.on_wanted = self.on_wanted, None
                wanted()
            self._waiter = Waiter()
            await self._waiter

    async def read_all(self, limit: int) -> bytes:
        """The whole of it, at most `limit` bytes; raises `RequestRefused` (413) beyond."""
        if self.length is not None and self.length > limit:
            raise RequestRefused(Kinds.BODY_TOO_LARGE, f"The body is larger than {limit} bytes.")
        chunks: list[bytes] = []
        size = 0
        while chunk := await self.read():
            size += len(chunk)
            if size > limit:
                raise RequestRefused(Kinds.BODY_TOO_LARGE, f"The body is larger than {limit} bytes.")
            chunks.append(chunk)
        return b"".join(chunks)

    def close(self) -> None:
        """The reader wants no more of it; nothing if it was read to the end."""
        self._waiter = None
        if self._error is None and not (self._ended and not self._chunks):
            self._error = ConnectionAbortedError("body closed by its reader")
            self._chunks.clear()
            self._waiting = 0
            if self._paused:
                self._paused = False
                self._source.resume_body()
            self._source.drop_body()


class Request:
    """A client's request, from its head on; made by the edge before routing."""

    __slots__ = (
        "_json", "arrived", "body", "client",
        "forwarded", "headers", "host", "id", "method", "on_end", "params", "path", "query",
        "route", "scheme", "trace",
    )  # fmt: skip

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 - the field's name everywhere
        trace: Trace,
        client: str,
        scheme: bytes,
        host: bytes,
        method: bytes,
        path: bytes,
        query: bytes,
        headers: Headers,
        body: bytes | Body,
        arrived: float,
    ) -> None:
        self.id = id
        self.trace = trace
        self.client = client  # address, behind trusted proxies the one they vouch for
        self.scheme = scheme
        self.host = host  # as the client named it, with port
        self.method = method
        self.path = path  # normalised, percent-encoded
        self.query = query  # as received, without "?"
        self.headers = headers
        self.body = body
        self.arrived = arrived  # loop time of the head
        self.forwarded: Pairs = []  # what services are told of client and proxies: Forwarded, X-Forwarded-*, Via
        self.params = _NO_PARAMS
        self.route: Any = None
        self.on_end: list[Callable[[Ended], None]] | None = None
        self._json: Any = _UNREAD

    def json(self) -> Any:
        """The buffered body as JSON; raises `RequestRefused` (400) where it is none."""
        if self._json is _UNREAD:
            assert isinstance(self.body, bytes), "the endpoint buffers the body before it is read as JSON"
            try:
                self._json = msgspec.json.decode(self.body) if self.body else None
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise RequestRefused(Kinds.BAD_INPUT, f"The body is not valid JSON: {error}") from error
        return self._json


class Ended(msgspec.Struct, frozen=True):
    """How a request ended, told to `Request.on_end` when its last byte was written or it was cut."""

    status: int
    cut: bool


class Response:
    """The answer to a client."""

    __slots__ = ("body", "error", "headers", "status")

    def __init__(
        self,
        status: int,
        headers: Headers | None = None,
        body: bytes | Body = b"",
        error: GatewayError | None = None,
    ) -> None:
        self.status = status
        self.headers = Headers() if headers is None else headers
        self.body = body
        self.error = error  # what a problem document was made of, for log and metrics


class Call:
    """What is asked of a service, whatever protocol it speaks."""

    __slots__ = ("body", "deadline", "headers", "idempotent", "key", "method", "request", "target", "timeout")

    def __init__(
        self,
        *,
        request: Request,
        method: bytes,
        target: bytes,
        headers: Pairs,
        body: bytes | Body,
        key: bytes | None,
        deadline: float,
        timeout: float,
        idempotent: bool,
    ) -> None:
        self.request = request  # whose id, trace and client go along
        self.method = method
        self.target = target  # path and query, for services that speak HTTP
        self.headers = headers  # fields to send, hop-by-hop ones already gone
        self.body = body
        self.key = key  # of the record, for services behind Kafka
        self.deadline = (
            deadline  # loop time; inf while the client still sends, then `timeout` counts from its last byte
        )
        self.timeout = timeout
        self.idempotent = idempotent


class Reply:
    """A service's answer."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Headers, body: bytes | Body) -> None:
        self.status = status
        self.headers = headers
        self.body = body


Handler = Callable[[Request], Awaitable[Response]]
Caller = Callable[[Call], Awaitable[Reply]]


class Policy(Protocol):
    """About the client's request: who may, how often, what comes back."""

    def wrap(self, inner: Handler) -> Handler:
        """The handler with this policy around it."""


class Guard(Protocol):
    """About a call: may it be tried, again, elsewhere."""

    def wrap(self, inner: Caller) -> Caller:
        """The caller with this guard around it."""


def stack(handler: Handler, policies: Iterable[Policy]) -> Handler:
    """`handler` inside `policies`, the first of them outermost."""
    for policy in reversed(list(policies)):
        handler = policy.wrap(handler)
    return handler
