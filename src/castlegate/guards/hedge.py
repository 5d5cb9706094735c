"""A second try of a call that takes longer than most: whichever answers first is the answer, the other is cancelled.

For idempotent calls whose body is there, over HTTP; within the service's budget of repetitions. Each of the two is a
task without a turn of the loop (`waiting.DirectTask`), so cancelling one ends it where it waits: its connection is
closed.

The delay is fixed, or a percentile of what first tries have taken lately. One that was cancelled counts as what it had
taken by then, so however many instances are slow, no more are repeated than the percentile leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Annotated, ClassVar

import msgspec

from castlegate.config.units import Seconds, write_seconds
from castlegate.errors import CallFailed, Outcome
from castlegate.guards.retry import refused_repeats
from castlegate.message import Call, Caller, Reply
from castlegate.rules.budget import RepeatBudget
from castlegate.rules.percentile import Percentile
from castlegate.sketch import Description, Sketch
from castlegate.telemetry.metrics import Registry
from castlegate.waiting import DirectTask, Waiter

_FAILED = 500  # status from which on an answer is waited past, if the other try may give a better one


class HedgeSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """When an idempotent call that has no answer yet is asked of another instance as well. `{}` takes all as it stands
    here; a plain duration stands for `after` alone.
    """

    short: ClassVar[str] = "after"

    after: Seconds | None = None
    """Always after so long, in place of a percentile."""
    percentile: Annotated[float, msgspec.Meta(ge=50, lt=100)] = 95.0
    """When it takes longer than so many percent of the calls of late."""
    least: Seconds = 0.001
    """But never sooner than this; the percentile of an idle service says little."""


class Hedge:
    """Of one service, or of one route that says otherwise."""

    def __init__(
        self,
        service: str,
        settings: HedgeSettings,
        lately: Percentile,
        budget: RepeatBudget,
        now: Callable[[], float],
        registry: Registry,
    ) -> None:
        """`lately`: what calls have taken."""
        self.settings = settings
        self.lately = lately
        self.budget = budget
        self.now = now
        hedges = registry.counter(
            "castlegate_upstream_hedges_total",
            "Second tries of slow calls: sent, and those whose answer was the first.",
            "service",
            "what",
        )
        self.sent = hedges.child(service, "sent")
        self.won = hedges.child(service, "won")
        self.refused = refused_repeats(registry).child(service)

    def describe(self, sketch: Sketch) -> Description:
        """When it sends a second one."""
        call: Call = sketch.sent
        said = self.settings
        delay = write_seconds(said.after) if said.after else f"longer than {said.percentile:g} % of the last calls"
        says = {"after": f"{delay}: asks another instance as well, and takes the first answer"}
        if not _can_be_doubled(call):
            streams = "the body streams" if call.idempotent else f"{call.method.decode()} is not idempotent"
            says = {"after": f"never: {streams}"}
        return Description(role="guard", name="hedge", says=says)

    def wrap(self, inner: Caller) -> Caller:
        """The caller with this guard around it."""

        async def call_with_hedge(call: Call) -> Reply:
            if not _can_be_doubled(call):
                return await inner(call)
            return await _Race(self, inner, call).run()

        return call_with_hedge

    @property
    def delay(self) -> float | None:
        """Seconds until the second one goes; None while nothing is known."""
        said = self.settings
        if said.after is not None:
            return said.after
        lately = self.lately.value
        return None if lately is None else max(lately, said.least)


class _Race:
    """One call, tried once or twice."""

    __slots__ = (
        "_began", "_call", "_ended", "_failure", "_hedge", "_inner", "_refused", "_second", "_timer", "_tries",
        "_waiter",
    )  # fmt: skip

    def __init__(self, hedge: Hedge, inner: Caller, call: Call) -> None:
        self._hedge = hedge
        self._inner = inner
        self._call = call
        self._began = hedge.now()
        self._waiter: Waiter[Reply] = Waiter()
        self._tries: list[DirectTask[Reply]] = []
        self._ended = 0
        self._failure: _Result | None = None  # of the one that ended first, while the other may do better
        self._second: Call | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._refused = False

    async def run(self) -> Reply:
        """The answer. Raises what the first of the tries failed with, if both did."""
        hedge = self._hedge
        self._start(self._call)
        try:
            if not self._waiter.done() and (delay := hedge.delay) is not None:
                self._timer = asyncio.get_running_loop().call_later(delay, self._start_second)
            return await self._waiter
        except asyncio.CancelledError:
            if self._waiter.done() and not self._waiter.failed():
                self._waiter.result().close()  # it came in the same moment
            raise
        finally:
            hedge.lately.observe(hedge.now() - self._began)
            if self._timer is not None:
                self._timer.cancel()
            for task in self._tries:
                task.cancel()
            if len(self._tries) > 1:
                hedge.budget.give_back()

    def _start(self, call: Call) -> None:
        number = len(self._tries)
        task = DirectTask(_as_coroutine(self._inner, call), partial(self._over, number))
        self._tries.append(task)
        task.start()

    def _start_second(self) -> None:
        """It has taken long enough."""
        hedge, first = self._hedge, self._call
        left = first.until(self._began) - hedge.now()
        if self._waiter.done() or left <= 0:
            return
        if not hedge.budget.take():
            # Those that began together are late together: there may be room in a moment.
            hedge.refused.value += not self._refused
            self._refused = True
            self._timer = asyncio.get_running_loop().call_later(hedge.delay or left, self._start_second)
            return
        self._second = first.once_more(left)
        first.sent = True  # whoever gives it up cannot know which of the two has left
        hedge.sent.value += 1
        self._start(self._second)

    def _over(self, number: int, reply: Reply | None, error: BaseException | None) -> None:
        """Called once by each try."""
        self._ended += 1
        if self._waiter.done():
            if reply is not None:
                reply.close()
            return
        result = reply if error is None else error
        assert result is not None, "a try ends with one of both"
        if _has_failed(result) and self._ended < len(self._tries):
            self._failure = number, result
            return
        if self._failure is not None:
            held, self._failure = self._failure, None
            number, result = _better(held, (number, result))
        if not isinstance(result, Reply):
            self._waiter.fail(result)
            return
        if number == 1:
            self._hedge.won.value += 1
            assert self._second is not None, "its answer is here"
            self._call.instance = self._second.instance
        self._waiter.settle(result)


_Result = tuple[int, "Reply | BaseException"]  # of the try of this number


def _has_failed(result: Reply | BaseException) -> bool:
    return isinstance(result, CallFailed) or (isinstance(result, Reply) and result.status >= _FAILED)


def _better(failed: _Result, last: _Result) -> _Result:
    """Which of two results the caller gets, the first to end being a failure."""
    if not _has_failed(last[1]):
        better, worse = last, failed
    elif isinstance(failed[1], Reply):
        better, worse = failed, last
    elif isinstance(last[1], Reply):
        better, worse = last, failed
    else:
        # Nothing was sent only if neither was.
        sent = [each for each in (failed, last) if getattr(each[1], "outcome", None) is not Outcome.NOT_SENT]
        return (sent or [failed])[0]
    if isinstance(worse[1], Reply):
        worse[1].close()
    return better


async def _as_coroutine(inner: Caller, call: Call) -> Reply:
    """A caller may give any awaitable, and a task needs a coroutine."""
    return await inner(call)


def _can_be_doubled(call: Call) -> bool:
    return call.idempotent and isinstance(call.body, bytes)
