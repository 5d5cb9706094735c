"""One worker: a program of its own with one event loop, given its sockets by the supervisor.

Started as `python -m castlegate.server.worker CONFIG --listen FD --admin FD --ready FD --supervisor FD`: it writes a
byte to `--ready` once it serves, and stops when `--supervisor` ends. SIGTERM: not ready, then drain, then 0.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import sys

import uvloop

from castlegate.build import Generation
from castlegate.config.report import ConfigError, Report
from castlegate.document import load
from castlegate.edge.listener import Listener
from castlegate.edge.settings import Listen
from castlegate.errors import Kinds, RequestRefused
from castlegate.message import Handler, Request, Response
from castlegate.routing.route import Route
from castlegate.routing.router import Router
from castlegate.routing.template import parse_key
from castlegate.server.admin import Readiness, admin_handlers
from castlegate.telemetry.access_log import AccessLog
from castlegate.telemetry.metrics import Registry
from castlegate.wire.timer import Timer

logger = logging.getLogger("castlegate.worker")


class Worker:
    """What one worker runs."""

    def __init__(self, config: str, instance: str) -> None:
        self._registry = Registry()
        self._timer = Timer(asyncio.get_running_loop())
        self._generation = Generation(load(config), instance=instance, timer=self._timer, registry=self._registry)
        document = self._generation.document
        dropped = self._registry.counter("castlegate_access_log_dropped_total", "Lines not written.").child()
        log = document.access_log
        self._log = None if log.path == "off" else AccessLog(log.path, log.redact, dropped)
        unrouted = Route("-", _refuse, 0, self._registry)
        self._listener = Listener(document.listen, self._generation.router, unrouted, self._log, self._registry)
        routes = admin_handlers(self._registry, self.readiness)
        self._admin = Listener(Listen(), _router(routes), Route("-", _refuse, 0, Registry()), None, Registry())
        self._draining = False

    def readiness(self) -> Readiness:
        """Ready while at least one route can be served; what is amiss is the reason."""
        if self._draining:
            return Readiness(False, "draining")
        engine = self._generation.engine
        if engine is None:
            return Readiness(True)
        if engine.state.ready:
            return Readiness(True, engine.state.reason)
        document = self._generation.document
        http = any(
            route.call is not None and document.services[route.call.partition(".")[0]].http is not None
            for route in document.routes.values()
        )
        return Readiness(http, engine.state.reason)

    async def run(self, listening: socket.socket, admin: socket.socket, *, ready: int, supervisor: int) -> None:
        """Serve until SIGTERM, SIGINT or the supervisor's end, then drain."""
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        loop.add_reader(supervisor, stopped.set)  # nothing is ever written to it: readable means ended
        _allow_descriptors(self._generation.document.listen.limits.connections)
        await self._generation.start()
        await self._admin.start(admin)
        await self._listener.start(listening)
        # What was made at load lives as long as the worker: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        os.write(ready, b"1")
        await stopped.wait()
        loop.remove_reader(supervisor)
        self._draining = True
        grace = self._generation.document.drain
        await self._listener.drain(grace)
        await self._generation.stop(min(grace, 5.0))
        await self._admin.drain(0.1)
        if self._log is not None:
            self._log.close()


async def _refuse(_request: Request) -> Response:
    raise RequestRefused(Kinds.NOT_FOUND)


def _router(handlers: dict[str, Handler]) -> Router[Route]:
    report, registry = Report(), Registry()
    routes = []
    for name, handler in handlers.items():
        key = parse_key(name, report.place())
        assert key is not None, "our own routes are well formed"
        routes.append((key, Route(name, handler, 0, registry)))
    return Router(routes)


async def _run(arguments: argparse.Namespace) -> None:
    worker = Worker(arguments.config, arguments.instance)
    listening, admin = socket.socket(fileno=arguments.listen), socket.socket(fileno=arguments.admin)
    await worker.run(listening, admin, ready=arguments.ready, supervisor=arguments.supervisor)


def _allow_descriptors(connections: int) -> None:
    """As many open files as the system lets us have; each client's connection may need another one to a service."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft != resource.RLIM_INFINITY and soft < connections:
        logger.warning("%d open files are allowed, fewer than 'connections: %d' of 'listen'", soft, connections)


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="castlegate.server.worker")
    parser.add_argument("config")
    parser.add_argument("--listen", type=int, required=True)
    parser.add_argument("--admin", type=int, required=True)
    parser.add_argument("--ready", type=int, required=True)
    parser.add_argument("--supervisor", type=int, required=True)
    parser.add_argument("--instance", default=f"{socket.gethostname()}-{os.getppid()}")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        uvloop.run(_run(parser.parse_args()))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
