"""What travels: requests and responses at the client's side, calls and replies at the services'.

Bodies are `bytes` when they arrived whole, else a `Body`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import msgspec

from castlegate.body import Body, Budget, Share
from castlegate.errors import GatewayError, Kinds, RequestRefused
from castlegate.headers import Headers
from castlegate.principal import Principal

if TYPE_CHECKING:
    from castlegate.telemetry.trace import Trace

ReplyMode = Literal["last", "all", "stream"]  # what is made of a reply of several values

_NOT_TRIED: Mapping[object, int] = {}
_NO_PARAMS: dict[str, str] = {}
_UNREAD: Any = object()
_OURSELVES = b"user-agent: castlegate"  # of a request that no client made


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

    __slots__ = (
        "body", "fresh", "headers", "idempotent", "instance", "key", "method", "request", "reused", "sent", "target",
        "timeout", "tried",
    )  # fmt: skip

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
        self.instance: Any = None  # the one that was asked last, of services that have instances
        self.tried: Mapping[object, int] = _NOT_TRIED  # instances that it failed on, and how often; the latest last
        self.sent = False  # something of it has left, or may have: what is given up from here on may be executed
        self.fresh = False  # a connection that was used before is not good enough: one has just been closed on it
        self.reused = True  # the connection it was sent on last had been open before: it may just have been closing

    def until(self, now: float) -> float:
        """Loop time at which it is out of time if it starts now. While the client still sends, there is no deadline
        of the request yet: the call's own timeout then counts from whenever it is asked.
        """
        own = now + self.timeout
        deadline = self.request.deadline
        return own if own < deadline else deadline  # noqa: FURB136 - half the time of min()

    def once_more(self, timeout: float) -> Call:
        """The same, to be tried on another instance while this one is under way, for at most `timeout` seconds."""
        call = Call(
            self.request, self.method, self.target, self.headers, self.body, self.key, timeout,
            idempotent=self.idempotent,
        )  # fmt: skip
        call.tried = self.tried
        call.failed_on(self.instance)
        return call

    def failed_on(self, instance: object) -> None:
        """It is not to be asked again as long as there are others."""
        tried = dict(self.tried)
        tried[instance] = tried.pop(instance, 0) + 1
        self.tried = tried


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

    async def content(self, most: int, deadline: float, now: Callable[[], float]) -> bytes | None:
        """All of its body; None if that is more than so many bytes. Raises `TimeoutError` at the first piece that comes
        after the deadline; how long each may take is bounded by whose body it is.
        """
        body = self.body
        if isinstance(body, bytes):
            return body if len(body) <= most else None
        content = b""
        try:
            while len(content) <= most and (piece := await body.read()):
                content += piece
                if now() > deadline:
                    raise TimeoutError
        finally:
            body.close()
        return content if len(content) <= most else None


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
