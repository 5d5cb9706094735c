"""A request that would wait on its topic for longer than it has is refused at once, instead of being queued to die.

Now and then one is let through all the same: what is expected may be wrong, and a reply is what tells.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from castlegate.config.units import write_seconds
from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.message import Call, Caller, Reply
from castlegate.rules.backlog import Backlog
from castlegate.sketch import Description, Sketch
from castlegate.telemetry.metrics import Registry

LAG, UNANSWERED = "castlegate_kafka_group_lag", "castlegate_kafka_unanswered"  # the gauges
_LONGEST_S = 60  # that a client is told to wait


class Queue:
    """What a service behind Kafka says of the backlog of one of its topics."""

    def __init__(self, topic: str, group: str, every: float, backlog: Backlog, *, told: bool) -> None:
        """`every`: seconds between looks. `told`: whether this worker tells of the lag, which all of them see."""
        self.topic = topic
        self.group = group
        self.every = every
        self.backlog = backlog
        self.told = told


class Waits:
    """Of one topic of a service."""

    def __init__(self, service: str, queue: Queue, now: Callable[[], float], registry: Registry) -> None:
        self._service = service
        self._queue = queue
        self._now = now
        self._registry = registry
        self._next_trial = -math.inf
        self._refused = registry.counter(
            "castlegate_kafka_backlog_refused_total",
            "Requests refused because they would have waited for longer than they had.",
            "service",
            "topic",
        ).child(service, queue.topic)

    def watch(self) -> None:
        """It is the one that is served: have the gauges tell of it."""
        labels, backlog, registry = (self._service, self._queue.topic), self._queue.backlog, self._registry
        if self._queue.told:
            lag = registry.gauge(LAG, "Records that the service's group has not read.", "service", "topic")
            lag.watch(lambda: backlog.lag, *labels)
        unanswered = registry.gauge(UNANSWERED, "Requests of a topic since the last reply to one.", "service", "topic")
        unanswered.watch(lambda: backlog.unanswered, *labels)

    def describe(self, sketch: Sketch) -> Description:
        """What it looks at."""
        del sketch
        queue = self._queue
        says: dict[str, Any] = {
            "looks at": f"the lag of group {queue.group} on {queue.topic}, every {write_seconds(queue.every)}",
            "refuses": "with 503, not sent, what would wait there for longer than it has",
        }
        return Description(role="guard", name="backlog", says=says)

    def wrap(self, inner: Caller) -> Caller:
        """The caller with this guard around it."""
        backlog, now = self._queue.backlog, self._now

        async def call_if_it_is_read(call: Call) -> Reply:
            began = now()
            wait = backlog.wait(began)
            if wait and began + wait > call.until(began):
                if began < self._next_trial:
                    raise self._refusal(wait)
                self._next_trial = began + self._queue.every
            backlog.unanswered += 1
            try:
                reply = await inner(call)
            except CallFailed as failure:
                self._note(failure, began)
                raise
            ended = now()
            backlog.answered(ended, ended - began)
            return reply

        return call_if_it_is_read

    def _note(self, failure: CallFailed, began: float) -> None:
        backlog, now = self._queue.backlog, self._now()
        if failure.outcome is Outcome.NOT_SENT:
            backlog.unanswered -= backlog.unanswered > 0
        elif failure.outcome is Outcome.ANSWERED:
            backlog.answered(now, now - began)
        elif failure.kind is Kinds.TIMEOUT:
            backlog.timed_out()
            self._next_trial = now + self._queue.every

    def _refusal(self, wait: float) -> CallFailed:
        self._refused.value += 1
        seconds = _LONGEST_S if math.isinf(wait) else min(_LONGEST_S, max(1, math.ceil(wait)))
        headers = ((b"retry-after", b"%d" % seconds),)
        detail = "The service is too far behind to answer in time."
        return CallFailed(Kinds.BEHIND, Outcome.NOT_SENT, detail, headers=headers)
