"""The part of a request by which calls are told apart where routes are not known: of a service, whoever calls it.

`address`, or one reference: `{path.id}`, `{header.x-tenant}`, `{query.id}`, `{cookie.session}`, `{principal.subject}`,
`{claims.tenant}`.
"""

from __future__ import annotations

from collections.abc import Callable

from castlegate.calls.roots import COOKIE, PRINCIPAL
from castlegate.config.references import MISSING, NO_PARTS, Fetch, HeaderRoot, QueryRoot, Scope, as_text, parse
from castlegate.config.report import Place
from castlegate.message import Request


class _AnyPath:
    """`{path.id}` where it is not known which route the request is for."""

    needs_body = False

    def bind(self, name: str, every: bool, at: Place) -> Fetch | None:
        """Missing where the route has no such parameter."""
        if not name or every:
            at.mistake("write '{path.id}', the name of a parameter of the path")
            return None
        return lambda request, _parts: request.params.get(name, MISSING)

    def rest(self, name: str) -> None:
        """Never: it is the decoded value that decides."""


_SCOPE = Scope({"path": _AnyPath(), "header": HeaderRoot(), "query": QueryRoot(), **COOKIE, **PRINCIPAL})


def key_of(text: str, at: Place) -> Callable[[Request], bytes]:
    """What finds the key in a request, nothing where it has none; a mistake in `text` is reported."""
    if text == "address":
        return lambda request: request.client.encode()
    pieces = parse(text, _SCOPE, at)
    if pieces is None:
        return lambda _request: b""
    if len(pieces) != 1 or isinstance(pieces[0], str):
        at.mistake("expected 'address', or one reference such as '{path.id}' or '{header.x-tenant}'")
        return lambda _request: text.encode()
    fetch = pieces[0].fetch

    def key(request: Request) -> bytes:
        value = fetch(request, NO_PARTS)
        if value is MISSING:
            return b""
        try:
            return as_text(value).encode()
        except ValueError:
            return b""  # null, an object, a list: nothing that names anyone

    return key
