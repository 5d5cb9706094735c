"""A route that puts an event on a topic: 202 only after the broker has acknowledged it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol, cast

import msgspec

from castlegate.config.references import NO_PARTS, Scope
from castlegate.config.report import Place
from castlegate.config.templates import Sink, compile_json, compile_text
from castlegate.endpoints.call import FieldRules
from castlegate.endpoints.settings import HeaderRules
from castlegate.errors import GatewayError
from castlegate.message import Body, Handler, Headers, Request, Response
from castlegate.problem import problem

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


def publish_endpoint(
    publisher: Publisher,
    settings: PublishedRoute,
    *,
    limit: int,
    scope: Scope,
    at: Place,
) -> Handler:
    """The handler."""
    send = None if settings.send is msgspec.UNSET else compile_json(settings.send, scope, at.field("send"))
    key = None if settings.key is None else compile_text(settings.key, Sink.KEY, scope, at.field("key"))
    fields = FieldRules(settings.headers.request, scope, at.field("headers", "request"))

    async def handle(request: Request) -> Response:
        try:
            if type(request.body) is not bytes:
                request.body = await cast("Body", request.body).read_all(limit)
            body = request.body
            assert isinstance(body, bytes)
            value = send.render(request, NO_PARTS) if send is not None else body or b"{}"
            headers = [(name.decode("latin-1"), text) for name, text in fields.apply(Headers(), request).pairs()]
            headers.append(("x-request-id", request.id))
            headers.append(("traceparent", request.trace.traceparent))
            if request.trace.state is not None:
                headers.append(("tracestate", request.trace.state))
            record_key = None if key is None else key.render(request, NO_PARTS) or None
            ack = await publisher.publish(record_key, value, headers, request.deadline)
        except GatewayError as error:
            return problem(error, request)
        document = {"topic": ack.topic, "partition": ack.partition, "offset": ack.offset}
        return Response(202, Headers.of([(b"content-type", b"application/json")]), _ENCODE(document))

    return handle
