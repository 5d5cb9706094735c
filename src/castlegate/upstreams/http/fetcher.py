"""Requests that the gateway makes for itself, over the same connections as those that it makes for clients."""

from __future__ import annotations

import asyncio
from pathlib import Path

from castlegate.config.files import signature
from castlegate.config.report import DocumentPath, show_path
from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.fetching import Fetched
from castlegate.headers import Headers
from castlegate.message import Call, Request
from castlegate.telemetry.metrics import Registry
from castlegate.telemetry.trace import Ids
from castlegate.upstreams.http.settings import HttpPool, HttpService
from castlegate.upstreams.http.upstream import HttpUpstream
from castlegate.wire.service_tls import ServiceCertificates, ServiceTls
from castlegate.wire.timer import Timer
from castlegate.wire.watching import keep_current

_POOL = HttpPool(connections=4, waiting=64, connect_timeout=3.0, read_timeout=3.0)


class HttpFetcher:
    """See `castlegate.fetching.Fetcher`."""

    def __init__(
        self,
        name: str,
        origin: str,
        tls: ServiceTls,
        path: DocumentPath,
        timer: Timer,
        registry: Registry,
        folder: Path,
    ) -> None:
        """`path`: where `tls` stands in the configuration; its files are relative to `folder`."""
        service = HttpService(instances=[origin], tls=tls, pool=_POOL)
        self._certificates: ServiceCertificates | None = None
        if origin.startswith("https://"):
            self._certificates = ServiceCertificates(tls, show_path(path), path, folder)
            # At once: what is written after they were read is a change.
            self._seen = signature(self._certificates.files)
        self._watching: asyncio.Task[None] | None = None
        self._upstream = HttpUpstream(name, service, timer, registry, folder, self._certificates)
        self._call = self._upstream.bind("")
        self._host = origin.partition("://")[2].encode()
        self._now = timer.now
        self._ids = Ids()

    async def start(self) -> None:
        """Watch the files of its certificates; connections are made when they are needed."""
        if self._certificates is not None and self._certificates.files:
            self._watching = asyncio.get_running_loop().create_task(keep_current(self._certificates, self._seen))

    async def stop(self) -> None:
        """Close the idle connections; busy ones close when they are given back."""
        self._upstream.close()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])

    async def fetch(
        self, method: bytes, target: bytes, headers: Headers, body: bytes, *, within: float, limit: int
    ) -> Fetched:
        """See `castlegate.fetching.Fetcher`."""
        request_id, trace = self._ids.fresh()
        now = self._now()
        request = Request(request_id, trace, "-", b"https", self._host, method, target, b"", headers, body, now)
        request.deadline = now + within
        call = Call(request, method, target, headers, body, None, within, idempotent=method == b"GET")
        reply = await self._call(call)
        try:
            content = await reply.content(limit, request.deadline, self._now)
        except TimeoutError as error:
            raise CallFailed(Kinds.TIMEOUT, Outcome.ANSWERED) from error
        if content is None:
            raise CallFailed(Kinds.BAD_ANSWER, Outcome.ANSWERED, f"The answer is larger than {limit} bytes.")
        return Fetched(reply.status, reply.headers, content)
