"""Ways past a route that asks who calls: requests for its own path that a route takes which asks nobody. Pure.

An open `ANY /{rest...}` takes the methods that a `GET /orders/{id}` does not, and a route of a host comes before all
that are for any host, however little of the path it names. Where both lead to the same place, that is seldom meant. A
route for the very same path, or for one method alone, is taken to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import quote

from castlegate.errors import RequestRefused
from castlegate.routing.router import Router
from castlegate.routing.template import ANY, Param, RouteKey

_METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE")


class Entry(NamedTuple):
    """A route."""

    name: str
    key: RouteKey
    open: bool
    leads: object
    """Where: what is equal is the same place. None: to a place of its own."""


class Way(NamedTuple):
    """Past `shut`, by `opened`, with these methods."""

    shut: Entry
    opened: Entry
    methods: list[str]


def ways_past(entries: Sequence[Entry]) -> Iterator[Way]:
    """Each way once, in the order of the routes that are passed."""
    hosts = sorted({entry.key.host for entry in entries if entry.open and entry.key.host is not None})
    if not hosts and not any(entry.open and entry.key.method == ANY for entry in entries):
        return
    router = Router((entry.key, entry) for entry in entries)
    for shut in entries:
        if shut.open or shut.leads is None:
            continue
        for host in [shut.key.host, *(hosts if shut.key.host is None else ())]:
            by: dict[Entry, list[str]] = {}
            for method in _METHODS:
                taken = _taken(router, method, host or b"", shut.key)
                if taken is not None and taken.open and taken.leads == shut.leads and _is_unmeant(taken.key, shut.key):
                    by.setdefault(taken, []).append(method.decode())
            for opened, methods in by.items():
                yield Way(shut, opened, methods)


def _is_unmeant(opened: RouteKey, shut: RouteKey) -> bool:
    """Whether the open route is for more than the path of the other, and for more than a method that it leaves out."""
    return opened.shape[2] != shut.shape[2] and (opened.method == ANY or opened.host != shut.host)


def _taken(router: Router[Entry], method: bytes, host: bytes, key: RouteKey) -> Entry | None:
    """By which route a request for the path of a key is taken."""
    segments = ["~" if isinstance(segment, Param) else quote(segment, safe="!$&'()*+,;=:@") for segment in key.segments]
    try:
        return router.match(method, host, f"/{'/'.join(segments)}".encode())[0]
    except RequestRefused:
        return None
