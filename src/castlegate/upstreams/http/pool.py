"""The connections to one instance: kept alive, bounded, and waited for in order.

Mutable state: `_idle` (the latest used last), `_open` (all, with those being made) and `_waiting` (who wants one);
changed by `acquire`, `put_back`, `forget` and the end of a connect, none of which waits.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque

from castlegate.body import Body
from castlegate.errors import CallFailed, Kind, Kinds, Outcome
from castlegate.rules.instances import Instance
from castlegate.upstreams.http.connection import ServerConnection
from castlegate.upstreams.http.framing import AnswerReader
from castlegate.upstreams.http.settings import HttpPool
from castlegate.upstreams.http.uploads import Uploads
from castlegate.waiting import Waiter
from castlegate.wire.burst import Burst
from castlegate.wire.service_tls import ServiceCertificates
from castlegate.wire.timer import Timer


class _Wanted(Waiter[ServerConnection]):
    """Someone who waits for a connection, until a deadline."""

    __slots__ = ("deadline", "fresh")
    deadline: float
    fresh: bool  # nothing may have been sent on it yet

    def expire(self) -> None:
        """Called by the timer."""
        self.fail(_not_sent(Kinds.CONNECT_TIMEOUT, "No connection to the service was to be had in time."))


class Pool:
    """Connections to `host:port`."""

    def __init__(
        self,
        instance: Instance,
        host: str,
        port: int,
        settings: HttpPool,
        reader: AnswerReader,
        timer: Timer,
        certificates: ServiceCertificates | None = None,
    ) -> None:
        self.instance = instance  # whose calls are under way here: a connection tells it when one has ended
        self.settings = settings
        self.reader = reader
        self.timer = timer
        self.uploads = Uploads(settings, timer)
        self.burst = Burst()
        self._host = host
        self._port = port
        self._certificates = certificates  # None: plain HTTP
        self._idle: deque[ServerConnection] = deque()
        self._open = 0
        self._waiting: deque[_Wanted] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._closing = False
        self._sweeping = False

    @property
    def idle(self) -> int:
        """Connections that nobody uses."""
        return len(self._idle)

    @property
    def open(self) -> int:
        """All connections, with those being made."""
        return self._open

    @property
    def waiting(self) -> int:
        """Calls that wait for a connection, or for their turn to upload."""
        return len(self._waiting) + self.uploads.waiting

    def take_idle(self, now: float) -> ServerConnection | None:
        """A connection that is there, None if one must be waited for."""
        oldest = now - self.settings.idle
        while self._idle:
            connection = self._idle.pop()
            if connection.closed:
                continue
            if connection.idle_since >= oldest:
                return connection
            self._open -= 1
            connection.close()
        return None

    async def wait_for_one(self, deadline: float, body: Body | None, *, fresh: bool) -> ServerConnection:
        """A connection, made or (unless it is to be `fresh`) handed back until `deadline` (loop time); raises
        `CallFailed`, not sent; or what `body`, if it is still arriving, failed with meanwhile.
        """
        if len(self._waiting) >= self.settings.waiting:
            raise _not_sent(Kinds.POOL_EXHAUSTED, "Too many requests wait for this service.")
        wanted = _Wanted()
        self._waiting.append(wanted)
        wanted.deadline, wanted.fresh = deadline, fresh
        self.timer.add(wanted, deadline)
        while fresh and self._idle and self._open >= self.settings.connections:
            self._open -= 1
            self._idle.popleft().close()
        if self._open < self.settings.connections:
            self._connect()
        if body is not None:
            body.on_failure(wanted.fail)
        try:
            return await wanted
        except asyncio.CancelledError:
            # A connection that was handed over in the same moment must not be lost.
            if wanted.done() and not wanted.failed():
                self.put_back(wanted.result())
            raise
        finally:
            if body is not None:
                body.on_failure(None)
            self.timer.remove(wanted, wanted.deadline)
            if wanted in self._waiting:
                self._waiting.remove(wanted)

    def put_back(self, connection: ServerConnection) -> None:
        """It can be used again: by whoever waits longest, else it is idle."""
        used, connection.handed_over = connection.handed_over, True
        for wanted in self._waiting:
            if not wanted.done() and not (used and wanted.fresh):
                self._waiting.remove(wanted)
                wanted.settle(connection)
                return
        if self._waiting and len(self._connecting) < sum(not wanted.done() for wanted in self._waiting):
            self._open -= 1  # they want fresh ones, and there was no room for those
            connection.close()
            self._connect()
            return
        if self._closing:
            self._open -= 1
            connection.close()
            return
        connection.idle_since = self.timer.now()
        self._idle.append(connection)
        if not self._sweeping:
            self._sweeping = True
            asyncio.get_running_loop().call_later(self.settings.idle, self._sweep)

    def forget(self, connection: ServerConnection) -> None:
        """It is closed."""
        self._open -= 1
        if connection in self._idle:
            self._idle.remove(connection)
        if connection.handed_over:
            self._connect_for_the_waiting()

    def close(self) -> None:
        """Close the idle ones; the others close when no call is left that wants one."""
        self._closing = True
        while self._idle:
            self._open -= 1
            self._idle.pop().close()
        if not self._waiting:
            for task in self._connecting:
                task.cancel()

    def _connect(self) -> None:
        self._open += 1
        task = asyncio.get_running_loop().create_task(self._make())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _make(self) -> None:
        try:
            async with asyncio.timeout(self.settings.connect_timeout):
                connection = await self._connected()
        except TimeoutError:
            self._failed(Kinds.CONNECT_TIMEOUT, "The service could not be reached in time.")
        except ssl.SSLCertVerificationError:
            self._failed(Kinds.CERTIFICATE, "The service could not prove who it is.")
        except ssl.SSLError:
            self._failed(Kinds.TLS, "The service and the gateway could not agree on TLS.")
        except (OSError, UnicodeError):  # UnicodeError: a name that cannot be looked up
            self._failed(Kinds.CONNECT, "The service could not be reached.")
        except BaseException:
            self._open -= 1
            raise
        else:
            if connection.closed:  # `forget` was told
                self._fail_one(Kinds.CONNECT, "The service closed the connection at once.")
            else:
                self.put_back(connection)

    async def _connected(self) -> ServerConnection:
        loop, connection = asyncio.get_running_loop(), ServerConnection(self)
        if self._certificates is None:
            await loop.create_connection(lambda: connection, self._host, self._port)
        else:
            await self._certificates.connect(connection, self._host, self._port)
        return connection

    def _failed(self, kind: Kind, detail: str) -> None:
        self._open -= 1
        self._fail_one(kind, detail)

    def _fail_one(self, kind: Kind, detail: str) -> None:
        """Tell one of the waiting, whom the failed connection was for; the others get another try."""
        while self._waiting:
            wanted = self._waiting.popleft()
            if not wanted.done():
                wanted.fail(_not_sent(kind, detail))
                break
        self._connect_for_the_waiting()

    def _connect_for_the_waiting(self) -> None:
        # The task that calls this from `_make` is still among `_connecting`.
        if self._open >= self.settings.connections:
            return
        if len(self._waiting) >= max(1, len(self._connecting)):
            self._connect()

    def _sweep(self) -> None:
        """Close what has not been used for long; the longest unused stand first."""
        now = self.timer.now()
        while self._idle and self._idle[0].idle_since <= now - self.settings.idle:
            connection = self._idle.popleft()
            if not connection.closed:
                self._open -= 1
                connection.close()
        self._sweeping = bool(self._idle) and not self._closing
        if self._sweeping:
            wait = self._idle[0].idle_since + self.settings.idle - now
            asyncio.get_running_loop().call_later(wait, self._sweep)


def _not_sent(kind: Kind, detail: str) -> CallFailed:
    return CallFailed(kind, Outcome.NOT_SENT, detail)
