"""How many calls of a service may be under way at once, in one worker: those beyond wait for a moment, or are refused.

A call is under way until its reply's body has ended. Those that wait do so in order, and get the places of those that
end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from castlegate.config.report import Place
from castlegate.config.units import Count, Seconds, write_seconds
from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.message import Call, Caller, Reply
from castlegate.rules.gradient import Gradient
from castlegate.sketch import Description, Sketch
from castlegate.telemetry.metrics import Registry
from castlegate.waiting import Waiter
from castlegate.wire.timer import Timer

CALLS = "castlegate_concurrency_calls"  # the gauge
_LEAST = 8
_MOST = 1000


class ConcurrencySettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How many calls of the service may be under way at once; more wait for a moment, then they are refused (503, not
    sent). A plain number, or `adaptive`, stands for `limit` alone.
    """

    short: ClassVar[str] = "limit"

    limit: Count | Literal["adaptive"] = "adaptive"
    """So many, divided among the workers; `adaptive` finds out in each worker how many the service can do at once, by
    how long calls take."""
    least: Count | None = None
    """The least that `adaptive` comes to, in each worker; 8 if nothing is said."""
    most: Count | None = None
    """The most, in each worker; 1000 if nothing is said."""
    queue: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 32
    """Calls that may wait in each worker; one more is refused at once."""
    wait: Seconds = 0.1
    """How long one waits."""

    def check(self, at: Place) -> None:
        """What goes together."""
        for name in ("least", "most"):
            if self.limit != "adaptive" and getattr(self, name) is not None:
                at.field(name).mistake("goes with 'limit: adaptive'")
        if self.bounds[0] > self.bounds[1] and not at.field("least").spoilt and not at.field("most").spoilt:
            said = "least" if self.least is not None else "most"
            at.field(said).mistake(f"'least' is {self.bounds[0]} and 'most' {self.bounds[1]}")

    def check_share(self, workers: int, at: Place) -> None:
        """Warn if there is less than one for each worker: a worker that gets none would refuse everything."""
        if self.limit != "adaptive" and self.limit < workers:
            at.warning(
                f"each of the {workers} workers lets one call through, so {workers} may be under way, not {self.limit}"
            )

    @property
    def bounds(self) -> tuple[int, int]:
        """Least and most of an adaptive one."""
        return self.least or _LEAST, self.most or _MOST


class _Waiting(Waiter[None]):
    """A call that waits for a place."""

    __slots__ = ()

    def expire(self) -> None:
        """Called by the timer."""
        self.fail(_refusal())


class Places:
    """Those of a service, kept over reloads."""

    __slots__ = ("_fixed", "_gradient", "_timer", "in_flight", "waiting")

    def __init__(self, settings: ConcurrencySettings, workers: int, timer: Timer) -> None:
        self._timer = timer
        limit = settings.limit
        self._fixed = 0 if limit == "adaptive" else -(-limit // workers)
        self._gradient = Gradient(*settings.bounds)
        # Changed by this class alone.
        self.in_flight = 0
        self.waiting: deque[_Waiting] = deque()

    @property
    def limit(self) -> int:
        """As it is now."""
        return self._fixed or self._gradient.limit

    def observe(self, seconds: float) -> None:
        """How long a call took, to its reply or to its timeout."""
        if not self._fixed:
            self._gradient.observe(seconds, self.in_flight, self._timer.now())

    async def wait(self, until: float) -> None:
        """Until there is a place, which is then taken. Raises `CallFailed`, not sent, after `until` (loop time)."""
        waiting = _Waiting()
        self.waiting.append(waiting)
        self._timer.add(waiting, until)
        try:
            await waiting
        except BaseException:
            if waiting.done() and not waiting.failed():
                self.leave()  # the place was given in the same moment
            raise
        finally:
            self._timer.remove(waiting, until)
            if waiting in self.waiting:
                self.waiting.remove(waiting)

    def leave(self) -> None:
        """A call has ended: its place is free, and so are those that the limit has grown by."""
        self.in_flight -= 1
        while self.waiting and self.in_flight < self.limit:
            waiting = self.waiting.popleft()
            if not waiting.done():
                self.in_flight += 1
                waiting.settle(None)


class Concurrency:
    """Of one service."""

    def __init__(
        self, service: str, settings: ConcurrencySettings, places: Places, now: Callable[[], float], registry: Registry
    ) -> None:
        self._service = service
        self._settings = settings
        self._places = places
        self._now = now
        self._registry = registry
        self._refused = registry.counter(
            "castlegate_concurrency_refused_total", "Calls refused because too many were under way.", "service"
        ).child(service)

    def watch(self) -> None:
        """It is the one that is served: have the gauges tell of it."""
        calls = self._registry.gauge(
            CALLS, "Calls of services with a limit: under way, waiting, and the limit.",
            "service", "state",
        )  # fmt: skip
        places = self._places
        calls.watch(lambda: places.in_flight, self._service, "under_way")
        calls.watch(lambda: len(places.waiting), self._service, "waiting")
        calls.watch(lambda: places.limit, self._service, "limit")

    def describe(self, sketch: Sketch) -> Description:
        """How many."""
        del sketch
        said = self._settings
        least, most = said.bounds
        says: dict[str, Any] = {
            "at once": f"{said.limit} calls, until their bodies have ended"
            if said.limit != "adaptive"
            else f"{least} to {most} calls in each worker, by how long they take",
            "beyond": f"{said.queue} wait for at most {write_seconds(said.wait)}; others are answered 503, not sent",
        }
        return Description(role="guard", name="concurrency", says=says)

    def wrap(self, inner: Caller) -> Caller:
        """The caller with this guard around it."""
        places, now = self._places, self._now

        def leave(_error: BaseException | None) -> None:
            places.leave()

        async def call_in_a_place(call: Call) -> Reply:
            if places.in_flight < places.limit and not places.waiting:
                places.in_flight += 1
            else:
                await self._wait(call)
            began = now()
            try:
                reply = await inner(call)
            except BaseException as failure:
                if isinstance(failure, CallFailed) and failure.kind is Kinds.TIMEOUT:
                    places.observe(now() - began)
                places.leave()
                raise
            places.observe(now() - began)
            body = reply.body
            if isinstance(body, bytes):
                places.leave()
            else:
                body.when_over(leave)
            return reply

        return call_in_a_place

    async def _wait(self, call: Call) -> None:
        places, now = self._places, self._now()
        if len(places.waiting) >= self._settings.queue:
            self._refused.value += 1
            raise _refusal()
        try:
            await places.wait(min(now + self._settings.wait, call.until(now)))
        except CallFailed:
            self._refused.value += 1
            raise


def _refusal() -> CallFailed:
    return CallFailed(Kinds.SATURATED, Outcome.NOT_SENT, "Too many requests for this service are under way.")
