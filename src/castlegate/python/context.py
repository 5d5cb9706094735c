"""What a function knows of its request, and how it calls services.

A call that a function makes is a call like any other: inside the guards of its service, with the request's identity
and trace, and with what is left of the time. When the function ends, or is given up because the time is over or the
client has gone, its calls end with it and no further one leaves.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from castlegate.body import Budget, Share
from castlegate.calls.plan import IDEMPOTENT
from castlegate.config.fields import ends_at_gateway
from castlegate.config.references import Fetch, Parts, Scope, query_parameters
from castlegate.config.report import Place, Report
from castlegate.config.templates import Sink, TextTemplate, compile_text
from castlegate.errors import CallFailed, Kinds, Outcome, RequestRefused
from castlegate.headers import Headers
from castlegate.message import Call, Caller, Reply, Request
from castlegate.principal import Principal
from castlegate.python.answers import Answer, ServiceFailed, headers_of, read_headers

if TYPE_CHECKING:
    from castlegate.wire.timer import Timer

_JSON = (b"content-type", b"application/json")
_UNSAID: Any = msgspec.UNSET
_LATE = "The time of the request is over."

_encode = msgspec.json.Encoder().encode


class Link(NamedTuple):
    """How a service is reached."""

    caller: Caller
    http: bool


class Means(NamedTuple):
    """What contexts are made with."""

    find: Callable[[str], Link]
    """Of `service` or `service.operation`; raises `LookupError`."""
    timer: Timer
    budget: Budget
    largest: int
    """Bytes of an answer that a function gets."""


class Context:
    """Of one request."""

    __slots__ = ("_asking", "_call", "_closed", "_deadline", "_loop", "_means", "_share", "_waited")

    def __init__(self, call: Call, deadline: float, means: Means, loop: asyncio.AbstractEventLoop) -> None:
        self._call = call
        self._deadline = deadline
        self._means = means
        self._loop = loop
        self._share = Share(means.budget)
        self._closed = False
        self._asking: set[asyncio.Task[Any]] = set()  # each makes a call
        self._waited: set[Future[Any]] = set()  # added to by the function's thread

    @property
    def id(self) -> str:
        """The request's, as in the access log."""
        return self._call.request.id.decode()

    @property
    def method(self) -> str:
        """Of the request."""
        return self._call.request.method.decode()

    @property
    def path(self) -> str:
        """Of the request, percent-encoded."""
        return self._call.request.path.decode("latin-1")

    @property
    def params(self) -> Mapping[str, str]:
        """The path's placeholders."""
        return self._call.request.params

    @property
    def query(self) -> Mapping[str, list[str]]:
        """The query's parameters and all their values."""
        return query_parameters(self._call.request.query)

    @property
    def headers(self) -> Mapping[str, str]:
        """The fields by their names in lower case; of one that repeats, all its values joined by commas."""
        return read_headers(self._call.headers)

    @property
    def body(self) -> bytes:
        """As it came, or as the route's `send` makes it."""
        body = self._call.body
        assert isinstance(body, bytes), "the endpoint buffers what functions get"
        return body

    @property
    def client(self) -> str:
        """The client's address."""
        return self._call.request.client

    @property
    def principal(self) -> Principal | None:
        """Who calls, if that is known."""
        return self._call.request.principal

    @property
    def left(self) -> float:
        """Seconds until nobody waits for the answer any more."""
        return 0.0 if self._closed else max(0.0, self._deadline - self._means.timer.now())

    async def call(self, service: str, send: Any = _UNSAID, *, into: Any = Any, **how: Any) -> Any:
        """Ask a service and return the data that it answers with, made `into` a type if one is said. The arguments are
        those of `ask`. Raises `ServiceFailed` for a status of 400 or more, `CallFailed` where no answer can be used.
        """
        answer = await self.ask(service, send, **how)
        if answer.status >= 400:
            raise ServiceFailed(answer)
        return answer.data(into)

    async def ask(
        self,
        service: str,
        send: Any = _UNSAID,
        *,
        get: str | None = None,
        post: str | None = None,
        put: str | None = None,
        patch: str | None = None,
        delete: str | None = None,
        values: Mapping[str, Any] | None = None,
        key: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it goes along with the call
    ) -> Answer:
        """Ask `service` or `service.operation`, and return whatever it answers.

        `send` is what it gets as JSON. An HTTP service is asked with one of `get`, `post` and so on: a path in which
        `{name}` stands for a value of `values`, encoded so that it cannot leave its place. `key` is of the record to a
        service behind Kafka. `timeout` in seconds; what is left of the request's time bounds it too.
        """
        if timeout is not None and not timeout > 0:  # which is so of what is no number, too
            raise ValueError(f"a call's timeout is more than nothing, not {timeout!r}")
        link = self._means.find(service)
        said = {"GET": get, "POST": post, "PUT": put, "PATCH": patch, "DELETE": delete}
        verbs = [(method, target) for method, target in said.items() if target is not None]
        if link.http != bool(verbs) or len(verbs) > 1:
            wanted = "one of get, post, put, patch and delete" if link.http else "no get, post or the like"
            raise TypeError(f"a call of {service!r} takes {wanted}")
        left = self.left
        if not left:
            raise CallFailed(Kinds.TIMEOUT, Outcome.NOT_SENT, _LATE)
        request = self._call.request
        method, target = request.method, request.path
        for verb, text in verbs:
            method, target = verb.encode(), _target(text).render(request, values or {})
        call = Call(
            request,
            method,
            target,
            _fields(headers or {}, with_type=link.http and send is not _UNSAID),
            b"" if send is _UNSAID else _encode(send),
            key.encode() if isinstance(key, str) else key,
            min(left, math.inf if timeout is None else timeout),
            idempotent=method in IDEMPOTENT,
        )
        task = asyncio.current_task()
        assert task is not None, "functions and what they wait for are tasks"
        self._asking.add(task)
        try:
            reply = await link.caller(call)
            return Answer(reply.status, reply.headers, await self._whole(reply))
        finally:
            self._asking.discard(task)

    def wait(self, calls: Coroutine[Any, Any, Any]) -> Any:
        """For functions that are no `async def`, which run in threads: `ctx.wait(ctx.call(...))`. Raises `RuntimeError`
        in an `async def`.
        """
        if self._in_loop():  # it would wait for itself, and all other requests with it
            if asyncio.iscoroutine(calls):
                calls.close()
            raise RuntimeError("an 'async def' does not wait like this; write 'await ctx.call(...)'")
        future = asyncio.run_coroutine_threadsafe(calls, self._loop)
        self._waited.add(future)
        try:
            if self._closed:
                future.cancel()
            return future.result()
        finally:
            self._waited.discard(future)

    async def _whole(self, reply: Reply) -> bytes:
        """Its body."""
        body = reply.body
        if isinstance(body, bytes):
            return body
        try:
            return await body.read_all(self._means.largest, self._share)
        except RequestRefused as refused:  # it is not the client's body that is too large
            kind = Kinds.BAD_ANSWER if refused.kind is Kinds.BODY_TOO_LARGE else refused.kind
            raise CallFailed(kind, Outcome.ANSWERED, "A service's answer is too large.") from refused
        finally:
            reply.close()
            if self._closed:  # it was given up in the same moment
                self._share.give_back(None)

    def _in_loop(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:  # a thread without one
            return False

    def close(self) -> None:
        """Nobody waits for the function any more."""
        self._closed = True
        for future in list(self._waited):
            future.cancel()
        for task in list(self._asking):
            task.cancel()
        self._share.give_back(None)


class Service:
    """A service that a function calls, by a parameter: `orders: Annotated[Service, "orders.get"]`, or `users: Service`
    where the parameter is called as it is.
    """

    __slots__ = ("_context", "_name")

    def __init__(self, context: Context, name: str) -> None:
        self._context = context
        self._name = name

    async def __call__(self, send: Any = _UNSAID, **how: Any) -> Any:
        """As `Context.call`."""
        return await self._context.call(self._name, send, **how)

    async def ask(self, send: Any = _UNSAID, **how: Any) -> Answer:
        """As `Context.ask`."""
        return await self._context.ask(self._name, send, **how)


class _ValueRoot:
    """A lone `{name}`: of the values that come with the call."""

    needs_body = False

    def __init__(self, root: str) -> None:
        self._root = root

    def bind(self, name: str, every: bool, at: Place) -> Fetch | None:
        """Its value as it is."""
        if name or every:
            at.mistake(f"write '{{{self._root}}}' and give its value")
            return None

        def value(_request: Request, values: Parts) -> Any:
            if self._root not in values:
                raise ValueError(f"the path names {{{self._root}}}, which 'values' does not have")
            return values[self._root]

        return value

    def rest(self, name: str) -> None:
        """Never."""


class _Values(Mapping[str, Any]):
    """Every name is one of a value."""

    def __getitem__(self, name: str) -> Any:
        return _ValueRoot(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str)

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0


@lru_cache(1024)
def _target(text: str) -> TextTemplate:
    """A path with places for values."""
    report = Report()
    template = compile_text(text, Sink.TARGET, Scope(_Values()), report.place())
    if report.mistakes:
        raise ValueError(f"not a path to call, {text!r}: {report.mistakes[0].text}")
    return template


def _fields(said: Mapping[str, str], *, with_type: bool) -> Headers:
    headers = headers_of(said, ends_at_gateway)
    return headers.adding(*_JSON) if with_type and _JSON[0] not in headers else headers
