"""How the call of a part is made of a client's request and of what other parts answered; compiled at load.

A part says what is asked: method, path, query and body of the client's request are its own and go nowhere by
themselves, except that a body goes where a call without `send` has one. Fields that ask for the client's own
representation (encodings, ranges, conditions) are for the composed answer, so no service gets them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from castlegate.calls.plan import IDEMPOTENT, FieldRules
from castlegate.calls.settings import CallSettings
from castlegate.config.references import NO_PARTS, Scope
from castlegate.config.report import Place
from castlegate.config.templates import JsonTemplate, Sink, TextTemplate, compile_json, compile_text
from castlegate.config.units import write_seconds
from castlegate.headers import Headers
from castlegate.message import Call, Request
from castlegate.sketch import Description, Sketch

_OF_THE_WHOLE = tuple([
    name + b": "
    for name in (
        b"accept", b"accept-encoding", b"accept-ranges", b"content-disposition", b"content-encoding",
        b"content-language", b"content-location", b"content-md5", b"content-type", b"if-match", b"if-modified-since",
        b"if-none-match", b"if-range", b"if-unmodified-since", b"prefer", b"range", b"x-deadline-ms",
    )
])  # fmt: skip
_OF_A_BODY = (b"content-type: ", b"content-encoding: ")
_ASKED = [b"accept: application/json, text/*;q=0.5\r\n", b"accept-encoding: identity\r\n"]
_JSON = b"content-type: application/json\r\n"
_DEADLINE = b"x-deadline-ms"
_NO_HEADERS = Headers()
_BODILESS = ("get", "delete")


def common_headers(request: Request, left: float) -> Headers:
    """The fields that every service which speaks HTTP gets, for a call that has `left` seconds."""
    deadline = b"x-deadline-ms: %d\r\n" % ((time.time() + left) * 1000)
    return Headers([line for line in request.headers.lines if not line.startswith(_OF_THE_WHOLE)] + [*_ASKED, deadline])


class PartPlan:
    """One call of a part."""

    __slots__ = (
        "_body", "_fields", "_key", "_method", "_over_http", "_send", "_target", "name", "settings",
        "timeout",
    )  # fmt: skip

    def __init__(self, settings: CallSettings, timeout: float, scope: Scope, at: Place, *, over_http: bool) -> None:
        """`timeout`: seconds that the call may take."""
        self.name = str(at.path[-1])  # of the part
        self.settings = settings
        self.timeout = timeout
        verb = settings.verb
        self._over_http = over_http
        self._method = None if verb is None else verb.upper().encode()
        self._target: TextTemplate | None = None
        if verb is not None:
            self._target = compile_text(getattr(settings, verb), Sink.TARGET, scope, at.field(verb))
        self._send: JsonTemplate | None = None
        if settings.send is not msgspec.UNSET:
            self._send = compile_json(settings.send, scope, at.field("send"))
        self._body = self._send is None and verb not in _BODILESS  # the client's own goes along
        self._key = None if settings.key is None else compile_text(settings.key, Sink.KEY, scope, at.field("key"))
        self._fields = FieldRules(settings.headers.request, scope, at.field("headers", "request")) or None

    def make(self, request: Request, parts: Mapping[str, Any], common: Headers, left: float) -> Call:
        """The call, which has `left` seconds. `common`: `common_headers`. Raises `RequestRefused`, `PartUnfit`."""
        method = self._method or request.method
        if self._send is not None:
            body = self._send.render(request, parts)
        else:
            assert isinstance(request.body, bytes), "the endpoint buffers it"
            body = request.body if self._body else b""
        headers = _NO_HEADERS
        if self._over_http:
            headers = common
            if self._send is not None:
                headers = Headers([*common.lines, _JSON])
            elif body:
                of_body = [line for line in request.headers.lines if line.startswith(_OF_A_BODY)]
                headers = Headers([*common.lines, *of_body])
        if self._fields is not None:
            headers = self._fields.apply(headers, request, parts)
        return Call(
            request,
            method,
            b"/" if self._target is None else self._target.render(request, parts),
            headers,
            body,
            None if self._key is None else self._key.render(request, parts) or None,
            left,
            idempotent=method in IDEMPOTENT,
        )

    def describe(self, sketch: Sketch) -> Description:
        """What is called, as one that has all of its time."""
        request = sketch.request
        call = sketch.sent = self.make(request, NO_PARTS, common_headers(request, self.timeout), self.timeout)
        told = sketch.stand_in(f"{{now + {write_seconds(self.timeout)}, in ms since 1970}}").encode()
        if _DEADLINE in call.headers:
            call.headers = call.headers.setting(_DEADLINE, told)
        says = {"calls": self.settings.call, "waits": write_seconds(self.timeout)}
        return Description(role="part", name=self.name, says=says)
