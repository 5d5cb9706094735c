"""For a request that no route is for: the routes that come nearest, and what keeps each from being the one. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from urllib.parse import unquote

import msgspec

from castlegate.routing.template import ANY, Param, RouteKey

_FARTHEST = 1.6  # of differences as counted below
_ABOUT = 0.3  # further than the nearest
_MOST = 3


class Near(msgspec.Struct, frozen=True):
    """A route and why it is not for the request."""

    route: str
    reasons: list[str]


def nearest(routes: Iterable[tuple[str, RouteKey]], method: bytes, host: bytes, path: bytes) -> list[Near]:
    """The nearest first; `host` is without port, `path` in normal form."""
    found = []
    segments = path.decode().split("/")[1:]
    for name, key in routes:
        distance, reasons = _compare(key, segments)
        if key.host is not None and key.host != host:
            distance += 0.5
            reasons.append(f"it is for the host {key.host.decode()}")
        if key.method not in (method, ANY) and (key.method, method) != (b"GET", b"HEAD"):
            distance += 0.3
            reasons.append(f"it is for {key.method.decode()}")
        if distance <= _FARTHEST:
            found.append((distance, Near(name, reasons)))
    found.sort(key=lambda each: each[0])
    return [near for distance, near in found[:_MOST] if distance <= found[0][0] + _ABOUT]


def _compare(key: RouteKey, segments: list[str]) -> tuple[float, list[str]]:
    """How far its path is from the segments, and why."""
    distance = 0.0
    reasons: list[str] = []
    for index, wanted in enumerate(key.segments):
        if isinstance(wanted, Param) and wanted.rest:
            return distance, reasons
        shown = f"{{{wanted.name}}}" if isinstance(wanted, Param) else wanted.decode()
        if index >= len(segments):
            distance += 1.0 if shown else 0.3
            reasons.append(f"'/{shown}' is missing" if shown else "it ends with a slash, which counts")
            continue
        found = segments[index]
        if isinstance(wanted, Param):
            if not found:
                distance += 0.5
                reasons.append(f"'{shown}' takes no empty segment")
        elif unquote(found) != shown:
            distance += 1.2 - SequenceMatcher(None, found, shown).ratio()
            reasons.append(f"it has '{shown}' where the path has '{found}'")
    more = segments[len(key.segments) :]
    if more == [""]:
        return distance + 0.3, [*reasons, "it does not end with a slash, which counts"]
    if more:
        return distance + len(more), [*reasons, f"it ends before '/{'/'.join(more)}'"]
    return distance, reasons
