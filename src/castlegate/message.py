"""What travels: requests and responses at the client's side, calls and replies at the services'.

Field names are lower-case bytes, values bytes as received; bodies are `bytes` when they arrived whole, else a `Body`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import msgspec

from castlegate.errors import GatewayError, Kinds, RequestRefused
from castlegate.principal import Principal
from castlegate.waiting import Waiter

if TYPE_CHECKING:
    from castlegate.telemetry.trace import Trace

Pairs = list[tuple[bytes, bytes]]
ReplyMode = Literal["last", "all", "stream"]  # what is made of a reply of several values

_NO_PARAMS: dict[str, str] = {}
_UNREAD: Any = object()
_OURSELVES = b"user-agent: castlegate"  # of a request that no client made


class Headers:
    """Fields in the order of arrival. Immutable: what changes them makes new ones."""

    __slots__ = ("lines", "wire")

    def __init__(self, lines: Sequence[bytes] = ()) -> None:
        self.lines = lines  # each as it stands on the wire, name in lower case: `name: value` and CRLF
        self.wire = b"".join(lines)

    @classmethod
    def of(cls, pairs: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Of names in lower case and values."""
        return cls([b"%b: %b\r\n" % pair for pair in pairs])

    def pairs(self) -> Pairs:
        """Names and values."""
        return [(name, value[:-2]) for name, _, value in [line.partition(b": ") for line in self.lines]]

    def get(self, name: bytes) -> bytes | None:
        """The value; of a field that repeats, all of them joined by commas (RFC 9110 §5.3)."""
        start, wire = b"\n%b: " % name, b"\n" + self.wire
        begin = wire.find(start) + len(start)
        if begin < len(start):
            return None
        end = wire.index(b"\r", begin)
        return wire[begin:end] if wire.find(start, end) < 0 else b", ".join(self.get_all(name))

    def get_all(self, name: bytes) -> list[bytes]:
        """Every value of the field."""
        start = name + b": "
        return [line[len(start) : -2] for line in self.lines if line.startswith(start)]

    def adding(self, name: bytes, value: bytes) -> Headers:
        """With a field more."""
        return Headers([*self.lines, b"%b: %b\r\n" % (name, value)])

    def setting(self, name: bytes, value: bytes) -> Headers:
        """With one field in place of all of that name."""
        return self.without(name).adding(name, value)

    def without(self, *names: bytes) -> Headers:
        """Without the fields of these names."""
        starts = tuple([name + b": " for name in names])
        return Headers([line for line in self.lines if not line.startswith(starts)])

    def __contains__(self, name: bytes) -> bool:
        return b"\r\n%b: " % name in b"\r\n" + self.wire


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
    _JOINED = 4096  # bytes up to which chunks that wait are made one: an object of one byte takes forty

    __slots__ = (
        "_chunks", "_ended", "_error", "_paused", "_source", "_waiter", "_waiting",
        "length", "limit", "on_cut", "on_wanted", "received", "trailers",
    )  # fmt: skip

    def __init__(self, source: BodySource, length: int | None = None) -> None:
        self.length = length  # announced length, None if chunked or until close
        self.limit: int | None = None  # bytes; reading on beyond it raises 413
        self.received = 0
        self.trailers: Pairs = []
        self.on_wanted: Callable[[], None] | None = None  # called before the first wait: sends 100 Continue
        self.on_cut: Callable[[], None] | None = None  # wakes a reader that waits for something else than chunks
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
        chunks = self._chunks
        if chunks and len(chunk) + len(chunks[-1]) <= self._JOINED:
            chunks[-1] += chunk
        else:
            chunks.append(chunk)
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

    def cut(self, error: BaseException) -> None:
        """Have the reader give up at once, complete or not; what it has not taken is dropped."""
        if self._error is None:
            self._error = error
            self._chunks.clear()
            self._waiting = 0
            self._wake()
            if self.on_cut is not None:
                self.on_cut()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            waiter.settle(None)

    @property
    def waiting(self) -> int:
        """Bytes that the reader has not taken yet."""
        return self._waiting

    @property
    def paused(self) -> bool:
        """Whether the source was asked to hold back."""
        return self._paused

    # Reader's side.

    @property
    def complete(self) -> bool:
        """Whether all of it has arrived, and is acceptable."""
        return self._ended and self._error is None

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

    async def read_all(self, limit: int, share: Share) -> bytes:
        """The whole of it, at most `limit` bytes; raises `RequestRefused` (413) beyond, and where the budget is
        used up (503).
        """
        if self.length is not None and self.length > limit:
            raise RequestRefused(Kinds.BODY_TOO_LARGE, f"The body is larger than {limit} bytes.")
        whole = bytearray()  # a list of chunks may take many times what is in them: clients say how small they are
        while chunk := await self.read():
            if len(whole) + len(chunk) > limit:
                raise RequestRefused(Kinds.BODY_TOO_LARGE, f"The body is larger than {limit} bytes.")
            share.take(len(chunk))
            whole += chunk
        return bytes(whole)

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


class Budget:
    """Bytes of bodies that may be held in memory at once, by all requests of a worker together."""

    __slots__ = ("_size", "left")

    def __init__(self, size: int) -> None:
        self._size = self.left = size

    def resize(self, size: int) -> None:
        """What is taken stays taken."""
        self.left += size - self._size
        self._size = size


class Share:
    """What one request has taken of a budget."""

    __slots__ = ("_budget", "_taken")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._taken = 0

    def take(self, size: int) -> None:
        """Raises `RequestRefused` (503) if there is not so much left."""
        if size > self._budget.left:
            raise RequestRefused(Kinds.OVERLOADED, "Too many bodies are being collected.")
        self._budget.left -= size
        self._taken += size

    def give_back(self, _ended: Ended) -> None:
        """All of it, when the request has ended."""
        self._budget.left += self._taken
        self._taken = 0


class Request:
    """A client's request, from its head on; made by the edge before routing."""

    __slots__ = (
        "_json", "arrived", "body", "certificate", "client", "deadline", "forwarded", "headers", "host", "id", "method",
        "on_end", "params", "path", "principal", "query", "route", "scheme", "trace",
    )  # fmt: skip

    def __init__(
        self,
        id: bytes,  # noqa: A002 - the field's name everywhere
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
        self.deadline = math.inf  # loop time; set when the last byte has arrived, the route's timeout from there
        # What HTTP services are told of client and proxies: Forwarded, X-Forwarded-*, Via; never nothing.
        self.forwarded = _OURSELVES
        self.params = _NO_PARAMS
        self.route: Any = None
        self.principal: Principal | None = None  # set where the route asks who calls
        self.certificate: bytes | None = None  # the client's in DER, if it was verified
        self.on_end: list[Callable[[Ended], None]] | None = None
        self._json: Any = _UNREAD

    async def collect(self, limit: int, budget: Budget) -> None:
        """Have the whole body, at most `limit` bytes of it. Raises `RequestRefused` (413, 503)."""
        body = self.body
        if not isinstance(body, bytes):
            share = Share(budget)
            self.on_end = [*(self.on_end or ()), share.give_back]
            self.body = await body.read_all(limit, share)

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

    __slots__ = ("body", "fresh", "headers", "idempotent", "key", "method", "request", "target", "timeout", "tried")

    def __init__(
        self,
        request: Request,
        method: bytes,
        target: bytes,
        headers: Headers,
        body: bytes | Body,
        key: bytes | None,
        timeout: float,
        *,
        idempotent: bool,
    ) -> None:
        self.request = request  # whose id, trace, client and deadline go along
        self.method = method
        self.target = target  # path and query, for services that speak HTTP
        self.headers = headers  # to be sent, hop-by-hop fields already gone; not to be changed
        self.body = body
        self.key = key  # of the record, for services behind Kafka
        self.timeout = timeout  # seconds, of this call; the request's deadline bounds it too
        self.idempotent = idempotent
        self.tried: list[object] = []  # instances that it failed on
        self.fresh = False  # a connection that was used before is not good enough: one has just been closed on it

    def until(self, now: float) -> float:
        """Loop time at which it is out of time if it starts now. While the client still sends, there is no deadline
        of the request yet: the call's own timeout then counts from whenever it is asked.
        """
        own = now + self.timeout
        deadline = self.request.deadline
        return own if own < deadline else deadline  # noqa: FURB136 - half the time of min()


class Reply:
    """A service's answer."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Headers, body: bytes | Body) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def close(self) -> None:
        """Nobody takes it."""
        if not isinstance(self.body, bytes):
            self.body.close()


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


T = TypeVar("T", Handler, Caller)


class Wrapper(Protocol[T]):
    """A policy or a guard."""

    def wrap(self, inner: T) -> T:
        """See both."""


def stack(inner: T, wrappers: Iterable[Wrapper[T]]) -> T:
    """`inner` inside policies or guards, the first of them outermost."""
    for wrapper in reversed(list(wrappers)):
        inner = wrapper.wrap(inner)
    return inner
