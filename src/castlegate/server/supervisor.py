"""The program that `castlegate run` is: opens the sockets, keeps the workers, reloads, drains, answers the admin port.

It serves no client itself, so that whatever a request does to a worker, there is somebody left to say so and to replace
it. A reload is parsed once, prepared by every worker and only then switched to; any refusal changes nothing.

    SIGTERM, SIGINT  not ready, then drain, then 0        SIGHUP  read the configuration again
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from castlegate.build import Readiness
from castlegate.config.report import ConfigError, Report
from castlegate.document import Document, Loaded, load
from castlegate.guards.breaker import OPEN_BREAKERS
from castlegate.server.admin import AdminPort
from castlegate.server.broker import embedded_broker
from castlegate.server.control import Discard, Drain, Follow, Outs, Prepare, Refused, Switch
from castlegate.server.counting import Counting
from castlegate.server.notify import notify
from castlegate.server.orphans import wait_for_orphans
from castlegate.server.process import Place, WorkerProcess
from castlegate.server.rosters import Rosters, Watching
from castlegate.server.sockets import listen, place_of
from castlegate.telemetry.log_writer import LOG_FLAGS, LOG_MODE
from castlegate.telemetry.metrics import Registry
from castlegate.telemetry.stumbles import Stumbles
from castlegate.upstreams.http.roster import Roster

logger = logging.getLogger("castlegate.supervisor")

_encode = msgspec.msgpack.Encoder().encode

_PREPARE = 30.0  # seconds for a worker to make a generation
_SWITCH = 10.0  # and to switch to it
_BACKOFF = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0)  # seconds before a worker is replaced that ended soon after its start
_STEADY = 30.0  # seconds a worker must have lived for its end to be no sign of more to come
_TELLINGS = 5  # that GET /services waits for, where instances change faster than workers follow
_REFRESH = 0.25  # seconds that a busy worker may take to bring its gauges up to date
_WATCH = 1.0  # seconds between two looks at the file
_LAST = 7.0  # seconds beyond `drain.limit` for what a worker does when its clients are gone


def run(config: Path) -> int:
    """Serve until told to stop; returns the exit status. Raises `ConfigError` and `OSError` (address in use)."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Until the loop takes the signals: nothing runs yet that could be reloaded or drained.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    document, report = load(config)
    _tell_warnings(report)
    _check_log(document.access_log.path)
    listening = listen(document.listen.address, document.worker_count)
    (admin,) = listen(document.admin.address)
    with embedded_broker(document.kafka):
        return uvloop.run(Supervisor(config, document, listening).run(admin))


def _tell_warnings(report: Report) -> None:
    """What is served, but is hardly meant so."""
    for warning in report.warnings:
        logger.warning("%s", warning)


class Supervisor:
    """Of one instance."""

    def __init__(self, config: Path, document: Document, listening: list[socket.socket]) -> None:
        instance = f"{socket.gethostname()}-{os.getpid()}"
        self._config = config
        self._own = Registry()
        self._counting = Counting(document, config.parent, len(listening), self._own)
        counts, keys = self._counting.descriptor, self._counting.keys
        self._places = [
            Place(config, slot, len(listening), instance, each, counts, keys) for slot, each in enumerate(listening)
        ]
        self._rosters: Rosters  # made in the loop
        # What is served: changed by a reload alone.
        self._document = document
        self._version = self._asked = 1
        self._reloading = asyncio.Lock()
        # Reads configurations, which takes a while: requests go first.
        self._loader = ThreadPoolExecutor(1, "load", initializer=_give_way)
        self._seen = _stamp(config)
        # By slot; None while there is none.
        self._workers: list[WorkerProcess | None] = [None] * len(listening)
        self._stop = asyncio.Event()
        self._started = False
        self._draining = False
        self._reload_wanted = asyncio.Event()
        self._retired = Registry()  # what workers counted that are gone
        self._restarts = self._own.counter("castlegate_worker_restarts_total", "Workers that were replaced.").child()
        self._reloads = self._own.counter("castlegate_config_reloads_total", "Reloads by result.", "result")
        self._own.gauge("castlegate_workers", "Workers that serve.").watch(lambda: len(self._serving()))
        self._own.gauge("castlegate_config_version", "Counts what was loaded since the start.").watch(
            lambda: self._version
        )
        self._loaded_at = self._own.gauge(
            "castlegate_config_loaded_timestamp_seconds", "When what is served was loaded."
        ).child()
        for result in ("ok", "error"):
            self._reloads.child(result)

    async def run(self, admin: socket.socket) -> int:
        """Serve until told to stop; returns the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_wanted.set)
        self._rosters = Rosters(self._config.parent, len(self._places), self._own, self._tell_roster)
        port = AdminPort(self, self._document.admin, self._config.parent)
        await port.start(admin)
        stopped = asyncio.create_task(self._stop.wait())
        starting = asyncio.ensure_future(self._start_all())
        either: list[asyncio.Future[Any]] = [starting, stopped]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        status = 0
        keepers: list[asyncio.Task[None]] = []
        if starting.done() and (wrong := _failure(starting)):
            sys.stderr.write(f"{wrong}\n")
            status = 2 if isinstance(starting.exception(), _Refusal) else 1
        elif starting.done():
            self._loaded_at.value = time.time()
            self._started = True
            self._announce(admin)
            keepers = [asyncio.create_task(self._keep(place)) for place in self._places]
            keepers.append(asyncio.create_task(self._reload_when_told()))
            keepers.append(asyncio.create_task(self._counting.keep()))
            keepers.append(asyncio.create_task(wait_for_orphans(self._pids)))
            await stopped
        stopped.cancel()
        await self._drain(starting, keepers)
        await self._rosters.close()
        self._counting.close()
        await port.stop()
        self._loader.shutdown(wait=False, cancel_futures=True)
        return status

    # Workers.

    async def _start_all(self) -> None:
        try:
            await self._rosters.take(await self._rosters.prepare(self._document))
        except ConfigError as error:
            raise _Refusal(str(error)) from error
        await asyncio.gather(*[self._start(place, self._version, self._document) for place in self._places])

    async def _start(self, place: Place, version: int, document: Document, watching: Watching | None = None) -> None:
        """A worker that serves a configuration. Raises `_Refusal`, `ChildProcessError` or `TimeoutError`."""
        worker = self._workers[place.slot] = await WorkerProcess.start(place, partial(self._hear, place.slot))
        try:
            order = Prepare(version, _encode(document), self._rosters.rosters(watching))
            answer = await worker.ask(order, _PREPARE)
            if isinstance(answer, Refused):
                raise _Refusal(answer.reason)
            await worker.ask(Switch(version), _SWITCH)
        except BaseException:
            worker.kill()
            raise

    async def _keep(self, place: Place) -> None:
        """Replace the worker of a slot whenever it ends."""
        failures, stumbles = 0, Stumbles(logger, "replacing a worker")
        while True:
            worker = self._workers[place.slot]
            began = time.monotonic()
            if worker is not None:
                status = await worker.ended
                self._retired.add(worker.registry, gauges=False)
                self._counting.forget(place.slot)
                self._rosters.forget(place.slot)
                self._workers[place.slot] = None
                if self._draining:
                    return
                logger.error("worker %d ended with status %d and is replaced", worker.process.pid, status)
                self._restarts.value += 1
            failures = failures + 1 if time.monotonic() - began < _STEADY else 0
            await asyncio.sleep(_BACKOFF[min(failures, len(_BACKOFF) - 1)])
            if self._draining:
                return
            try:
                async with self._reloading:
                    if self._workers[place.slot] is None:  # else a reload has started it
                        await self._start(place, self._version, self._document)
            except (_Refusal, OSError) as error:  # TimeoutError and ChildProcessError are OSErrors
                logger.error("a worker could not be started: %s", error)
            except Exception as error:  # noqa: BLE001 - logged
                stumbles.tell(error)

    def _hear(self, slot: int, outs: Outs) -> None:
        self._rosters.hear(slot, outs.services)

    def _tell_roster(self, service: str, roster: Roster) -> None:
        for worker in self._workers:
            if worker is not None:
                worker.tell(Follow(service, roster))

    def _pids(self) -> set[int]:
        return {worker.process.pid for worker in self._workers if worker is not None}

    def _serving(self) -> list[WorkerProcess]:
        return [worker for worker in self._workers if worker is not None and worker.switched]

    async def _drain(self, starting: asyncio.Future[Any], keepers: list[asyncio.Task[None]]) -> None:
        self._draining = True
        notify("STOPPING=1")
        drain = self._document.drain
        workers = [worker for worker in self._workers if worker is not None]
        if self._serving() and drain.notice:
            for worker in workers:
                worker.tell(Drain(stop=False))
            await asyncio.sleep(drain.notice)
        workers = [worker for worker in self._workers if worker is not None]  # one may have been replaced meanwhile
        for place in self._places:
            place.listening.close()
        for worker in workers:
            worker.tell(Drain(stop=True))
        if workers:
            _, late = await asyncio.wait([worker.ended for worker in workers], timeout=drain.limit + _LAST)
            for worker in workers:
                if worker.ended in late:
                    logger.error("worker %d did not end in time: killed", worker.process.pid)
                    worker.kill()
        for task in keepers:
            task.cancel()
        starting.cancel()
        await asyncio.gather(starting, *keepers, return_exceptions=True)

    # Configuration.

    async def reload(self) -> str:
        """Read the configuration again; returns what went wrong, nothing if it is served now."""
        if not self._started:
            return "the gateway is still starting"
        async with self._reloading:
            self._seen = _stamp(self._config)
            notify("RELOADING=1")
            try:
                wrong = await self._try_reload()
            except Exception:
                logger.exception("the configuration could not be reloaded")
                wrong = "an error of the gateway's own, which its log tells"
            notify("READY=1")
        self._reloads.child("error" if wrong else "ok").value += 1
        if wrong:
            logger.error("the configuration is not reloaded, what was served goes on:\n%s", wrong)
        else:
            logger.info("the configuration is reloaded: %d routes", len(self._document.routes))
        return wrong

    async def _try_reload(self) -> str:
        if self._draining:
            return "the gateway is stopping"
        try:
            loaded = await asyncio.get_running_loop().run_in_executor(self._loader, load, self._config)
            self._check_fixed(loaded)
            _check_log(loaded.document.access_log.path)
        except (ConfigError, OSError) as error:
            return str(error)
        # Never a number again that was asked for before: an answer that comes late must not pass for another's.
        version = self._asked = self._asked + 1
        try:
            watching = await self._rosters.prepare(loaded.document)
        except ConfigError as error:
            return str(error)
        try:
            wrong = await self._have_served(version, loaded, watching)
        except BaseException:
            await self._rosters.discard(watching)
            raise
        if wrong:
            await self._rosters.discard(watching)
        return wrong

    async def _have_served(self, version: int, loaded: Loaded, watching: Watching) -> str:
        """What went wrong, if it is not served."""
        document = _encode(loaded.document)
        workers = self._serving()
        if not workers:
            return await self._prove(version, loaded.document, watching)
        prepare = Prepare(version, document, self._rosters.rosters(watching))
        answers = await asyncio.gather(*[worker.ask(prepare, _PREPARE) for worker in workers], return_exceptions=True)
        wrong = [str(each) for each in answers if isinstance(each, BaseException)]
        wrong += [each.reason for each in answers if isinstance(each, Refused)]
        if wrong:
            for worker in workers:
                worker.tell(Discard())
            return wrong[0]
        _tell_warnings(loaded.report)
        await self._take(version, loaded.document, watching)
        switched = await asyncio.gather(
            *[worker.ask(Switch(version), _SWITCH) for worker in workers], return_exceptions=True
        )
        for worker, answer in zip(workers, switched, strict=True):
            if isinstance(answer, BaseException):  # it would go on serving what is served no more
                logger.error("worker %d did not switch and is replaced: %s", worker.process.pid, answer)
                worker.kill()
        return ""

    async def _prove(self, version: int, document: Document, watching: Watching) -> str:
        """Nobody lives who could prepare it: a worker that is due must, at once, or what was served stays."""
        place = next((each for each in self._places if self._workers[each.slot] is None), None)
        if place is None:
            return "no worker serves that could prepare it: they are just being ended"
        try:
            await self._start(place, version, document, watching)
        except (_Refusal, OSError) as error:
            return str(error)
        await self._take(version, document, watching)
        return ""

    async def _take(self, version: int, document: Document, watching: Watching) -> None:
        self._version, self._document = version, document
        await self._rosters.take(watching)
        self._loaded_at.value = time.time()

    def _check_fixed(self, loaded: Loaded) -> None:
        """What only a restart can change."""
        before, after, at = self._document, loaded.document, loaded.report.place()
        embedded = [each.kafka is not None and each.kafka.bootstrap == "embedded" for each in (before, after)]
        for changed, place, name in (
            (before.listen.address != after.listen.address, at.field("listen", "address"), "listen.address"),
            ((before.listen.tls is None) != (after.listen.tls is None), at.field("listen", "tls"), "listen.tls"),
            (before.state != after.state, at.field("state"), "state"),
            (
                before.limit_store.entries != after.limit_store.entries,
                at.field("limit_store", "entries"),
                "limit_store.entries",
            ),
            (before.admin != after.admin, at.field("admin"), "admin"),
            (before.worker_count != after.worker_count, at.field("workers"), "workers"),
            (embedded[0] != embedded[1], at.field("kafka"), "the embedded broker"),
        ):
            if changed:
                place.mistake(f"'{name}' cannot be changed by a reload; restart the gateway")
        loaded.report.raise_if_any()

    async def _reload_when_told(self) -> None:
        """On SIGHUP, and when the file changes if it is watched."""
        stumbles = Stumbles(logger, "watching the configuration")
        while True:
            try:
                if await self._is_reload_due():
                    await self.reload()
            except Exception as error:  # noqa: BLE001 - logged
                stumbles.tell(error)

    async def _is_reload_due(self) -> bool:
        """Waits for a signal, or for the next look at the file."""
        try:
            await asyncio.wait_for(self._reload_wanted.wait(), _WATCH)
        except TimeoutError:
            return self._document.watch and _stamp(self._config) != self._seen
        self._reload_wanted.clear()
        return True

    # For operators.

    def readiness(self) -> Readiness:
        """Ready while a worker is; what is amiss in any of them is the reason."""
        if self._draining:
            return Readiness(False, "draining")
        serving = self._serving()
        reasons = sorted({worker.state.reason for worker in serving if worker.state.reason})
        if len(serving) < len(self._places):
            reasons.append(f"{len(serving)} of {len(self._places)} workers serve")
        return Readiness(any(worker.state.ready for worker in serving), "; ".join(reasons))

    async def metrics(self) -> Registry:
        """Of all workers together, with those that are gone."""
        await self._refresh()
        together = Registry()
        self._own.refresh()
        together.add(self._own, gauges=True)
        together.add(self._retired, gauges=False)
        for worker in self._workers:
            if worker is not None:
                together.add(worker.registry, gauges=True)
        return together

    def workers(self) -> list[dict[str, Any]]:
        """Each of them, for people."""
        return [
            {"slot": place.slot, "pid": worker and worker.process.pid, "version": worker and worker.switched,
             "ready": bool(worker and worker.state.ready), "reason": worker.state.reason if worker else "not running"}
            for place, worker in zip(self._places, self._workers, strict=True)
        ]  # fmt: skip

    async def services(self) -> dict[str, Any]:
        """Their instances: who is out, since when and why; and the breakers that are open, with in how many workers.
        Workers know what is told here.
        """
        for _ in range(_TELLINGS):
            self._rosters.tell_now()
            await self._refresh()
            if not self._rosters.tell_now():
                break
        services = self._rosters.services()
        gauges = (await self.metrics()).families.get(OPEN_BREAKERS)
        for (service, of), gauge in gauges.children.items() if gauges is not None else ():
            if gauge.value:
                services.setdefault(service, {}).setdefault("open_breakers", {})[of] = int(gauge.value)
        return services

    async def drain(self, service: str, instance: str) -> bool:
        """Give an instance of a service nothing new; whether there is one. Workers know of it when this returns."""
        known = self._rosters.drain(service, instance)
        await self._refresh()
        return known

    async def resume(self, service: str, instance: str) -> bool:
        """The contrary."""
        known = self._rosters.resume(service, instance)
        await self._refresh()
        return known

    async def _refresh(self) -> None:
        """Have workers say what is new, when they have followed all orders before; busy ones are not waited for."""
        await asyncio.gather(*[worker.refresh(_REFRESH) for worker in self._workers if worker is not None])

    def _announce(self, admin: socket.socket) -> None:
        said = self._document.listen.tls, self._document.admin.tls
        scheme, admins = ["http" if each is None else "https" for each in said]
        count = len(self._places)
        workers = "" if count == 1 else f" and {count} workers"
        sys.stderr.write(
            f"castlegate listens on {scheme}://{place_of(self._places[0].listening)} with "
            f"{len(self._document.routes)} routes{workers}; "
            f"health, readiness and metrics are on {admins}://{place_of(admin)}\n"
        )
        sys.stderr.flush()
        notify("READY=1")


class _Refusal(Exception):
    """A worker cannot make what it was given."""


def _failure(starting: asyncio.Future[Any]) -> str:
    error = starting.exception()
    if error is not None and not isinstance(error, (_Refusal, OSError)):
        raise error
    return "" if error is None else str(error)


def _stamp(config: Path) -> tuple[int, int, int] | None:
    """Changes whenever the file does; a link that is turned elsewhere counts too."""
    try:
        found = config.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _give_way() -> None:
    """Have this thread get a third of a core where a worker wants all of it. Elsewhere than on Linux it would be the
    whole process, admin port included.
    """
    if sys.platform == "linux":
        os.nice(5)


def _check_log(path: str) -> None:
    if path in ("stdout", "off"):
        return
    try:
        os.close(os.open(path, LOG_FLAGS, LOG_MODE))
    except OSError as error:
        raise OSError(error.errno, f"the access log {path} cannot be written: {error.strerror}") from error
