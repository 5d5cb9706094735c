"""A route as it is at run time: what was compiled of it, and what is counted of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from castlegate.message import Handler, Request, Response
from castlegate.telemetry.access_log import json_text
from castlegate.telemetry.metrics import Counter, Histogram, Registry

Dresser = Callable[[Request, Response], None]
"""Puts fields on an answer."""


class Route:
    """One route of a generation."""

    __slots__ = (
        "_requests", "asks", "by_status", "dressers", "handler", "json_name", "max_body", "name", "preflight",
        "seconds", "takes_options", "timeout",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        handler: Handler,
        max_body: int,
        registry: Registry,
        *,
        timeout: float = math.inf,
        takes_options: bool = False,
        preflight: Handler | None = None,
        dressers: Sequence[Dresser] = (),
        asks: bytes = b"",
    ) -> None:
        self.name = name
        self.json_name = json_text(name.encode())  # as it stands in the access log
        self.timeout = timeout  # seconds from a request's last byte to the head of its answer
        self.handler = handler
        self.max_body = max_body  # bytes
        self.takes_options = takes_options  # else OPTIONS, preflights among them, are answered by the edge
        self.preflight = preflight  # answers those of its preflights; without it they are told the methods alone
        self.dressers = dressers  # for answers of the edge itself, which pass by the route's policies
        self.asks = asks  # of callers, the same for routes that ask the same; nothing if it is open
        self._requests = registry.counter(
            "castlegate_requests_total", "Requests answered, by route and status.", "route", "status"
        )
        self.seconds: Histogram = registry.histogram(
            "castlegate_request_duration_seconds", "From a request's head to the end of its response.", "route"
        ).child(name)
        self.by_status: dict[int, Counter] = {}

    def is_passed_by(self, other: Route) -> bool:
        """Whether another route asks for something of callers that this one does not ask for."""
        return other.asks not in (b"", self.asks)

    def count(self, status: int, seconds: float, traceparent: bytes) -> None:
        """One request has ended."""
        counter = self.by_status.get(status)
        if counter is None:
            counter = self.by_status[status] = self._requests.child(self.name, str(status))
        counter.value += 1
        self.seconds.observe_traced(seconds, traceparent)
