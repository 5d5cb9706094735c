"""Has producers made where they are missing, replaced where they are beyond use, and ended.

    needed ──made──▶ in use ──beyond use──▶ ended, with what it holds
                        └──another takes its place──▶ leaving ──empty, or out of time──▶ ended

Making and ending are slow: the watch's thread does both. Everything here runs in the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

from confluent_kafka import KafkaException, Producer

from castlegate.upstreams.kafka.client import log
from castlegate.upstreams.kafka.events import Events
from castlegate.upstreams.kafka.producers import Producers, end

T = TypeVar("T")

_STEP_S = 0.05  # between two looks at a producer that leaves

Tell = Callable[[Callable[[], None]], None]


class Whom(NamedTuple):
    """What the supply asks of the engine."""

    wanted: Callable[[], tuple[bool, bool]]  # whether producers of requests, and of events, are needed now
    made: Callable[[str], None]  # one is there, or why it is not
    do: Tell  # in the watch's thread
    tell: Tell  # in the loop, from any thread


class Supply:
    """Of one engine's producers."""

    def __init__(
        self, producers: Producers, events: Events, whom: Whom, loop: asyncio.AbstractEventLoop, patience: float
    ) -> None:
        """`patience`: seconds after which nobody waits for what a producer that leaves still holds."""
        self._producers = producers
        self._events = events
        self._whom = whom
        self._loop = loop
        self._patience = patience
        # Mutable.
        self._making: set[str] = set()
        self._leaving: list[list[Producer]] = []
        self._stopped = False

    def make(self) -> None:
        """Have those made that are needed and not there."""
        requests, events = self._whom.wanted()
        if requests and not self._producers.ready:
            self._make("requests", self._producers.make, self._producers.use)
        if events and not self._events.ready:
            self._make("events", self._events.make, self._events.use)

    def want_alone(self) -> None:
        """A producer of records that go one by one is needed."""
        self._make("alone", self._producers.make_alone, self._producers.use_alone)

    def replace(self, client: str, reason: str) -> None:
        """A producer is beyond use: be rid of it and make another."""
        if client == "requests":
            leaving = self._producers.use(None)
        elif client == "events":
            leaving = self._events.use(None)
        else:
            return
        if leaving:
            log.warning("kafka producer of %s is replaced: %s", client, reason)
            self._whom.do(lambda: end(leaving, 0))
            self._whom.do(lambda: self._whom.tell(self._events.settle))
        self.make()

    def renew(self) -> None:
        """Others take the place of those that there are: a producer asks for every topic that it ever wrote to, again
        and again (librdkafka 2.16).
        """
        requests, events = self._whom.wanted()
        if requests and self._producers.ready:
            self._make("requests", self._producers.make, lambda made: self._leave(self._producers.use(made)))
        if self._events.ready:
            if events:
                self._make("events", self._events.make, lambda made: self._leave(self._events.use(made)))
            else:
                self._leave(self._events.use(None))

    def stop(self, flush_s: float) -> None:
        """End all of them; what they hold has so many seconds."""
        self._stopped = True
        for leaving in (*self._leaving, self._producers.use(None), self._events.use(None)):
            self._whom.do(partial(end, leaving, flush_s))

    def _make(self, which: str, make: Callable[[], T], use: Callable[[T], object]) -> None:
        if self._stopped or which in self._making:
            return
        self._making.add(which)

        def work() -> None:  # in the watch's thread
            try:
                made = make()
            except KafkaException as failure:
                reason = failure.args[0].str()
                self._whom.tell(lambda: self._made(which, reason))
                return
            except BaseException:
                self._whom.tell(lambda: self._made(which, "see the log"))  # to be tried again
                raise
            self._whom.tell(lambda: self._made(which, "", lambda: use(made)))

        self._whom.do(work)

    def _made(self, which: str, failure: str, use: Callable[[], object] | None = None) -> None:
        self._making.discard(which)
        if use is not None and not self._stopped:
            use()
        self._whom.made(failure)

    def _leave(self, producers: list[Producer]) -> None:
        if producers:
            self._leaving.append(producers)
            self._look_after(producers, self._loop.time() + self._patience)

    def _look_after(self, leaving: list[Producer], until: float) -> None:
        """Until it is empty, or out of time."""
        if self._stopped:
            return
        for producer in leaving:
            producer.poll(0)
        self._producers.tell_failed()
        self._events.settle()
        if any(map(len, leaving)) and self._loop.time() < until:
            self._loop.call_later(_STEP_S, self._look_after, leaving, until)
            return
        self._leaving.remove(leaving)
        self._whom.do(lambda: end(leaving, 0))
        self._whom.do(lambda: self._whom.tell(self._events.settle))
