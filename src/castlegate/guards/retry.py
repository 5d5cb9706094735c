"""Further tries of a call that failed, as long as its deadline and the service's budget allow.

What was never sent may go again whatever its method; to an instance that it was not tried on it goes at once, and a few
times that is no repetition. What may have been executed goes again only if it is idempotent, by its method (RFC 9110
§9.2.2) or by a key that the service honours, and if it can be repeated at all. Between tries is a random pause, the
longer the more there were (full jitter); one that had no answer goes again at once the first time, on a fresh
connection, for most often the instance was just closing an idle one (RFC 9112 §9.3.1).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args

import msgspec

from castlegate.config.report import Place, listed
from castlegate.config.units import Count, Seconds, SecondsOrZero, write_seconds
from castlegate.errors import CallFailed, Kind, Kinds, Outcome
from castlegate.message import Call, Caller, Reply
from castlegate.rules.budget import RepeatBudget
from castlegate.rules.instances import Instances
from castlegate.sketch import Description, Sketch
from castlegate.telemetry.metrics import Counter, Family, Registry

Cause = Literal["connect", "no_answer", "reset", "timeout", "busy", "broker"]
Method = Literal["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH"]

_CAUSES: dict[Cause, tuple[Kind, ...]] = {
    "connect": (Kinds.CONNECT, Kinds.CONNECT_TIMEOUT, Kinds.CERTIFICATE, Kinds.TLS),
    "no_answer": (Kinds.NO_ANSWER,),
    "reset": (Kinds.RESET,),
    "timeout": (Kinds.TIMEOUT,),
    "busy": (Kinds.POOL_EXHAUSTED, Kinds.PENDING_FULL, Kinds.QUEUE_FULL),
    "broker": (Kinds.BROKER_UNAVAILABLE,),
}
_OF_HTTP: tuple[Cause, ...] = ("connect", "no_answer", "reset", "timeout", "busy")
_OF_KAFKA: tuple[Cause, ...] = ("busy", "broker")
_FREE = 5  # times that a call goes on to another instance without being charged
_UNSAFE = ("POST", "PATCH")  # not idempotent
_FIELD_NAME = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"


class RepeatBudgetSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How much of a service's calls may be repetitions: retries and hedges together, in each worker. What goes on to
    another instance that is well because one was not reached is none, five times for each call.
    """

    share: Annotated[float, msgspec.Meta(ge=0, le=100)] = 20.0
    """Percent of the calls that are under way."""
    least: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 3
    """So many at once at any rate, where few calls are under way."""


class Retries(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """When a call is tried again. A plain number stands for `tries` alone."""

    short: ClassVar[str] = "tries"

    tries: Count | None = None
    """How often at most, the first time included; 1 for never again. If nothing is said, each instance once as long as
    none was reached and there is room in `repeats`, and once more after anything else."""
    on: list[Cause] | None = None
    """After which failures. Nothing of the call was sent: `connect` (not reached, or no TLS), `busy` (no connection
    free, or too many requests waiting), `broker` (no broker of Kafka answers). It may have been executed: `no_answer`
    (the connection was closed before an answer), `reset` (in the midst of its head), `timeout`. If nothing is said,
    `connect` and `no_answer`, with `per_try` also `timeout`; of a service behind Kafka `busy` and `broker`, which are
    those that can be said there."""
    status: list[Annotated[int, msgspec.Meta(ge=400, le=599)]] = []
    """Answers with these are no good either, such as `[502, 503, 504]`. A `Retry-After` in them is waited for, if it
    fits in the timeout."""
    methods: list[Method] | None = None
    """Only calls of these; all if nothing is said. A call that may have been executed is repeated only if its method is
    idempotent, or with `idempotency_key`."""
    idempotency_key: Annotated[str, msgspec.Meta(pattern=_FIELD_NAME)] | None = None
    """A field, such as `Idempotency-Key`, by which the service knows a request that it has executed: one that carries
    it is repeated whatever its method. Only say it of services that do."""
    per_try: Seconds | None = None
    """How long each try but the last may take, of calls that may be repeated then."""
    backoff: SecondsOrZero = 0.025
    """The pause before the second try is at most this, random, and at most twice as long before each further one."""
    longest_backoff: Seconds = 1.0
    """But no longer than this."""

    def check(self, at: Place) -> None:
        """What goes together."""
        if self.on is not None and self.per_try is not None and "timeout" not in self.on:
            at.field("on").warning("'per_try' has no effect without 'timeout' among them")
        if self.tries == 1:
            said = [name for name in ("on", "status", "per_try") if getattr(self, name)]
            for name in said:
                at.field(name).warning("one try leaves nothing to be tried again; say 'tries: 2' or more")
        unsafe = [each for each in self.methods or () if each in _UNSAFE]
        if unsafe and self.idempotency_key is None:
            at.field("methods").warning(
                f"a {listed(unsafe, 'or')} that may have been executed is not repeated, only one that was not sent; if "
                "the service knows repetitions by a field, say 'idempotency_key: Idempotency-Key'"
            )


def check_retries(retries: Retries, at: Place, *, kafka: bool) -> None:
    """Whether a service of this protocol can be asked again so."""
    possible = _OF_KAFKA if kafka else _OF_HTTP
    for index, cause in enumerate(retries.on or ()):
        if cause not in possible:
            why = "happens over HTTP only" if kafka else "happens behind Kafka only"
            if kafka and cause != "connect":
                why = "may have been executed, and what stands on a topic is not written again"
            at.field("on", index).mistake(f"'{cause}' {why}; here are {listed(possible)}")
    if kafka:
        for name in ("status", "idempotency_key", "per_try"):
            if getattr(retries, name):
                at.field(name).mistake("a service behind Kafka is asked again only if nothing was sent; leave it out")


def check_time(retries: Retries, timeout: float, at: Place, route: str) -> None:
    """Whether what is said fits in the timeout of a route."""
    per_try = retries.per_try
    if per_try is None:
        return
    if per_try >= timeout:
        at.field("per_try").warning(
            f"is no shorter than the timeout of '{route}', {write_seconds(timeout)}, and has no effect there"
        )
    elif retries.tries is not None and retries.tries > 1 and per_try * (retries.tries - 1) >= timeout:
        at.field("per_try").warning(
            f"{retries.tries} tries of {write_seconds(per_try)} do not fit in the timeout of '{route}', "
            f"{write_seconds(timeout)}"
        )


class _Repeat(NamedTuple):
    """One more try."""

    pause: float  # seconds
    cause: str
    charged: bool  # to the budget
    elsewhere: bool = False  # on another instance, since one was not reached: no repetition


class Retry:
    """Of one service, or of one route that says otherwise."""

    def __init__(
        self,
        service: str,
        settings: Retries | None,
        instances: Instances[Any] | None,
        budget: RepeatBudget,
        now: Callable[[], float],
        registry: Registry,
    ) -> None:
        """`settings` None: nothing was said. `instances` None: it is behind Kafka."""
        self._said = settings
        said = settings or Retries()
        self._settings = said
        self._instances = instances
        self._budget = budget
        self._now = now
        self._tries = said.tries
        causes = () if said.tries == 1 else _causes(said, kafka=instances is None)
        self._causes = {kind: cause for cause in causes for kind in _CAUSES[cause]}
        self._statuses = frozenset(() if said.tries == 1 else said.status)
        self._methods = None if said.methods is None else frozenset(each.encode() for each in said.methods)
        self._key = None if said.idempotency_key is None else said.idempotency_key.lower().encode()
        self._per_try = said.per_try if "timeout" in self._causes.values() else None
        self._random = random.SystemRandom()
        retries = registry.counter(
            "castlegate_upstream_retries_total", "Calls sent once more, by cause.", "service", "reason"
        )
        reasons = {*self._causes.values(), *(("status",) if self._statuses else ())}
        self._counters: dict[str, Counter] = {reason: retries.child(service, reason) for reason in sorted(reasons)}
        self._refused = refused_repeats(registry).child(service)

    def describe(self, sketch: Sketch) -> Description:
        """When it tries again."""
        says = self._says(sketch.sent)
        return Description(role="guard", name="retry", says=says)

    def _says(self, call: Call) -> dict[str, str]:
        """By whether it was sent."""
        tries, instances = self._tries, self._instances
        if tries == 1 or not self._is_for(call):
            return {"tries": "one"}
        times = "once more" if tries is None else f"again, at most {tries} times in all"
        causes = list(dict.fromkeys(self._causes.values()))
        if instances is None:
            return {"not sent": f"tried {times}, after: {listed(causes)}"}
        says, most = dict[str, str](), len(instances.members)
        says["not sent"] = f"goes to another instance, at most {most if tries is None else min(most, tries)} in all"
        if most == 1:
            says["not sent"] = "there is no other instance to go to"
        if self._repeatable(call):
            why = f": {call.method.decode()} is idempotent"
        elif self._key is not None and isinstance(call.body, bytes):
            why = f", if there is a field {self._settings.idempotency_key}"
        else:
            why = ""
        name, after = "no answer", ""
        if self._said is not None:
            sent = [*(cause for cause in causes if cause not in ("connect", "busy")), *map(str, self._settings.status)]
            name, after = "sent", f", after: {listed(sent)}"
        if not why:
            unsafe = f"{call.method.decode()} is not idempotent"
            says[name] = f"not repeated: {'the body streams' if call.idempotent else unsafe}"
        else:
            says[name] = f"sent {times}{after}{why}"
        if self._per_try is not None:
            says["each try"] = f"takes at most {write_seconds(self._per_try)}, but for the last"
        return says

    def wrap(self, inner: Caller) -> Caller:
        """The caller with this guard around it."""
        budget, now, statuses, limited = self._budget, self._now, self._statuses, self._per_try is not None

        async def call_with_retry(call: Call) -> Reply:
            until = call.until(now())
            budget.active += 1
            try:
                return await inner(call)
            except CallFailed as failed:
                return await self._again(inner, call, until, failed)
            finally:
                budget.active -= 1

        async def call_with_conditions(call: Call) -> Reply:
            until = call.until(now())
            if limited:
                self._limit(call, until, 1)
            budget.active += 1
            try:
                result = await inner(call)
                if result.status not in statuses:
                    return result
            except CallFailed as failed:
                return await self._again(inner, call, until, failed)
            else:
                return await self._again(inner, call, until, result)
            finally:
                budget.active -= 1

        return call_with_conditions if limited or statuses else call_with_retry

    async def _again(self, inner: Caller, call: Call, until: float, result: Reply | CallFailed) -> Reply:
        """Try until it is done, or no try is left. `until`: loop time."""
        budget, tries, repetitions, was_sent, held = self._budget, 1, 0, False, 0
        try:
            while (repeat := self._next(call, result, tries, repetitions, until)) is not None:
                if repeat.charged and not budget.take():
                    self._refused.value += 1
                    break
                # What goes on from instance to instance is bounded by what is left of the budget.
                held += repeat.charged and repeat.elsewhere
                tries += 1
                repetitions += not repeat.elsewhere
                was_sent = was_sent or isinstance(result, Reply) or result.outcome is not Outcome.NOT_SENT
                self._counters[repeat.cause].value += 1
                try:
                    result = await self._once(inner, call, until, result, repeat.pause, tries)
                finally:
                    if repeat.charged and not repeat.elsewhere:
                        budget.give_back()
        finally:
            for _ in range(held):
                budget.give_back()
        if isinstance(result, Reply):
            return result
        if was_sent and result.outcome is Outcome.NOT_SENT:
            # An earlier try was sent, whatever became of the last.
            raise CallFailed(
                result.kind, Outcome.UNKNOWN, result.detail,
                status=result.status, headers=result.headers, members=result.members,
            ) from result  # fmt: skip
        raise result

    async def _once(
        self, inner: Caller, call: Call, until: float, before: Reply | CallFailed, pause: float, number: int
    ) -> Reply | CallFailed:
        """One more try, after the pause."""
        if isinstance(before, Reply):
            before.close()
            call.failed_on(call.instance)
        elif before.kind is Kinds.NO_ANSWER:
            call.fresh = True
        if pause:
            await asyncio.sleep(pause)
        self._limit(call, until, number)
        return await _tried(inner, call)

    def _limit(self, call: Call, until: float, number: int) -> None:
        """How long the try of this number may take. One whose body still streams has the call's own time."""
        if not isinstance(call.body, bytes):
            return
        left, per_try = until - self._now(), self._per_try
        if per_try is not None and number < (self._tries or 2) and self._is_for(call) and self._repeatable(call):
            left = min(left, per_try)
        call.timeout = left

    def _next(
        self, call: Call, result: Reply | CallFailed, tries: int, repetitions: int, until: float
    ) -> _Repeat | None:
        """Whether and how to try again."""
        if isinstance(result, Reply):
            if result.status not in self._statuses or not self._repeatable(call):
                return None
            repeat = _Repeat(max(self._pause(tries), _retry_after(result)), "status", charged=True)
        else:
            cause = self._causes.get(result.kind)
            if cause is None or not (result.outcome is Outcome.NOT_SENT or self._repeatable(call)):
                return None
            repeat = self._after(call, cause, tries)
        if self._tries is None:
            more = repeat.elsewhere or (repetitions == 0 and repeat.cause != "connect")
        else:
            more = tries < self._tries
        return repeat if more and self._is_for(call) and self._now() + repeat.pause < until else None

    def _after(self, call: Call, cause: Cause, tries: int) -> _Repeat:
        """How to try again after a failure."""
        instances = self._instances
        if cause == "connect" and instances is not None:
            free = len(call.tried) <= _FREE and any(each not in call.tried for each in instances.available)
            if free or instances.untried(call.tried):
                return _Repeat(0.0, cause, charged=not free, elsewhere=True)
        if cause == "no_answer" and not call.fresh:
            # However many idle connections end at once, that says nothing of the service: it is not charged.
            return _Repeat(0.0, cause, charged=not call.reused)
        return _Repeat(self._pause(tries), cause, charged=True)

    def _pause(self, tries: int) -> float:
        """Full jitter: anything from nothing to the longest."""
        settings = self._settings
        return self._random.uniform(0.0, min(settings.longest_backoff, settings.backoff * 2 ** min(tries - 1, 30)))

    def _is_for(self, call: Call) -> bool:
        return self._methods is None or call.method in self._methods

    def _repeatable(self, call: Call) -> bool:
        """Whether it may be sent although it may have been executed."""
        if not isinstance(call.body, bytes) or self._instances is None:
            return False
        return call.idempotent or (self._key is not None and any(call.headers.get_all(self._key)))


def refused_repeats(registry: Registry) -> Family[Counter]:
    """Of retries and hedges."""
    name, text = "castlegate_upstream_repeats_refused_total", "Retries and hedges that the budget left no room for."
    return registry.counter(name, text, "service")


async def _tried(inner: Caller, call: Call) -> Reply | CallFailed:
    """What became of a try."""
    try:
        return await inner(call)
    except CallFailed as failed:
        return failed


def _causes(said: Retries, *, kafka: bool) -> Sequence[Cause]:
    if said.on is not None:
        return [cause for cause in get_args(Cause) if cause in said.on]
    if kafka:
        return _OF_KAFKA
    return ("connect", "no_answer") if said.per_try is None else ("connect", "no_answer", "timeout")


def _retry_after(reply: Reply) -> float:
    """Seconds that an answer asks to wait (RFC 9110 §10.2.3)."""
    value = reply.headers.get(b"retry-after")
    if value is None:
        return 0.0
    text = value.decode("latin-1").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0  # nothing that could be waited for
