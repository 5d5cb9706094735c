"""What `castlegate check` says of a composition: mistakes, and what is allowed but most likely not meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from castlegate.calls.plan import FieldRules
from castlegate.calls.settings import CallSettings, HeaderRules
from castlegate.composition.compiling import MakeFacts, check_parts, parts_scope
from castlegate.composition.graph import longest
from castlegate.composition.settings import PartSettings
from castlegate.config.references import Scope
from castlegate.config.report import Place
from castlegate.config.units import write_seconds

_SAFE = (b"GET", b"HEAD", b"OPTIONS", b"TRACE")
_OF_ONE_CALL = (
    "get", "post", "put", "patch", "delete", "strip_prefix", "add_prefix", "key", "reply",
)  # fmt: skip


class ComposedRoute(Protocol):
    """What a route says of its composition."""

    @property
    def compose(self) -> dict[str, PartSettings] | None:
        """The parts."""

    @property
    def timeout(self) -> float | None:
        """Seconds."""

    @property
    def send(self) -> Any:
        """Of a call."""

    @property
    def headers(self) -> HeaderRules:
        """`response` are those of the whole."""


def check_composition(
    route: ComposedRoute, timeout: float | None, scope: Scope, at: Place, facts: MakeFacts, method: bytes
) -> None:
    """Report it. `timeout`: of the route or by default; `method`: of the client's request."""
    parts = route.compose
    assert parts is not None
    for name in _OF_ONE_CALL:
        if getattr(route, name) is not None:
            at.field(name).mistake("each part says this for itself")
    if route.send is not msgspec.UNSET:
        at.field("send").mistake("each part says this for itself")
    if route.headers.request:
        at.field("headers", "request").mistake("each part says this for itself")
    FieldRules(route.headers.response, parts_scope(parts, scope), at.field("headers", "response"))
    place = at.field("compose")
    inputs = check_parts(parts, scope, place, facts)
    if at.report.mistakes:
        return
    _warn_of_unsafe(parts, method, place)
    if timeout is not None:
        _warn_of_late(parts, inputs, timeout, place)


def _warn_of_unsafe(parts: Mapping[str, PartSettings], method: bytes, at: Place) -> None:
    for name, part in parts.items():
        if part.call is None or _is_safe(part, method):
            continue
        verb = (part.verb or method.decode()).upper()
        if part.retry is not None and part.retry.idempotency_key is None:
            at.field(name, "retry").warning(
                f"a {verb} that may have been executed is not repeated, only one that was not sent; if the service "
                "knows requests by a key, say it with 'idempotency_key'"
            )
        forgiving = [word for word in ("optional", "fallback", "fallback_call") if _says(part, word)]
        if forgiving:
            at.field(name).warning(
                f"a {verb} may have been executed when it fails, and '{forgiving[0]}' hides that from the client"
            )


def _says(part: PartSettings, word: str) -> bool:
    return getattr(part, word) not in (None, False, msgspec.UNSET)


def _is_safe(call: CallSettings, method: bytes) -> bool:
    """Whether it only reads; what is asked over Kafka counts as what the client's own method is."""
    return (method if call.verb is None else call.verb.upper().encode()) in (*_SAFE, b"ANY")


def _warn_of_late(
    parts: Mapping[str, PartSettings], inputs: Mapping[str, list[str]], timeout: float, at: Place
) -> None:
    """Of parts whose own times, one after the other, are more than the route has."""
    costs = {name: own_time(part) for name, part in parts.items()}
    totals = longest(inputs, costs)
    told: set[str] = set()
    for name, part in parts.items():
        if totals[name] <= timeout or told.intersection(inputs[name]):
            told |= {name} if told.intersection(inputs[name]) else set()
            continue
        told.add(name)
        route = f"the route has {write_seconds(timeout)}"
        if costs[name] > timeout:
            at.field(name).warning(f"may take {write_seconds(costs[name])}, and {route}")
        elif costs[name] or part.call is not None:
            waits = write_seconds(round(totals[name] - costs[name], 6))
            at.field(name).warning(
                f"may not be done in time: what it waits for may take {waits}, it itself "
                f"{write_seconds(costs[name]) if costs[name] else 'what is left'}, and {route}"
            )


def own_time(part: PartSettings) -> float:
    """Seconds that a part says it may take; nothing where it says none."""
    fallback = part.fallback_call
    return (part.timeout or 0.0) + (0.0 if fallback is None else fallback.timeout or part.timeout or 0.0)
