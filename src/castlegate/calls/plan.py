"""How a call is made of a client's request: method, target, fields, key and body, compiled at load."""

from __future__ import annotations

from typing import Any

import msgspec

from castlegate.body import Body
from castlegate.calls.settings import CallSettings
from castlegate.config.references import NO_PARTS, Scope
from castlegate.config.report import Place
from castlegate.config.templates import JsonTemplate, Sink, TextTemplate, compile_json, compile_text
from castlegate.config.units import write_seconds
from castlegate.headers import Headers
from castlegate.message import Call, Request
from castlegate.sketch import Description, Sketch

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))  # RFC 9110 §9.2.2
_NO_HEADERS = Headers()


class FieldRules:
    """Fields set and removed on one way."""

    __slots__ = ("_names", "_set")

    def __init__(self, rules: dict[str, str | None], scope: Scope, at: Place) -> None:
        self._names = [name.lower().encode() for name in rules]
        self._set = [
            (name.lower().encode(), compile_text(text, Sink.HEADER, scope, at.field(name)))
            for name, text in rules.items()
            if text is not None
        ]

    def __bool__(self) -> bool:
        return bool(self._names)

    @property
    def needs_body(self) -> bool:
        """Whether a value comes from the body."""
        return any(template.needs_body for _, template in self._set)

    def apply(self, headers: Headers, request: Request) -> Headers:
        """New ones as the rules want them."""
        changed = headers.without(*self._names)
        for name, template in self._set:
            changed = changed.adding(name, template.render(request, NO_PARTS))
        return changed


class CallPlan:
    """How one call is made of a request; compiled at load."""

    __slots__ = (
        "_add", "_carries_fields", "_fields", "_key", "_method", "_retargets", "_send", "_settings", "_strip",
        "_target", "_timeout", "needs_body",
    )  # fmt: skip

    def __init__(
        self, settings: CallSettings, timeout: float, scope: Scope, at: Place, *, carries_fields: bool
    ) -> None:
        """`carries_fields`: whether the client's own fields go along (HTTP), or only those that are set (Kafka)."""
        self._settings = settings
        verb = settings.verb
        self._carries_fields = carries_fields
        self._timeout = timeout
        self._method = None if verb is None else verb.upper().encode()
        self._target: TextTemplate | None = None
        if verb is not None:
            self._target = compile_text(getattr(settings, verb), Sink.TARGET, scope, at.field(verb))
        self._strip = (settings.strip_prefix or "").count("/")  # segments
        self._add = (settings.add_prefix or "").encode()
        self._retargets = bool(self._target or self._strip or self._add)
        self._send: JsonTemplate | None = None
        if settings.send is not msgspec.UNSET:
            self._send = compile_json(settings.send, scope, at.field("send"))
        self._key = None if settings.key is None else compile_text(settings.key, Sink.KEY, scope, at.field("key"))
        self._fields = FieldRules(settings.headers.request, scope, at.field("headers", "request")) or None
        templates = (self._target, self._send, self._key, self._fields)
        self.needs_body = any(template is not None and template.needs_body for template in templates)

    def describe(self, sketch: Sketch) -> Description:
        """What is called, and what is changed on the way."""
        sketch.sent = self.make(sketch.request)
        settings = self._settings
        says: dict[str, Any] = {"calls": settings.call, "waits": write_seconds(self._timeout)}
        if settings.status is not None:
            says["success"] = f"{settings.status}, where the service names no status"
        for way, fields in (("request", settings.headers.request), ("response", settings.headers.response)):
            if fields:
                says[f"{way} fields"] = sketch.show_fields(fields)
        return Description(role="endpoint", name="call", says=says)

    def make(self, request: Request) -> Call:
        """The call. Raises `RequestRefused` where a reference is not to be had."""
        method = self._method or request.method
        body: bytes | Body = request.body
        headers = request.headers if self._carries_fields else _NO_HEADERS
        if self._send is not None:
            body = self._send.render(request, NO_PARTS)
            if self._carries_fields:
                headers = headers.without(b"content-encoding").setting(b"content-type", b"application/json")
        elif self._method in (b"GET", b"DELETE"):
            body = b""
        if self._fields is not None:
            headers = self._fields.apply(headers, request)
        return Call(
            request,
            method,
            self._target_of(request) if self._retargets or request.query else request.path,
            headers,
            body,
            None if self._key is None else self._key.render(request, NO_PARTS) or None,
            self._timeout,
            idempotent=method in IDEMPOTENT,
        )

    def _target_of(self, request: Request) -> bytes:
        if self._target is not None:
            target = self._target.render(request, NO_PARTS)
            if self._target.has_query or not request.query:
                return target
        else:
            target = _without_first(request.path, self._strip) if self._strip else request.path
            if self._add:
                target = self._add + target
            if not request.query:
                return target
        return target + b"?" + request.query


def _without_first(path: bytes, segments: int) -> bytes:
    """`path` from its segment of that number on; by segments, since a prefix may be spelled in several ways."""
    parts = path.split(b"/", segments + 1)
    return b"/" + parts[segments + 1] if len(parts) > segments + 1 else b"/"
