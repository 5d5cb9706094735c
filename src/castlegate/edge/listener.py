"""One listening socket and its connections: how many, how long each may take, and how they are drained.

Timeouts of connections are found by a look at all of them twice a second: nothing is armed per request.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, cast
from weakref import WeakSet

from castlegate.edge.connection import ClientConnection
from castlegate.edge.exchange import Exchange
from castlegate.edge.forwarded import Forwarding
from castlegate.edge.framing import HeadReader
from castlegate.edge.handshake import TlsConnection
from castlegate.edge.settings import Listen
from castlegate.routing.route import Route
from castlegate.routing.router import Router
from castlegate.telemetry.access_log import AccessLog
from castlegate.telemetry.metrics import Counter, Registry
from castlegate.telemetry.trace import Ids
from castlegate.wire.burst import Burst

if TYPE_CHECKING:
    from collections.abc import Callable

    from castlegate.edge.tls import Certificates

_FEW_SENT_AWAY, _MOST_SENT_AWAY = 8, 64  # connections over the limit that linger at once: a quarter of the limit
_LOOK = 0.5  # seconds between two looks at all connections


class Listener:
    """What the connections of one socket share."""

    def __init__(
        self,
        settings: Listen,
        router: Router[Route],
        unrouted: Route,
        log: AccessLog | None,
        registry: Registry,
        certificates: Certificates | None = None,
        *,
        dropped: frozenset[str] = frozenset(),
        share: int = 1,
    ) -> None:
        """`dropped`: fields of clients that nobody gets, by their `spelling`. `share`: among how many listeners the
        instance's connections are divided.
        """
        # What a reload replaces; connections that are open keep the limits that they began with.
        self.settings = settings
        self.router = router
        self.log = log
        self.dropped = dropped
        self.reader = HeadReader(settings.limits.headers, settings.limits.uri, dropped)
        self.forwarding = Forwarding(settings.trusted_proxies, settings.name)
        self.certificates = certificates
        self.max_connections = -(-settings.limits.connections // share)
        # For good.
        self._readers = WeakSet([self.reader])  # of connections that are open too: what is dropped holds for all
        self.scheme = b"http" if certificates is None else b"https"
        self.unrouted = unrouted  # what requests count as that no route is for
        self.ids = Ids()
        self.burst = Burst()
        self.connections: set[ClientConnection | TlsConnection] = set()  # the latter until their handshake is done
        self._sent_away: set[ClientConnection] = set()  # they were one too many, and are given time to read so
        self.closing = False  # clients are told to close
        self.draining = False  # and no new ones are taken
        self.loop = asyncio.get_running_loop()
        self._share = share
        self._most = sys.maxsize
        self._refusals = registry.counter("castlegate_refused_total", "Requests refused, by reason.", "reason")
        self.bytes_in: Counter = registry.counter("castlegate_received_bytes_total", "Read from clients.").child()
        self.bytes_out: Counter = registry.counter("castlegate_sent_bytes_total", "Written to clients.").child()
        self.accepted: Counter = registry.counter("castlegate_connections_total", "Client connections taken.").child()
        registry.gauge("castlegate_connections", "Client connections open.").watch(lambda: len(self.connections))
        self._date = (0, b"")
        self._server: asyncio.Server | None = None
        self._look: asyncio.TimerHandle | None = None
        self._emptied: Callable[[], None] | None = None

    async def start(self, listening: socket.socket) -> None:
        """Accept on a socket that is bound already."""
        self._server = await self.loop.create_server(self._connection(), sock=listening, backlog=2048)
        self._look = self.loop.call_later(_LOOK, self._look_at_all)

    def adopt(
        self,
        settings: Listen,
        router: Router[Route],
        log: AccessLog | None,
        certificates: Certificates | None = None,
        *,
        dropped: frozenset[str] = frozenset(),
    ) -> None:
        """Serve with these from now on; what is being answered goes on with what it began with."""
        if dropped != self.dropped:
            self.dropped = dropped
            for reader in self._readers:
                reader.drop(dropped)
        if settings != self.settings:
            self.settings = settings
            self.reader = HeadReader(settings.limits.headers, settings.limits.uri, dropped)
            self._readers.add(self.reader)
            self.forwarding = Forwarding(settings.trusted_proxies, settings.name)
            self.max_connections = min(self._most, -(-settings.limits.connections // self._share))
        self.router = router
        self.log = log
        self.certificates = certificates

    def bound(self, most: int) -> None:
        """Whatever the settings say, there may be no more connections than this."""
        self._most = most
        self.max_connections = min(self.max_connections, most)

    def tell_to_close(self) -> None:
        """From now on every answer ends its connection; new connections are still taken."""
        self.closing = True

    async def drain(self, grace: float) -> None:
        """Accept no more; let what is in flight finish within `grace` seconds, then cut it."""
        self.closing = self.draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.drain()
        for refused in list(self._sent_away):
            refused.abort()
        if self.connections:
            emptied = asyncio.Event()
            self._emptied = emptied.set
            try:
                await asyncio.wait_for(emptied.wait(), grace)
            except TimeoutError:
                for connection in list(self.connections):
                    connection.abort()
        if self._look is not None:
            self._look.cancel()

    def in_flight(self) -> list[Exchange]:
        """Requests that have begun and not ended."""
        return [exchange for connection in self.connections if isinstance(connection, ClientConnection)
                for exchange in connection.exchanges()]  # fmt: skip

    async def finished(self, exchanges: list[Exchange], limit: float) -> None:
        """Wait until all of these have ended, for `limit` seconds at most."""
        end = self.loop.time() + limit
        while self.loop.time() < end and not all(exchange.ended for exchange in exchanges):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK)

    def date(self) -> bytes:
        """Now, for the field `Date`."""
        second = int(time.time())
        if second != self._date[0]:
            self._date = (second, formatdate(second, usegmt=True).encode())
        return self._date[1]

    def refused(self, reason: str) -> None:
        """Count a refusal."""
        self._refusals.child(reason).value += 1

    def send_away(self, connection: ClientConnection) -> bool:
        """It is one too many; whether there is room for it to linger until it has read so."""
        most = max(_FEW_SENT_AWAY, min(_MOST_SENT_AWAY, self.max_connections // 4))
        room = not self.draining and len(self._sent_away) < most
        if room:
            self._sent_away.add(connection)
        return room

    def forget(self, connection: ClientConnection | TlsConnection) -> None:
        """It is closed."""
        self.connections.discard(connection)
        if self._sent_away and isinstance(connection, ClientConnection):
            self._sent_away.discard(connection)
        if not self.connections and self._emptied is not None:
            self._emptied()

    def _connection(self) -> Callable[[], ClientConnection | TlsConnection]:
        if self.certificates is None:
            return lambda: ClientConnection(self)
        return lambda: TlsConnection(self, cast("Certificates", self.certificates))  # a reload replaces them

    def _look_at_all(self) -> None:
        self._look = self.loop.call_later(_LOOK, self._look_at_all)
        now = self.loop.time()
        for connection in [each for each in (*self.connections, *self._sent_away) if each.expires < now]:
            connection.expire()
