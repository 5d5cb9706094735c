"""A route that puts an event on a topic: 202 only after the broker has acknowledged it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol

import msgspec

from castlegate.body import Budget
from castlegate.calls.plan import FieldRules
from castlegate.calls.settings import HeaderRules
from castlegate.config.references import NO_PARTS, Scope
from castlegate.config.report import Place
from castlegate.config.templates import Sink, compile_json, compile_text
from castlegate.errors import GatewayError
from castlegate.headers import Headers
from castlegate.message import Handler, Request, Response
from castlegate.problem import problem
from castlegate.sketch import Description, Record, Sketch

_CONTEXT = frozenset((b"x-request-id", b"traceparent", b"tracestate"))  # written by the gateway alone
_ENCODE = msgspec.json.Encoder().encode


class Ack(Protocol):
    """Where a record stands."""

    @property
    def topic(self) -> str:
        """Of the record."""

    @property
    def partition(self) -> int:
        """Of the topic."""

    @property
    def offset(self) -> int:
        """In the partition."""


class Publisher(Protocol):
    """Puts records on one topic."""

    def publish(
        self, key: bytes | None, value: bytes, headers: list[tuple[str, bytes]], deadline: float
    ) -> Awaitable[Ack]:
        """Returns when it is acknowledged; raises `CallFailed`."""


class PublishedRoute(Protocol):
    """What a route says of its events."""

    @property
    def send(self) -> Any:
        """The record's value, a template."""

    @property
    def key(self) -> str | None:
        """The record's key, a template."""

    @property
    def headers(self) -> HeaderRules:
        """`request` are the record's headers."""


class EventPlan:
    """How an event is made of a request; compiled at load."""

    __slots__ = ("_fields", "_key", "_send")

    def __init__(self, settings: PublishedRoute, scope: Scope, at: Place) -> None:
        self._send = None if settings.send is msgspec.UNSET else compile_json(settings.send, scope, at.field("send"))
        self._key = None if settings.key is None else compile_text(settings.key, Sink.KEY, scope, at.field("key"))
        self._fields = FieldRules(settings.headers.request, scope, at.field("headers", "request"))

    def describe(self, sketch: Sketch) -> Description:
        """What is answered; the record itself is told by the topic."""
        sketch.sent = self.make(sketch.request)
        says = {"answers": "202 with topic, partition and offset, once the broker has acknowledged the record"}
        return Description(role="endpoint", name="publish", says=says)

    def make(self, request: Request) -> Record:
        """The event of a request whose body is there. Raises `RequestRefused` where a reference is not to be had."""
        body = request.body
        assert isinstance(body, bytes)
        value = self._send.render(request, NO_PARTS) if self._send is not None else body or b"{}"
        said = self._fields.apply(Headers(), request).pairs()
        headers = [(name.decode("latin-1"), text) for name, text in said if name not in _CONTEXT]
        headers.append(("x-request-id", request.id))
        headers.append(("traceparent", request.trace.traceparent))
        if request.trace.state is not None:
            headers.append(("tracestate", request.trace.state))
        return Record(None if self._key is None else self._key.render(request, NO_PARTS) or None, value, headers)


def publish_endpoint(publisher: Publisher, plan: EventPlan, budget: Budget, *, limit: int) -> Handler:
    """The handler; `limit` is the most that the body may be, in bytes."""

    async def handle(request: Request) -> Response:
        try:
            await request.collect(limit, budget)
            key, value, headers = plan.make(request)
            ack = await publisher.publish(key, value, headers, request.deadline)
        except GatewayError as error:
            return problem(error, request)
        document = {"topic": ack.topic, "partition": ack.partition, "offset": ack.offset}
        return Response(202, Headers.of([(b"content-type", b"application/json")]), _ENCODE(document))

    return handle
