"""One worker: a program of its own with one event loop, given its sockets and its configuration by the supervisor.

    python -m castlegate.server.worker --control FD --listen FD --metrics FD --slot N --workers N ...
It prepares generations as it is told and switches to them; requests in flight finish on the one that they began with.
It drains when it is told to, and when the supervisor's end of the control line has gone.
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
from pathlib import Path

import msgspec
import uvloop

from castlegate.build import Generation, forget_unused
from castlegate.config.files import Signature, signature
from castlegate.config.report import ConfigError, Report
from castlegate.document import Document, Loaded
from castlegate.edge.listener import Listener
from castlegate.errors import Kinds, RequestRefused
from castlegate.message import Request, Response
from castlegate.routing.route import Route
from castlegate.server.control import (
    Channel,
    Discard,
    Follow,
    Metrics,
    Order,
    Outs,
    Prepare,
    Prepared,
    Refresh,
    Refreshed,
    Refused,
    State,
    Switched,
)
from castlegate.server.control import Drain as DrainOrder
from castlegate.stores.counts import Counts, Layout
from castlegate.telemetry.access_log import AccessLog
from castlegate.telemetry.metrics import Announcement, Memory, Registry
from castlegate.telemetry.stumbles import Stumbles
from castlegate.upstreams.http.roster import Roster
from castlegate.wire.certificates import FromFiles
from castlegate.wire.timer import Timer
from castlegate.wire.watching import keep_current

logger = logging.getLogger("castlegate.worker")

_decode = msgspec.msgpack.Decoder(Document).decode

_REFRESH = 0.25  # seconds between two looks at gauges, readiness and the loop's lag
_OWN_FILES = 64  # that a worker has open besides connections
_COLLECT_EVERY = 16  # reloads between two full collections
_RETIRE = 60.0  # seconds in which requests may finish on a generation that was replaced


class Worker:
    """What one worker runs."""

    def __init__(self, arguments: argparse.Namespace, channel: Channel) -> None:
        self._arguments = arguments
        self._channel = channel
        self._announced: list[Announcement] = []
        self._registry = Registry(Memory(arguments.metrics), self._announced.append)
        layout = Layout(arguments.keys, arguments.workers)
        self._counts = Counts(layout, arguments.counts, arguments.slot, self._registry)
        self._timer = Timer(asyncio.get_running_loop())
        self._dropped = self._registry.counter("castlegate_access_log_dropped_total", "Lines not written.").child()
        self._lag = self._registry.histogram(
            "castlegate_event_loop_lag_seconds", "How late the workers' loops ran what was due."
        ).child()
        self._unrouted = Route("-", _refuse, 0, self._registry)
        # Changed by orders alone.
        self._prepared: tuple[int, Generation, AccessLog | None] | None = None
        self._generation: Generation | None = None
        self._alive: list[Generation] = []  # with those on which requests are still to end
        self._listener: Listener | None = None
        self._log: AccessLog | None = None
        self._watching: dict[FromFiles, asyncio.Task[None]] = {}
        self._read: dict[FromFiles, Signature] = {}  # how the files of what is prepared looked
        self._retiring: set[asyncio.Task[None]] = set()
        self._state = State(False, "starting")
        self._outs = Outs({})  # as it was told
        self._stumbles = Stumbles(logger, "telling metrics and readiness")
        self._unfit = Stumbles(logger, "following what is known of a service's instances")

    async def run(self) -> int:
        """Follow orders to the end; returns the exit status."""
        look = asyncio.create_task(self._look())
        try:
            while not isinstance(order := await self._channel.receive(), DrainOrder) or not order.stop:
                if order is None:
                    await self._outlive_the_supervisor()
                    break
                await self._follow(order)
        finally:
            look.cancel()
        await self._drain()
        return 0

    async def _outlive_the_supervisor(self) -> None:
        """Serve on for as long as balancers need to notice that the admin port does not answer."""
        logger.warning("the supervisor has gone: draining")
        if self._listener is not None and self._generation is not None:
            self._listener.tell_to_close()
            await asyncio.sleep(self._generation.document.drain.notice)

    async def _follow(self, order: Order) -> None:
        if isinstance(order, Prepare):
            await self._prepare(order)
        elif isinstance(order, Discard):
            await self._discard()
        elif isinstance(order, Follow):
            self._settle(order.service, order.roster)
        elif isinstance(order, Refresh):
            self._report()
            self._channel.tell(Refreshed(order.number))
        elif isinstance(order, DrainOrder):
            if self._listener is not None:
                self._listener.tell_to_close()
        elif self._prepared is not None and self._prepared[0] == order.version:
            await self._switch()
        self._tell_metrics()

    def _settle(self, service: str, roster: Roster) -> None:
        """Where it does not fit, that is no reason to end: the next one is told all of it again."""
        for generation in self._living():
            try:
                generation.follow(service, roster)
            except Exception as error:  # noqa: BLE001 - logged
                self._unfit.tell(error)

    async def _prepare(self, order: Prepare) -> None:
        await self._discard()
        arguments = self._arguments
        try:
            # Not in a thread: the loop would get the interpreter back only every 5 ms, after each of its system calls.
            generation = Generation(
                Loaded(_decode(order.document), Report(Path(arguments.config).parent)),
                instance=arguments.instance,
                slot=arguments.slot,
                workers=arguments.workers,
                timer=self._timer,
                registry=self._registry,
                counts=self._counts,
                previous=self._generation,
            )
            # At once: what is written after they were read is a change.
            self._read = {made: signature(made.files) for made in generation.certificates}
            carried = {} if self._generation is None else self._generation.upstreams
            for name, roster in order.rosters.items():
                if generation.upstreams.get(name) is not carried.get(name):  # those serve, and are told when it does
                    generation.follow(name, roster)
            await generation.compile()
            wanted = generation.document.access_log
            log = AccessLog.open(wanted.path, generation.document.redacted, self._dropped, self._log)
            self._prepared = order.version, generation, log
            await generation.start()
        except Exception as error:  # noqa: BLE001 - whatever it is, what was served goes on; told to the supervisor
            reason = str(error)
            if not isinstance(error, (ConfigError, OSError)):
                self._stumbles.tell(error)
                reason = "it could not be prepared, for a reason that the gateway did not foresee; its log has it"
            await self._discard()
            forget_unused(self._living())
            self._channel.tell(Refused(order.version, reason))
            return
        self._tell_metrics()
        self._channel.tell(Prepared(order.version))

    async def _discard(self) -> None:
        if self._prepared is not None:
            _, generation, log = self._prepared
            self._prepared = None
            if log is not None:
                self._retire_log(log)
            await generation.retire(self._living(), 0.0)

    def _living(self) -> list[Generation]:
        """All that something may be asked of, now or later."""
        return self._alive if self._prepared is None else [*self._alive, self._prepared[1]]

    async def _switch(self) -> None:
        assert self._prepared is not None
        version, generation, log = self._prepared
        self._prepared = None
        before, self._generation = self._generation, generation
        self._alive.append(generation)
        generation.watch()
        generation.dress(self._unrouted)
        document = generation.document
        former, self._log = self._log, log
        if log is not None and former is not None and log.writer is former.writer:
            log.writer.reopen()
        if self._listener is None:
            self._listener = Listener(
                document.listen,
                generation.router,
                self._unrouted,
                self._log,
                self._registry,
                generation.client_certificates,
                dropped=generation.told_names,
                share=self._arguments.workers,
            )
            self._listener.bound(_allowed_connections(self._listener.max_connections))
            await self._listener.start(socket.socket(fileno=self._arguments.listen))
        else:
            self._listener.adopt(
                document.listen,
                generation.router,
                self._log,
                generation.client_certificates,
                dropped=generation.told_names,
            )
        self._watch_certificates(generation)
        if before is not None:
            self._retire(before)
        if former is not None:
            self._retire_log(former)
        # What was made at load lives as long as the generation: the collector need not look at it again. Of what is
        # frozen and no longer used, cycles are found by a full collection, which holds up requests for tens of
        # milliseconds: not at every reload.
        if version % _COLLECT_EVERY == 0:
            gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._tell_state()
        self._channel.tell(Switched(version))

    def _watch_certificates(self, generation: Generation) -> None:
        """Those that are carried over go on being watched: a change between two looks must not be missed."""
        before, self._watching = self._watching, {}
        for made in generation.certificates:
            if made.files:
                self._watching[made] = (
                    before.pop(made) if made in before else asyncio.create_task(keep_current(made, self._read[made]))
                )
        for task in before.values():
            task.cancel()

    def _retire(self, generation: Generation) -> None:
        task = asyncio.create_task(self._retire_when_unused(generation))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    def _retire_log(self, log: AccessLog) -> None:
        """It is written to no more, unless the one in use has the same writer."""
        if self._log is None or self._log.writer is not log.writer:
            asyncio.get_running_loop().run_in_executor(None, log.writer.close)  # it waits for the disk

    async def _retire_when_unused(self, generation: Generation) -> None:
        assert self._listener is not None
        await self._listener.finished(self._listener.in_flight(), max(_RETIRE, generation.longest_timeout()))
        self._alive.remove(generation)
        await generation.retire(self._living(), 0.0)

    async def _drain(self) -> None:
        for task in (*self._retiring, *self._watching.values()):
            task.cancel()
        if self._listener is not None and self._generation is not None:
            grace = self._generation.document.drain.limit
            await self._listener.drain(grace)
            await self._end_all(min(grace, 5.0))
        if self._log is not None:
            self._log.writer.close()
        self._report()
        self._channel.close()

    async def _end_all(self, grace: float) -> None:
        """What the generations share is stopped by the last that has it."""
        ending = list(self._living())
        self._prepared = None
        while ending:
            generation = ending.pop()
            try:
                await generation.retire(ending, grace)
            except Exception as error:  # noqa: BLE001 - logged; the others are to end all the same
                self._stumbles.tell(error)

    async def _look(self) -> None:
        """Refresh gauges, tell readiness when it changes, and measure how late this runs."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _REFRESH
            await asyncio.sleep(_REFRESH)
            self._lag.observe(max(0.0, loop.time() - due))
            self._report()

    def _report(self) -> None:
        for step in (self._registry.refresh, self._tell_metrics, self._tell_state, self._tell_outs):
            try:
                step()
            except Exception as error:  # noqa: BLE001 - logged
                self._stumbles.tell(error)

    def _tell_state(self) -> None:
        state = self._state
        if self._generation is not None and self._listener is not None:
            state = State(*self._generation.readiness())
        if state != self._state:
            self._state = state
            self._channel.tell(state)

    def _tell_outs(self) -> None:
        outs = Outs({} if self._generation is None else self._generation.outs())
        if outs != self._outs:
            self._outs = outs
            self._channel.tell(outs)

    def _tell_metrics(self) -> None:
        if self._announced:
            self._channel.tell(Metrics(list(self._announced)))
            self._announced.clear()


async def _refuse(_request: Request) -> Response:
    raise RequestRefused(Kinds.NOT_FOUND)


def _allowed_connections(wanted: int) -> int:
    """How many clients there may be: a quarter of the files stays for connections to services. More are sent away with
    503 while there are files left to say so, and to answer those that are there.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    allowed = max(1, (soft - _OWN_FILES) * 3 // 4)
    if allowed < wanted:
        logger.warning("%d open files are allowed: %d clients at once are served, not %d", soft, allowed, wanted)
    return allowed


async def _run(arguments: argparse.Namespace) -> int:
    # The supervisor decides when a worker ends; a signal to the whole group must not get ahead of it.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    channel = await Channel.open(socket.socket(fileno=arguments.control), Order)
    return await Worker(arguments, channel).run()


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="castlegate.server.worker")
    parser.add_argument("config", help="where the configuration was read: files that it names are relative to it")
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--listen", type=int, required=True)
    parser.add_argument("--metrics", type=int, required=True)
    parser.add_argument("--counts", type=int, required=True)
    parser.add_argument("--keys", type=int, required=True)
    parser.add_argument("--slot", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--instance", required=True)
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format=f"%(asctime)s [{os.getpid()}] %(levelname)s %(name)s: %(message)s",
    )
    return uvloop.run(_run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
