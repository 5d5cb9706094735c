"""The admin port, over the same edge as clients have: probes and metrics for everyone, the rest for operators.

Who an operator is, is told by a token or by the certificate of a TLS handshake.

GET /health   the supervisor lives          GET /workers   each worker's process and state
GET /ready    requests should be sent here  POST /reload   read the configuration again; the answer says how it went
GET /metrics  of all workers together

GET  /services                              the instances of HTTP services: who is out, since when and why
POST /services/{service}/{instance}/drain   give it nothing new; `undrain`: call it again
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from castlegate.build import Readiness
from castlegate.config.files import signature
from castlegate.config.report import Report
from castlegate.document import Admin as AdminSettings
from castlegate.edge.listener import Listener
from castlegate.edge.settings import Listen
from castlegate.edge.tls import Certificates
from castlegate.errors import Kinds, RequestRefused
from castlegate.headers import Headers
from castlegate.message import Handler, Request, Response
from castlegate.routing.route import Route
from castlegate.routing.router import Router
from castlegate.routing.template import parse_key
from castlegate.telemetry.exposition import OPENMETRICS, PROMETHEUS, render
from castlegate.telemetry.metrics import Registry
from castlegate.wire.watching import keep_current

_ENCODE = msgspec.json.Encoder().encode


class Instance(Protocol):
    """What the admin port shows and does."""

    def readiness(self) -> Readiness:
        """Of the instance."""

    async def metrics(self) -> Registry:
        """Of all workers together."""

    def workers(self) -> list[dict[str, Any]]:
        """Each of them, for people."""

    async def services(self) -> dict[str, Any]:
        """The instances of HTTP services, for people."""

    async def drain(self, service: str, instance: str) -> bool:
        """Give an instance nothing new; whether there is one."""

    async def resume(self, service: str, instance: str) -> bool:
        """The contrary."""

    async def reload(self) -> str:
        """Read the configuration again; returns what went wrong, nothing if it is served now."""


class AdminPort:
    """Its socket, and the certificates that it shows."""

    def __init__(self, instance: Instance, settings: AdminSettings, folder: Path) -> None:
        """Files are relative to `folder`. Raises `ConfigError`."""
        tls, registry = settings.tls, Registry()
        self._certificates = None if tls is None else Certificates(tls, ("admin", "tls"), folder)
        self._seen = () if self._certificates is None else signature(self._certificates.files)
        self._listener = Listener(
            Listen(address=settings.address),
            Admin(instance, settings).router(),
            Route("-", _not_found, 0, registry),
            None,
            registry,
            self._certificates,
        )
        self._watching: asyncio.Task[None] | None = None

    async def start(self, listening: socket.socket) -> None:
        """Answer, with the certificates that the files hold from now on."""
        await self._listener.start(listening)
        if self._certificates is not None:
            self._watching = asyncio.create_task(keep_current(self._certificates, self._seen))

    async def stop(self) -> None:
        """Answer what has been asked, and no more."""
        if self._watching is not None:
            self._watching.cancel()
        await self._listener.drain(0.1)


class Admin:
    """Routes and handlers."""

    def __init__(self, instance: Instance, settings: AdminSettings) -> None:
        self._instance = instance
        self._guarded = settings.guarded
        self._expected = None if settings.token is None else f"Bearer {settings.token}".encode()

    def router(self) -> Router[Route]:
        """To be served by a listener."""
        return router_of(
            {
                "GET /health": self._health,
                "GET /ready": self._ready,
                "GET /metrics": self._metrics,
                "GET /workers": self._for_operators(self._workers),
                "GET /services": self._for_operators(self._services),
                "POST /services/{service}/{instance}/drain": self._for_operators(self._drain),
                "POST /services/{service}/{instance}/undrain": self._for_operators(self._undrain),
                "POST /reload": self._for_operators(self._reload),
            }
        )

    def _for_operators(self, inner: Callable[[Request], Awaitable[Response]]) -> Handler:
        expected, guarded = self._expected, self._guarded

        async def handle(request: Request) -> Response:
            given = request.headers.get(b"authorization") or b""
            if expected is None or not secrets.compare_digest(given, expected):
                if guarded and not _vouched_for(request):
                    raise RequestRefused(Kinds.UNAUTHORIZED, headers=((b"www-authenticate", b"Bearer"),))
                # Whatever page an operator looks at can have the browser send requests to this machine, and show the
                # certificate that was once chosen.
                site = request.headers.get(b"sec-fetch-site")
                if request.headers.get(b"origin") is not None or site not in (None, b"none"):
                    raise RequestRefused(Kinds.FORBIDDEN, "This is not for pages in browsers.")
            return await inner(request)

        return handle

    async def _health(self, _request: Request) -> Response:
        return _json(200, {"status": "ok"})

    async def _ready(self, _request: Request) -> Response:
        state = self._instance.readiness()
        status = ("degraded" if state.reason else "ready") if state.ready else "not ready"
        return _json(200 if state.ready else 503, {"status": status, "reason": state.reason})

    async def _metrics(self, request: Request) -> Response:
        openmetrics = b"application/openmetrics-text" in (request.headers.get(b"accept") or b"")
        text = render(await self._instance.metrics(), openmetrics=openmetrics).encode()
        return Response(200, Headers.of([(b"content-type", OPENMETRICS if openmetrics else PROMETHEUS)]), text)

    async def _workers(self, _request: Request) -> Response:
        return _json(200, self._instance.workers())

    async def _services(self, _request: Request) -> Response:
        return _json(200, await self._instance.services())

    async def _drain(self, request: Request) -> Response:
        return await _told(request, "drained", self._instance.drain)

    async def _undrain(self, request: Request) -> Response:
        return await _told(request, "not drained", self._instance.resume)

    async def _reload(self, _request: Request) -> Response:
        wrong = await self._instance.reload()
        return _json(422, {"status": "refused", "reason": wrong}) if wrong else _json(200, {"status": "reloaded"})


def _vouched_for(request: Request) -> bool:
    """Whether the client's certificate was verified, and is valid still: a connection may live longer."""
    if request.certificate is None:
        return False
    from cryptography import x509  # slow to load, and not everybody needs it

    try:
        certificate = x509.load_der_x509_certificate(request.certificate)
    except ValueError:  # what OpenSSL takes and nobody else reads
        return False
    return time.time() < certificate.not_valid_after_utc.timestamp()


async def _not_found(_request: Request) -> Response:
    raise RequestRefused(Kinds.NOT_FOUND)


def router_of(handlers: dict[str, Handler]) -> Router[Route]:
    """A router of handlers by route key."""
    report, registry = Report(), Registry()
    routes = []
    for name, handler in handlers.items():
        key = parse_key(name, report.place())
        assert key is not None, "our own routes are well formed"
        routes.append((key, Route(name, handler, 0, registry)))
    return Router(routes)


async def _told(request: Request, status: str, tell: Callable[[str, str], Awaitable[bool]]) -> Response:
    service, instance = request.params["service"], request.params["instance"]
    if not await tell(service, instance):
        raise RequestRefused(Kinds.NOT_FOUND, "There is no such instance; GET /services lists them.")
    return _json(200, {"service": service, "instance": instance, "status": status})


def _json(status: int, document: Any) -> Response:
    return Response(status, Headers.of([(b"content-type", b"application/json")]), _ENCODE(document))
