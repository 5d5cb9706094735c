"""Policies in Python: functions over the facts that conditions in CEL have, by the names of their parameters.

    async def owns_it(principal: Principal, path: dict[str, str], now: datetime) -> bool: ...

What it does not say `True` of is refused: also what it raises on, what takes too long, and what it returns besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from castlegate.config.references import query_parameters
from castlegate.config.report import listed, suggest
from castlegate.message import Request
from castlegate.principal import Principal
from castlegate.python.answers import read_headers
from castlegate.python.hints import Unusable, hints_of, is_asynchronous, parameters_of

_TEXTS = (dict[str, str], Mapping[str, str])
_TYPES: dict[str, tuple[Any, ...]] = {
    "principal": (Principal, Principal | None),
    "method": (str,),
    "path": _TEXTS,
    "query": _TEXTS,
    "headers": _TEXTS,
    "client": (str,),
    "now": (datetime,),
}
_FACTS: dict[str, Callable[[Request], Any]] = {
    "principal": lambda request: request.principal,
    "method": lambda request: request.method.decode(),
    "path": lambda request: MappingProxyType(request.params),
    "query": lambda request: {name: values[0] for name, values in query_parameters(request.query).items()},
    "headers": lambda request: read_headers(request.headers),
    "client": lambda request: request.client,
    "now": lambda _request: datetime.now(UTC),
}


class Decision(NamedTuple):
    """A function that allows or refuses."""

    function: Callable[..., Any]
    asynchronous: bool
    facts: list[str]
    needs_principal: bool

    def arguments(self, request: Request) -> dict[str, Any]:
        """What it is called with. Raises `RequestRefused` for a query that is none."""
        return {name: _FACTS[name](request) for name in self.facts}


def read_decision(function: Any) -> Decision:
    """Raises `Unusable`."""
    hints = hints_of(function)
    names = list(parameters_of(function))
    for name in names:
        if name not in _TYPES:
            raise Unusable(f"a policy has no '{name}'{suggest(name, _TYPES, 'there are')}")
        if hints[name] not in _TYPES[name]:
            expected = listed([_shown(each) for each in _TYPES[name]], "or")
            raise Unusable(f"its parameter '{name}' must be {expected}")
    if hints.get("return") is not bool:
        raise Unusable("it must say that it returns bool")
    nobody_known = "principal" in names and hints["principal"] is Principal
    return Decision(function, is_asynchronous(function), names, nobody_known)


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not hasattr(hint, "__args__") else str(hint)
