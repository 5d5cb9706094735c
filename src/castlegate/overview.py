"""`castlegate explain --all`: every route in a line, with who may call it and what it does. No network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from castlegate.calls.settings import CallSettings
from castlegate.config.shapes import fields_of
from castlegate.document import Document, Route, RouteDefaults, load
from castlegate.policies.authorize import AnyScope


class Line(msgspec.Struct, frozen=True):
    """One route."""

    route: str
    callers: str
    """Who may call it."""
    does: str
    limits: str
    position: str = ""
    """File, line and column."""


def overview(path: Path) -> list[Line]:
    """All routes in the order of the file, those that the issuer adds behind them. Raises `ConfigError`."""
    document, report = load(path)
    lines = []
    for name, said in document.every_route().items():
        route = document.effective(said)
        where = ("routes", name) if name in document.routes else ("issuer",)
        lines.append(Line(name, _callers(route), _does(document, name, said), _limits(route),
                          str(report.position(where) or "")))  # fmt: skip
    return lines


def to_text(lines: Sequence[Line]) -> str:
    """For people."""
    rows = [(each.route, each.callers, each.does, each.limits, each.position) for each in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    texts = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width) for row in rows]
    return "\n".join(text.rstrip() for text in texts)


def _callers(route: Route) -> str:
    says = ["anybody" if route.public else " or ".join(route.schemes)]
    if isinstance(route.scopes, AnyScope):
        says.append(f"scope {' or '.join(route.scopes.any)}")
    elif route.scopes:
        says.append(f"scope {' and '.join(route.scopes)}")
    if route.claims:
        says.append(f"claim {' and '.join(route.claims)}")
    if route.policies:
        says.append(f"policy {' and '.join(route.policies)}")
    if route.addresses is not None:
        says.append("some addresses")
    return ", ".join(says)


def _does(document: Document, name: str, route: Route) -> str:
    """What it calls, publishes or else; how is said by other fields."""
    how = {*fields_of(RouteDefaults), *fields_of(CallSettings)} - {"call"}
    own = [field for field in fields_of(Route) if field not in how]
    said = [(field, value) for field in own if (value := getattr(route, field)) is not None]
    if not said:
        return "" if name in document.routes else "the issuer's own"
    field, value = said[0]
    return f"{field} {value}" if isinstance(value, str) else field


def _limits(route: Route) -> str:
    def texts() -> Iterator[str]:
        for rate in route.rates:
            yield f"{rate.rate} per {rate.per}"
        for quota in route.quotas:
            for window in ("daily", "monthly"):
                if getattr(quota, window) is not None:
                    yield f"{getattr(quota, window)} {window} per {quota.per}"
        for slots in route.slots:
            yield f"{slots.most} at once per {slots.per}"

    return ", ".join(texts())
