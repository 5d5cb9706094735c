"""What a route says about the service it calls or the event it publishes."""

from __future__ import annotations

from typing import Any

import msgspec

from castlegate.config.units import Seconds, Size


class HeaderRules(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Fields set (a template) or removed (null)."""

    request: dict[str, str | None] = {}
    """On the way to the service."""
    response: dict[str, str | None] = {}
    """On the way to the client."""


class CallSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One call of a service."""

    call: str | None = None
    """`service` or `service.operation`."""
    get: str | None = None
    """Path template of a GET to an HTTP service, in place of the client's own method and path."""
    post: str | None = None
    """The same for POST."""
    put: str | None = None
    """The same for PUT."""
    patch: str | None = None
    """The same for PATCH."""
    delete: str | None = None
    """The same for DELETE."""
    strip_prefix: str | None = None
    """Taken off the front of the client's path before it is forwarded."""
    add_prefix: str | None = None
    """Put before the path that is forwarded."""
    send: Any = msgspec.UNSET
    """What the service gets as JSON: any value with references in it. Without it the client's body goes as it is."""
    key: str | None = None
    """Record key for a Kafka service: a template."""
    headers: HeaderRules = HeaderRules()
    """Fields set and removed on the way."""
    status: int | None = None
    """Status of a success that names none itself."""


class PublishSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """An event put on a topic; answered 202 once the broker has acknowledged it."""

    publish: str | None = None
    """The topic."""


class RouteLimits(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Bounds of one route."""

    body: Size = 10 * 1024 * 1024
    """Bytes of a request's body; more are answered 413."""


class RouteDefaults(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What every route takes that does not say otherwise."""

    public: bool | None = None
    """`true` opens the route to everyone. Every route must say who may call it."""
    timeout: Seconds | None = None
    """From the request's last byte to the head of the answer; 10 s if nothing is said."""
    limits: RouteLimits | None = None
    """Bounds on the request."""
