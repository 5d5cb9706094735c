"""A worker as the supervisor sees it: started, spoken to, mirrored, and gone."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from castlegate.server.control import (
    Channel,
    Metrics,
    Order,
    Outs,
    Prepare,
    Prepared,
    Refresh,
    Refreshed,
    Refused,
    State,
    Switch,
    Switched,
    Word,
)
from castlegate.telemetry.metrics import Memory, Registry


class Place(NamedTuple):
    """What all the workers of a slot are given, one after another."""

    config: Path
    slot: int
    workers: int
    instance: str
    listening: socket.socket
    counts: int  # descriptor of what limits count
    keys: int


class WorkerProcess:
    """One started worker. `switched`: the latest version it said that of."""

    def __init__(
        self,
        place: Place,
        process: subprocess.Popen[bytes],
        channel: Channel,
        registry: Registry,
        hear: Callable[[Outs], None],
    ) -> None:
        self.place = place
        self._hear = hear
        self.process = process
        self.registry = registry  # mirrors the worker's
        self.state = State(False, "starting")
        self.switched = 0
        self._channel = channel
        self._asked = 0  # the version that `_answer` is to be about
        self._answer: asyncio.Future[Prepared | Refused | Switched] | None = None
        self._refreshes = 0
        self._refreshing: dict[int, asyncio.Future[None]] = {}  # those that are waited for, by number
        self.ended = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, place: Place, hear: Callable[[Outs], None]) -> WorkerProcess:
        """A fresh program with the slot's socket: never a fork of this one. `hear` is told what it says of instances.

        Nothing is awaited once it runs: the caller knows of it before anybody can see its end.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        channel = await Channel.open(ours, Word)
        memory = Memory.create()
        handed = {
            "--control": theirs.fileno(),
            "--listen": place.listening.fileno(),
            "--metrics": memory,
            "--counts": place.counts,
        }
        command = [sys.executable, "-m", "castlegate.server.worker", str(place.config), "--instance", place.instance]
        figures = {"--slot": place.slot, "--workers": place.workers, "--keys": place.keys}
        for name, value in (handed | figures).items():
            command += [name, str(value)]
        try:
            process = subprocess.Popen(command, pass_fds=tuple(handed.values()))  # noqa: ASYNC220, S603
            registry = Registry(Memory(memory))
        except OSError:
            channel.close()
            raise
        finally:
            theirs.close()
            os.close(memory)
        return cls(place, process, channel, registry, hear)

    def tell(self, order: Order) -> None:
        """Send an order that asks for no answer."""
        self._channel.tell(order)

    async def ask(self, order: Prepare | Switch, within: float) -> Prepared | Refused | Switched:
        """Send an order and wait for what it says to it; raises `TimeoutError`, or `ChildProcessError` if it ends."""
        answer: asyncio.Future[Prepared | Refused | Switched] = asyncio.get_running_loop().create_future()
        self._asked, self._answer = order.version, answer
        self._channel.tell(order)
        either: list[asyncio.Future[Any]] = [answer, self.ended]
        await asyncio.wait(either, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        if self.ended.done():
            raise ChildProcessError(f"a worker ended with status {self.process.poll()}")
        raise TimeoutError(f"a worker did not answer within {within:g} s")

    async def refresh(self, within: float) -> None:
        """Have its gauges brought up to date; a worker that is busy is not waited for longer than `within` seconds."""
        self._refreshes += 1
        number, fresh = self._refreshes, asyncio.get_running_loop().create_future()
        self._refreshing[number] = fresh
        self._channel.tell(Refresh(number))
        await asyncio.wait([fresh], timeout=within)
        self._refreshing.pop(number, None)

    def _refreshed(self, number: int) -> None:
        fresh = self._refreshing.pop(number, None)
        if fresh is not None:
            fresh.set_result(None)

    def kill(self) -> None:
        """At once."""
        self.process.kill()

    async def _listen(self) -> int:
        """Take what the worker says until it has ended; returns its exit status."""
        while (word := await self._channel.receive()) is not None:
            if isinstance(word, Metrics):
                for told in word.announced:
                    self.registry.mirror(told)
            elif isinstance(word, Refreshed):
                self._refreshed(word.number)
            elif isinstance(word, State):
                self.state = word
            elif isinstance(word, Outs):
                self._hear(word)
            elif self._answer is not None and not self._answer.done() and word.version == self._asked:
                if isinstance(word, Switched):
                    self.switched = word.version
                self._answer.set_result(word)
        self._channel.close()
        for number in list(self._refreshing):
            self._refreshed(number)
        status: int = await asyncio.get_running_loop().run_in_executor(None, self.process.wait)
        self.state = State(False, "ended")
        return status
