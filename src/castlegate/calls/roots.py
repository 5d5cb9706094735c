"""References to who calls: `{principal.subject}`, `{principal.scopes}`, `{claims.sub}`, reachable where a route asks
that; and to cookies, `{cookie.session}`.
"""

from __future__ import annotations

from typing import Any

from castlegate.config.references import MISSING, Fetch, Parts, Root, dig, steps_of
from castlegate.config.report import Place, suggest
from castlegate.message import Request

_FIELDS = ("subject", "scheme", "credential", "scopes")


class ClaimsRoot:
    """`{claims.sub}`: what the scheme was told of the principal, and what is in it."""

    needs_body = False

    def bind(self, name: str, every: bool, at: Place) -> Fetch | None:
        """Missing where the claims do not have it."""
        steps = steps_of("claims", name, every, at)
        if steps is None:
            return None

        def value(request: Request, _parts: Parts) -> Any:
            return MISSING if request.principal is None else dig(request.principal.claims, steps)

        return value

    def rest(self, name: str) -> None:
        """Never."""


class PrincipalRoot:
    """`{principal.subject}`, `{principal.scheme}`, `{principal.credential}`, and `{principal.scopes}`: in their order,
    with spaces between; `{principal.scopes[]}` as a list.
    """

    needs_body = False

    def bind(self, name: str, every: bool, at: Place) -> Fetch | None:
        """Missing where it is empty."""
        if name == "scopes":
            return _scopes if every else _scope
        if name not in _FIELDS or every:
            at.mistake(f"a principal has no '{name}'{suggest(name, _FIELDS, 'it has')}")
            return None
        return lambda request, _parts: getattr(request.principal, name, "") or MISSING

    def rest(self, name: str) -> None:
        """Never."""


class CookieRoot:
    """`{cookie.session}`: the value of a cookie as it was sent, bytes read as ISO-8859-1; of several the first."""

    needs_body = False

    def bind(self, name: str, every: bool, at: Place) -> Fetch | None:
        """Missing where the request does not have it."""
        if not name or every:
            at.mistake("write '{cookie.session}', the name of a cookie")
            return None
        wanted = name.encode()

        def value(request: Request, _parts: Parts) -> Any:
            found = request.headers.cookie(wanted)
            return MISSING if found is None else found.decode("latin-1")

        return value

    def rest(self, name: str) -> None:
        """Never."""


def _scopes(request: Request, _parts: Parts) -> Any:
    return MISSING if request.principal is None else sorted(request.principal.scopes)


def _scope(request: Request, _parts: Parts) -> Any:
    return MISSING if request.principal is None else " ".join(sorted(request.principal.scopes)) or MISSING


PRINCIPAL: dict[str, Root] = {"claims": ClaimsRoot(), "principal": PrincipalRoot()}

COOKIE: dict[str, Root] = {"cookie": CookieRoot()}
