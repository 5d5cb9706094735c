"""CORS: which pages of other origins may read answers (Fetch standard, CORS protocol).

Preflights are answered here and never reach a service. What a service says of CORS itself is replaced: with two who say
something, browsers refuse both. A request of an origin that is not allowed is served like any other, without the fields
that would let the page read the answer: CORS protects users of browsers, it is no access control.
"""

from __future__ import annotations

import re
from typing import ClassVar

import msgspec

from castlegate.config.report import Place
from castlegate.config.units import SecondsOrZero, write_seconds
from castlegate.headers import Headers
from castlegate.message import Handler, Request, Response
from castlegate.policies.policy import Site
from castlegate.rules.origins import is_origin, matcher, starts_as_origin
from castlegate.sketch import Description, Sketch

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_FIELDS = (
    b"access-control-allow-origin", b"access-control-allow-credentials", b"access-control-expose-headers",
    b"access-control-allow-methods", b"access-control-allow-headers", b"access-control-max-age",
)  # fmt: skip


class Cors(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Pages of which other origins may use the route. A plain list stands for `origins` alone."""

    short: ClassVar[str] = "origins"

    origins: list[str]
    """`https://app.example.com`, one label below a name `https://*.example.com`, any port `http://localhost:*`, `null`
    (pages without an origin of their own: any sandboxed frame), or `*` for all. An empty list allows none."""
    credentials: bool = False
    """Whether they may send cookies and the like. Not with `*`."""
    headers: list[str] = msgspec.field(default_factory=lambda: ["content-type", "authorization"])
    """Header fields that they may send beyond those that browsers always allow."""
    expose: list[str] = []
    """Header fields of the answer that they may read beyond those that browsers always show."""
    max_age: SecondsOrZero = 600.0
    """For so long browsers need not ask again; they have limits of their own (Chromium: 2 h)."""
    private_network: bool = False
    """Whether pages of public sites may use the route on a private address (Private Network Access)."""

    def check(self, at: Place) -> None:
        """Origins and names."""
        for index, origin in enumerate(self.origins):
            place = at.field("origins", index)
            if origin in ("*", "null") or is_origin(origin):
                continue
            hint = "without a path" if starts_as_origin(origin.lower()) else "such as https://app.example.com"
            place.mistake(f"expected an origin in lower case {hint}, found {place.shown(origin)}")
        if "*" in self.origins and self.credentials:
            at.field("credentials").mistake("with credentials the origins must be named: '*' would trust every page")
        if "null" in self.origins and self.credentials:
            at.field("credentials").mistake("'null' is the origin of any sandboxed frame: not with credentials")
        for field in ("headers", "expose"):
            for index, name in enumerate(getattr(self, field)):
                if not _TOKEN.fullmatch(name):
                    at.field(field, index).mistake("not a name of a header field")


class CorsSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What a route says of it."""

    cors: Cors | None = None
    """Pages of which other origins may use the route: `cors: [https://app.example.com]`."""

    @property
    def credentialed_origins(self) -> list[str]:
        """Those whose pages may send cookies and the like."""
        return self.cors.origins if self.cors is not None and self.cors.credentials else []


def cors(settings: CorsSettings, site: Site | None = None) -> CorsPolicy | None:
    """The policy, where origins are said; the same for every route."""
    del site
    return CorsPolicy(settings.cors) if settings.cors is not None and settings.cors.origins else None


class CorsPolicy:
    """Of one route."""

    def __init__(self, settings: Cors) -> None:
        self._settings = settings
        self._allows = matcher(settings.origins)
        self._any = "*" in settings.origins
        fixed = [b"access-control-allow-credentials: true\r\n"] if settings.credentials else []
        self._of_answer = list(fixed)
        if settings.expose:
            self._of_answer.append(b"access-control-expose-headers: %b\r\n" % ", ".join(settings.expose).encode())
        self._of_preflight = [*fixed, b"access-control-max-age: %d\r\n" % int(settings.max_age)]
        if settings.headers:
            names = ", ".join(settings.headers).lower().encode()
            self._of_preflight.append(b"access-control-allow-headers: %b\r\n" % names)

    def describe(self, sketch: Sketch) -> Description:
        """Whom it lets read."""
        del sketch
        settings = self._settings
        says = {
            "origins": ", ".join(settings.origins) + (", with credentials" if settings.credentials else ""),
            "preflights": f"answered here, good for {write_seconds(settings.max_age)}",
        }
        return Description(role="policy", name="cors", says=says)

    def wrap(self, inner: Handler) -> Handler:
        """Answers say whether the page may read them."""

        async def handle(request: Request) -> Response:
            response = await inner(request)
            self.dress(request, response)
            return response

        return handle

    def dress(self, request: Request, response: Response) -> None:
        """The same of an answer of the edge, which no handler made."""
        headers = response.headers
        if b"access-control-" in headers.wire:
            headers = headers.without(*_FIELDS)
        lines = self._origin(request)
        if len(lines) > (not self._any) and b"origin" in request.headers:
            lines += self._of_answer
        response.headers = Headers([*headers.lines, *lines])

    async def preflight(self, request: Request) -> Response:
        """What a browser asks before it sends a request that is not simple. The route has the method that is asked for:
        that is how it was found.
        """
        lines = self._origin(request)
        if len(lines) > (not self._any):
            wanted = request.headers.get(b"access-control-request-method") or b""
            lines += [b"access-control-allow-methods: %b\r\n" % wanted, *self._of_preflight]
            if self._settings.private_network and b"access-control-request-private-network" in request.headers:
                lines.append(b"access-control-allow-private-network: true\r\n")
        lines.append(b"vary: access-control-request-method, access-control-request-headers\r\n")
        return Response(204, Headers(lines))

    def _origin(self, request: Request) -> list[bytes]:
        """Who may read, if the asking origin may; and that this depends on who asks, where it does."""
        if self._any:
            return [b"access-control-allow-origin: *\r\n"]
        origin = request.headers.get(b"origin")
        vary = b"vary: origin\r\n"
        if origin is None or not self._allows(origin):
            return [vary]
        return [vary, b"access-control-allow-origin: %b\r\n" % origin]
