"""Active health checks of a service's instances. They run in the supervisor, which tells the workers what came of them.

Each check has a connection of its own, as a new call would: that old connections still work proves nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Set
from pathlib import Path

from castlegate.body import Body
from castlegate.config.addresses import Origin, parse_origin
from castlegate.config.files import signature
from castlegate.config.units import write_seconds
from castlegate.errors import CallFailed
from castlegate.headers import Headers
from castlegate.message import Call, Reply, Request
from castlegate.rules.instances import Instance, Out
from castlegate.rules.standing import Standing
from castlegate.telemetry.metrics import Registry
from castlegate.telemetry.stumbles import Stumbles
from castlegate.telemetry.trace import Ids
from castlegate.upstreams.http.connection import ServerConnection
from castlegate.upstreams.http.framing import AnswerReader
from castlegate.upstreams.http.health import Health
from castlegate.upstreams.http.pool import Pool
from castlegate.upstreams.http.settings import HttpService
from castlegate.wire.service_tls import ServiceCertificates
from castlegate.wire.timer import Timer
from castlegate.wire.watching import keep_current

logger = logging.getLogger("castlegate.health")

_FIELDS = b"user-agent: castlegate\r\nconnection: close\r\n"
_AT_ONCE = 64  # checks of a service that run at the same time
_LARGEST_BODY = 64 * 1024  # bytes that are read of an answer


class Checks:
    """Of one service. `outs` says who is not well."""

    def __init__(
        self,
        name: str,
        settings: Health,
        service: HttpService,
        timer: Timer,
        registry: Registry,
        folder: Path,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called whenever `outs` says something else. Raises `ConfigError`."""
        self._name = name
        self._settings = settings
        self._changed = changed
        self._now = timer.now
        tls = service.certified
        path = "services", name, "http", "tls"
        self._certificates = ServiceCertificates(tls, f"service {name}", path, folder) if service.encrypted else None
        self._seen = () if self._certificates is None else signature(self._certificates.files)
        self._watching: asyncio.Task[None] | None = None
        self._ask = Question(settings, service, timer, self._certificates)
        self._results = registry.counter(
            "castlegate_health_checks_total", "Checks of instances, by result.", "service", "result"
        )
        for result in ("passed", "failed"):
            self._results.child(name, result)
        self._room = asyncio.Semaphore(_AT_ONCE)
        # By name; changed by `follow` and, in its values, by the checks.
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._standings: dict[str, Standing] = {}
        self._since: dict[str, float] = {}  # loop time of the latest turn
        self.passed: dict[str, float] = {}
        """When the check of an instance began that passed last, loop time."""
        self.awaited: frozenset[str] = frozenset()
        """Instances of which every passed check is told, since calls could not reach them."""

    async def start(self) -> None:
        """Watch the files of its certificates; instances are checked from `follow` on."""
        if self._certificates is not None and self._certificates.files:
            self._watching = asyncio.create_task(keep_current(self._certificates, self._seen))

    async def stop(self) -> None:
        """End every check."""
        tasks = [*self._tasks.values(), *([] if self._watching is None else [self._watching])]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def follow(self, urls: Iterable[str]) -> None:
        """These are the instances now. Those that were there before go on as they were."""
        wanted = {origin.authority: origin for origin in map(parse_origin, urls)}
        for name in [name for name in self._tasks if name not in wanted]:
            self._tasks.pop(name).cancel()
            for kept in (self._standings, self._since, self.passed):
                kept.pop(name, None)
        for name, origin in wanted.items():
            if name not in self._tasks:
                standing = self._standings[name] = Standing(self._settings.unhealthy, self._settings.healthy)
                self._since[name] = self._now()
                self._tasks[name] = asyncio.create_task(self._keep_checking(name, origin, standing))

    @property
    def known(self) -> Set[str]:
        """The instances that are followed."""
        return self._standings.keys()

    def outs(self) -> dict[str, Out]:
        """Who is not well, why and since when; those that have not been checked yet among them."""
        return {name: Out(each.why, self._since[name]) for name, each in self._standings.items() if not each.well}

    async def _keep_checking(self, name: str, origin: Origin, standing: Standing) -> None:
        settings, stumbles = self._settings, Stumbles(logger, f"checking {name} of service {self._name}")
        vary = random.Random()  # noqa: S311 - spreads checks, guards nothing
        while True:
            began = self._now()
            try:
                async with self._room:
                    failure = await self._ask.ask(origin)
            except Exception as error:  # noqa: BLE001 - logged; the next check is made all the same
                stumbles.tell(error)
                failure = "it could not be checked, for a reason that the gateway did not foresee; its log has it"
            self._results.child(self._name, "failed" if failure else "passed").value += 1
            if not failure:
                self.passed[name] = began
            self._note(name, standing, failure)
            await asyncio.sleep(settings.interval * (1 + vary.uniform(-settings.jitter, settings.jitter)))

    def _note(self, name: str, standing: Standing, failure: str) -> None:
        first, before = standing.well is None, standing.why
        if standing.note(failure):
            self._since[name] = self._now()
            if failure:
                logger.warning("service %s: %s is out: %s", self._name, name, failure)
            elif not first:
                logger.info("service %s: %s is in again: it has passed its checks", self._name, name)
        elif standing.why == before and (failure or name not in self.awaited):
            return
        self._changed()


class Question:
    """What each instance is asked."""

    def __init__(
        self, settings: Health, service: HttpService, timer: Timer, certificates: ServiceCertificates | None
    ) -> None:
        self._settings = settings
        self._host = service.spoken_host
        self._certificates = certificates
        self._timer = timer
        self._reader = AnswerReader(service.pool.headers)
        self._pool = service.pool
        self._ids = Ids()

    async def ask(self, origin: Origin) -> str:
        """What is wrong with an instance; nothing if it is well."""
        settings = self._settings
        origin = origin if settings.port is None else origin._replace(port=settings.port)
        try:
            async with asyncio.timeout(settings.timeout):
                return await (self._connect(origin) if settings.connects_only else self._exchange(origin))
        except TimeoutError:
            return f"no answer within {write_seconds(settings.timeout)}"
        except CallFailed as failed:
            return failed.detail.rstrip(".")
        except OSError:
            return "it could not be reached"

    async def _connect(self, origin: Origin) -> str:
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, origin.host, origin.port)
        transport.close()
        return ""

    async def _exchange(self, origin: Origin) -> str:
        settings = self._settings
        certificates = self._certificates if origin.tls else None
        instance = Instance(origin.authority)
        pool = Pool(instance, origin.host, origin.port, self._pool, self._reader, self._timer, certificates)
        method, target = settings.method.encode(), settings.path.encode()
        host = self._host or origin.authority.encode()
        id_, trace = self._ids.fresh()
        now = self._timer.now()
        request = Request(id_, trace, "-", b"http", host, method, target, b"", Headers(), b"", now)
        call = Call(request, method, target, Headers(), b"", None, settings.timeout, idempotent=True)
        until = request.deadline = now + settings.timeout
        head = b"%b %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (method, target, host, _FIELDS)
        connection: ServerConnection | None = None
        reply: Reply | None = None
        try:
            connection = await pool.wait_for_one(until, fresh=True)
            instance.in_flight += 1  # the connection takes it back
            reply = await connection.send(call, head, until, None)
            return self._judge(reply, await _beginning(reply.body))
        finally:
            if reply is not None:
                reply.close()
            elif connection is not None and not connection.closed:
                connection.abandon(call)
            pool.close()

    def _judge(self, reply: Reply, body: bytes) -> str:
        settings = self._settings
        well = reply.status in settings.status if settings.status else 200 <= reply.status <= 299
        if not well:
            return f"its status was {reply.status}"
        if settings.body is not None and settings.body.encode() not in body:
            return "its answer had not the body that is expected"
        return ""


async def _beginning(body: bytes | Body) -> bytes:
    """As much of it as is looked at; the whole is read where it is no longer, for the service's sake."""
    if isinstance(body, bytes):
        return body[:_LARGEST_BODY]
    content = b""
    while len(content) < _LARGEST_BODY and (chunk := await body.read()):
        content += chunk
    return content[:_LARGEST_BODY]
