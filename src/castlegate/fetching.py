"""What the gateway asks of others for itself: keys, the state of a token. Not on behalf of a client's request."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from castlegate.config.report import DocumentPath
from castlegate.headers import Headers
from castlegate.wire.service_tls import ServiceTls


class Fetched(NamedTuple):
    """An answer, whole."""

    status: int
    headers: Headers
    body: bytes


class Fetcher(Protocol):
    """Asks one origin. A resource: whoever made it has it started and stopped."""

    async def fetch(
        self, method: bytes, target: bytes, headers: Headers, body: bytes, *, within: float, limit: int
    ) -> Fetched:
        """Ask for a path with its query. The answer's body is at most `limit` bytes and all is there `within` so many
        seconds; redirects are not followed. Raises `CallFailed`.
        """

    async def start(self) -> None:
        """Begin."""

    async def stop(self) -> None:
        """Close its connections, and end what it runs."""


MakeFetcher = Callable[[str, str, ServiceTls, DocumentPath], Fetcher]
"""Of a name for metrics, an origin such as `https://idp.example.com`, how it is trusted, and where that is said."""
