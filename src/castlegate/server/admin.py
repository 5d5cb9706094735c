"""The admin port: `/health`, `/ready` and `/metrics`, over the same edge as clients have."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from castlegate.message import Handler, Headers, Request, Response
from castlegate.telemetry.metrics import Registry

_ENCODE = msgspec.json.Encoder().encode


class Readiness(NamedTuple):
    """Whether requests should be sent here; `reason` says what is amiss, also while ready but degraded."""

    ready: bool
    reason: str = ""


def admin_handlers(registry: Registry, readiness: Callable[[], Readiness]) -> dict[str, Handler]:
    """Handlers by route."""

    async def health(_request: Request) -> Response:
        return _json(200, {"status": "ok"})

    async def ready(_request: Request) -> Response:
        state = readiness()
        status = ("degraded" if state.reason else "ready") if state.ready else "not ready"
        return _json(200 if state.ready else 503, {"status": status, "reason": state.reason})

    async def metrics(_request: Request) -> Response:
        text = registry.render().encode()
        return Response(200, Headers.of([(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]), text)

    return {"GET /health": health, "GET /ready": ready, "GET /metrics": metrics}


def _json(status: int, document: dict[str, str]) -> Response:
    return Response(status, Headers.of([(b"content-type", b"application/json")]), _ENCODE(document))
