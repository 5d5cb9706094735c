"""What policies written as expressions know of a request.

    principal.subject, .scheme, .credential, .scopes, .claims.NAME   who calls; `principal` is null on a public route
    method        path.NAME        query.NAME        headers['name']        client        now
Of a query parameter that repeats, the first; of a field, all its values joined by commas; names of fields in lower
case. What a request does not have is missing: an expression that needs it is undecided.
`client.inNetwork('10.0.0.0/8')` says whether the client's address is in a network.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any

from castlegate.config.fields import ends_at_gateway
from castlegate.config.references import MISSING, dig, query_parameters
from castlegate.config.report import listed, suggest
from castlegate.expressions.checking import Fact, Fetch, Unknown
from castlegate.expressions.kinds import DYN, STRING, TIMESTAMP, Kind, list_of, map_of
from castlegate.message import Request

_OF_PRINCIPAL: dict[str, Kind] = {
    "subject": STRING, "scheme": STRING, "credential": STRING, "scopes": list_of(STRING), "claims": map_of(DYN),
}  # fmt: skip
_EXAMPLES = {"path": "path.id", "query": "query.page", "headers": "headers['x-tenant']"}
_EXACT = range(-(2**63), 2**63)
_FIELD = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")


class RequestFacts:
    """Of one expression: also what it names, for its route to be checked against it."""

    names = ("principal", "method", "path", "query", "headers", "client", "now")

    def __init__(self) -> None:
        self.params: set[str] = set()
        """Path parameters without which it is undecided."""
        self.fields: set[str] = set()
        """Header fields."""
        self.used: set[str] = set()
        """Variables."""
        self.expects_nobody = False
        """Whether it asks if the caller is known at all."""

    def find(self, name: str, steps: Sequence[str]) -> Fact:
        """See `Facts`."""
        self.used.add(name)
        if name == "principal":
            return _of_principal(steps)
        if name in _EXAMPLES:
            return self._named(name, steps)
        kind = TIMESTAMP if name == "now" else STRING
        return Fact(kind, _SINGLE[name], 0)

    def presence(self, name: str, steps: Sequence[str]) -> Fetch | None:
        """See `Facts`."""
        if name == "principal" and len(steps) > 1 and steps[0] == "claims":
            self.used.add(name)
            return _presence_of_claim(list(steps[1:]))
        if name not in _EXAMPLES or len(steps) != 1:
            return None
        fetch = self._named(name, steps).fetch
        self.params.discard(steps[0])
        return lambda request, now: fetch(request, now) is not MISSING

    def absence(self, name: str) -> Fetch | None:
        """See `Facts`."""
        if name != "principal":
            return None
        self.used.add(name)
        self.expects_nobody = True
        return lambda request, _now: request.principal is None

    def call(self, name: str, function: str, arguments: Sequence[object]) -> Fetch | None:
        """See `Facts`."""
        if function != "inNetwork":
            return None
        if name != "client":
            raise Unknown("'inNetwork' is for the client's address: client.inNetwork('10.0.0.0/8')")
        if not arguments:
            raise Unknown("'inNetwork' takes one network or several, such as '10.0.0.0/8'")
        networks = []
        for index, argument in enumerate(arguments):
            try:
                if not isinstance(argument, str):
                    raise ValueError("expected a text as it stands, such as '10.0.0.0/8'")
                networks.append(ip_network(argument))
            except ValueError as error:
                raise Unknown(f"not a network: {error}", index) from error
        self.used.add(name)

        @lru_cache(1024)
        def contains(address: str) -> Any:
            try:
                parsed = ip_address(address)
                parsed = getattr(parsed, "ipv4_mapped", None) or parsed
            except ValueError:
                return MISSING
            return any(parsed in network for network in networks)

        return lambda request, _now: contains(request.client)

    def _named(self, name: str, steps: Sequence[str]) -> Fact:
        """One of a map whose names are known when the expression is read."""
        if not steps:
            raise Unknown(f"say which one, such as {_EXAMPLES[name]}")
        key = steps[0]
        self.used.add(name)
        if name == "path":
            self.params.add(key)
            return Fact(STRING, lambda request, _now: request.params.get(key, MISSING), 1)
        if name == "query":
            return Fact(STRING, lambda request, _now: _first(request, key), 1)
        if not _FIELD.fullmatch(key):
            hint = f"; write '{key.lower()}'" if _FIELD.fullmatch(key.lower()) else ""
            raise Unknown(f"names of header fields are in lower case here{hint}", 0)
        if ends_at_gateway(key):
            raise Unknown(f"'{key}' is never there: the gateway reads this field itself", 0)
        self.fields.add(key)
        encoded = key.encode()

        def field(request: Request, _now: float) -> Any:
            value = request.headers.get(encoded)
            return MISSING if value is None else value.decode("latin-1")

        return Fact(STRING, field, 1)


def _first(request: Request, key: str) -> Any:
    values = query_parameters(request.query).get(key)
    return MISSING if values is None else values[0]


def _of_principal(steps: Sequence[str]) -> Fact:
    if not steps:
        raise Unknown(f"say which: {listed([f'principal.{field}' for field in _OF_PRINCIPAL], 'or')}")
    field = steps[0]
    if field not in _OF_PRINCIPAL:
        raise Unknown(f"a principal has no '{field}'{suggest(field, _OF_PRINCIPAL, 'it has')}", 0)
    if field == "scopes":
        return Fact(_OF_PRINCIPAL[field], _scopes, 1)
    if field != "claims":
        return Fact(STRING, lambda request, _now: getattr(request.principal, field, MISSING), 1)
    inner = list(steps[1:])

    def claim(request: Request, _now: float) -> Any:
        value = MISSING if request.principal is None else dig(request.principal.claims, inner)
        return value if isinstance(value, str) or _is_exact(value) else MISSING

    return Fact(DYN if inner else _OF_PRINCIPAL[field], claim, len(steps))


def _is_exact(value: Any) -> bool:
    """Whether it has no number beyond 64 bits: of those, different ones would be the same in an expression."""
    if isinstance(value, int):
        return value in _EXACT
    if isinstance(value, list):
        return all(map(_is_exact, value))
    return not isinstance(value, dict) or all(map(_is_exact, value.values()))


def _scopes(request: Request, _now: float) -> Any:
    return MISSING if request.principal is None else list(request.principal.scopes)


def _presence_of_claim(steps: list[str]) -> Fetch:
    *outer, last = steps

    def present(request: Request, _now: float) -> Any:
        around = MISSING if request.principal is None else dig(request.principal.claims, outer)
        return last in around if isinstance(around, dict) else MISSING

    return present


_SINGLE: dict[str, Fetch] = {
    "method": lambda request, _now: request.method.decode("latin-1"),
    "client": lambda request, _now: request.client,
    "now": lambda _request, now: datetime.fromtimestamp(now, UTC),
}
