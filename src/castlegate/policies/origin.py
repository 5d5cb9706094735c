"""Requests that change something, sent by a browser with a credential that it adds by itself, must come from our pages.

Cookies and client certificates go along with whatever any page makes a browser send. What the browser says of the page
decides, as in Go's `http.CrossOriginProtection`: `Sec-Fetch-Site`, else `Origin` against the host that is asked for. A
request with neither is not a browser's: all that send cookies send one of them with an unsafe method.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

import msgspec

from castlegate.config.report import Place
from castlegate.errors import Kinds, RequestRefused
from castlegate.message import Handler, Request, Response
from castlegate.policies.policy import Site, refuse
from castlegate.rules.origins import is_origin, matcher
from castlegate.sketch import Description, Sketch

_SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS"))  # RFC 9110 §9.2.1


class OriginSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What a route says of pages."""

    trusted_origins: list[str] | None = None
    """Origins, beside the route's own host, whose pages may send requests that change something with a cookie or client
    certificate. Those that `cors` allows with credentials may already."""

    def check(self, at: Place) -> None:
        """Origins."""
        for index, origin in enumerate(self.trusted_origins or ()):
            if not is_origin(origin):
                place = at.field("trusted_origins", index)
                place.mistake(f"expected an origin such as https://app.example.com, found {place.shown(origin)}")


class Said(Protocol):
    """What of a route's settings this looks at."""

    @property
    def public(self) -> bool | None:
        """See `authenticate.Access`."""

    @property
    def schemes(self) -> list[str]:
        """The same."""

    @property
    def trusted_origins(self) -> list[str] | None:
        """See above."""

    @property
    def credentialed_origins(self) -> list[str]:
        """See `cors.CorsSettings`."""


def check_origin(settings: Said, site: Site) -> OriginPolicy | None:
    """The policy, where a scheme takes what browsers send by themselves."""
    ambient = frozenset(name for name in settings.schemes if site.schemes[name].ambient)
    if settings.public or not ambient:
        return None
    return OriginPolicy(trusted_by(settings), ambient)


def trusted_by(settings: Said) -> list[str]:
    """Origins whose pages may send anything, beside the route's own host."""
    return [*(settings.trusted_origins or ()), *settings.credentialed_origins]


class Pages:
    """Whose may send requests with what browsers add by themselves: the route's own host, and those that it trusts."""

    def __init__(self, trusted: list[str]) -> None:
        self._trusts = matcher(trusted)

    def send(self, request: Request) -> bool:
        """Whether one of them sent this, or no browser at all."""
        origin = request.headers.get(b"origin")
        site = request.headers.get(b"sec-fetch-site")
        if site in (b"same-origin", b"none") or (site is None and origin is None):
            return True
        if origin is None:
            return False
        own = site is None and origin.partition(b"://")[2].lower() == request.host.lower()
        return own or self._trusts(origin)

    def guard(self, inner: Handler) -> Handler:
        """403 for what another site's page had a browser send."""
        return lambda request: inner(request) if self.send(request) else _refuse_page(request)


def _refuse_page(request: Request) -> Awaitable[Response]:
    return refuse(RequestRefused(Kinds.FORBIDDEN, "A page of another site may not send this."), request)


class OriginPolicy:
    """Of one route."""

    def __init__(self, trusted: list[str], ambient: frozenset[str]) -> None:
        self._trusted = trusted
        self._pages = Pages(trusted)
        self._ambient = ambient

    def describe(self, sketch: Sketch) -> Description:
        """Which pages it believes."""
        del sketch
        whose = ", ".join(["the route's own host", *self._trusted])
        says = {
            "pages of": whose,
            "asked of": f"requests of browsers that change something, by {', '.join(self._ambient)}",
        }
        return Description(role="policy", name="origin", says=says)

    def wrap(self, inner: Handler) -> Handler:
        """403 for what another site's page had a browser send."""
        ambient = self._ambient
        sent_by_own = self._pages.send

        def handle(request: Request) -> Awaitable[Response]:
            if request.method in _SAFE or request.principal is None or request.principal.scheme not in ambient:
                return inner(request)
            return inner(request) if sent_by_own(request) else _refuse_page(request)

        return handle
