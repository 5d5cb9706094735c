"""Circuit breakers: a service that fails is left alone for a while, and its callers are told so at once.

One for the service, one for each operation (over HTTP: each route), or one for each instance; those that are open are
then not chosen. What a breaker has seen outlives a reload that does not change its settings.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import msgspec

from castlegate.config.report import listed
from castlegate.config.units import Count, Seconds, write_seconds
from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.message import Call, Caller, Reply
from castlegate.rules.breaker import Breaker, Rule, State
from castlegate.rules.instances import BREAKER, Instance, Instances
from castlegate.sketch import Description, Sketch
from castlegate.telemetry.metrics import Registry

logger = logging.getLogger("castlegate.breaker")

OPEN_BREAKERS = "castlegate_breaker_open"  # the gauge
_NOT_REACHED = frozenset((Kinds.CONNECT, Kinds.CONNECT_TIMEOUT, Kinds.CERTIFICATE, Kinds.TLS))
_BROKEN = frozenset((Kinds.NO_ANSWER, Kinds.RESET, Kinds.BAD_ANSWER, Kinds.TIMEOUT))


class BreakerSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """When calls of a service that fails are refused for a while (503, not sent). `{}` takes all as it stands here."""

    per: Literal["service", "instance", "operation"] = "service"
    """What is judged, and left alone, by itself. An operation of a service that speaks HTTP is what a route calls."""
    share: Annotated[float, msgspec.Meta(gt=0, le=100)] = 50.0
    """Percent of the calls of the window that must have failed."""
    least: Count = 20
    """Fewer calls in the window than this say nothing. Each worker counts by itself."""
    window: Seconds = 10.0
    """How far it looks back."""
    status: list[Annotated[int, msgspec.Meta(ge=400, le=599)]] = msgspec.field(
        default_factory=lambda: [500, 502, 503, 504]
    )
    """Answers that are failures, beside calls that were not reached, broken off, or not answered in time."""
    pause: Seconds = 5.0
    """How long calls are refused; twice as long each time that the trials after it fail,"""
    longest_pause: Seconds = 60.0
    """but no longer than this."""
    trials: Count = 3
    """After the pause so many calls are let through, and no more at once; when all have gone well, it is closed."""

    @property
    def rule(self) -> Rule:
        """For the machine."""
        longest = max(self.pause, self.longest_pause)
        return Rule(self.window, self.least, self.share / 100, self.pause, longest, self.trials)


class Breakers:
    """Those of a service, by name, as they are kept over reloads."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self.named: dict[str, Breaker] = {}
        self.not_closed: dict[str, Breaker] = {}
        """Those of instances that calls must look at."""

    def of(self, name: str) -> Breaker:
        """The one of that name."""
        breaker = self.named.get(name)
        if breaker is None:
            breaker = self.named[name] = Breaker(self._rule)
        return breaker

    def keep(self, names: set[str]) -> None:
        """Forget the others."""
        for name in [each for each in self.named if each not in names]:
            self.forget(name)

    def forget(self, name: str) -> None:
        """Its instance has gone."""
        self.named.pop(name, None)
        self.not_closed.pop(name, None)


class _Judge:
    """What both kinds have in common: what a failure is, and who is told of a change."""

    def __init__(self, service: str, settings: BreakerSettings, registry: Registry) -> None:
        self._service = service
        self._settings = settings
        self._statuses = frozenset(settings.status)
        self._open = registry.gauge(OPEN_BREAKERS, "Workers in which a breaker is open or half open.", "service", "of")
        self._opened = registry.counter("castlegate_breaker_opened_total", "Breakers that opened.", "service", "of")
        self._refused = registry.counter(
            "castlegate_breaker_refused_total", "Calls refused because a breaker was open.", "service"
        ).child(service)

    def failed(self, failure: CallFailed) -> bool | None:
        """Whether it is one of the service; None if it says nothing of it."""
        kind = failure.kind
        if kind in _NOT_REACHED or (kind in _BROKEN and failure.outcome is not Outcome.NOT_SENT):
            return True
        return failure.status in self._statuses if kind is Kinds.SERVICE_ERROR else None

    def broken(self, error: BaseException | None) -> bool:
        """Whether the service broke off the body of an answer that began well."""
        return isinstance(error, CallFailed) and self.failed(error) is True

    def changed(self, of: str, breaker: Breaker) -> None:
        """Tell operators."""
        whom = f"service {self._service}" if of == "service" else f"{of} of service {self._service}"
        if breaker.state is State.OPEN:
            self._opened.child(self._service, of).value += 1
            failed, calls = breaker.counts
            pause = write_seconds(round(breaker.open_until - breaker.since, 3))
            logger.warning("%s is left alone for %s: %d of %d calls failed", whom, pause, failed, calls)
        elif breaker.state is State.CLOSED:
            logger.warning("%s is called again", whom)

    def refusal(self, until: float, now: float) -> CallFailed:
        """What callers get until then."""
        self._refused.value += 1
        wait = max(1, math.ceil(until - now))
        headers = ((b"retry-after", b"%d" % wait),)
        return CallFailed(
            Kinds.BREAKER_OPEN, Outcome.NOT_SENT, "The service has failed too often and is left alone.", headers=headers
        )

    def describe(self, sketch: Sketch) -> Description:
        """When it opens."""
        del sketch
        said = self._settings
        statuses = listed([str(each) for each in said.status], "or")
        says: dict[str, Any] = {
            "for each": said.per,
            "opens": f"when {said.share:g} % of at least {said.least} calls in {write_seconds(said.window)} failed"
            + (f", with {statuses} or without an answer" if said.status else " without an answer"),
            "while open": f"answers 503 for {write_seconds(said.pause)}, not sent; then tries {said.trials}",
        }
        if said.per == "instance":
            says["while open"] = f"is not chosen for {write_seconds(said.pause)}; then tried {said.trials} times"
        return Description(role="guard", name="breaker", says=says)


class CircuitBreaker(_Judge):
    """Of a service, or of one of its operations."""

    def __init__(
        self,
        service: str,
        settings: BreakerSettings,
        of: str,
        breaker: Breaker,
        now: Callable[[], float],
        registry: Registry,
    ) -> None:
        """`of`: `service`, or the operation."""
        super().__init__(service, settings, registry)
        self._of = of
        self._breaker = breaker
        self._now = now

    def watch(self) -> None:
        """It is the one that is served: have the gauge tell of it."""
        breaker = self._breaker
        self._open.watch(lambda: breaker.state is not State.CLOSED, self._service, self._of)

    def wrap(self, inner: Caller) -> Caller:
        """The caller with this guard around it."""
        breaker, now, statuses, closed = self._breaker, self._now, self._statuses, State.CLOSED

        async def call_unless_open(call: Call) -> Reply:
            number = breaker.number if breaker.state is closed else self._admit()
            try:
                reply = await inner(call)
            except CallFailed as failure:
                self._settle(number, self.failed(failure))
                raise
            except BaseException:
                breaker.release(number)
                raise
            if reply.status in statuses or breaker.state is not closed:
                # A trial is over with the head: its body may stream for hours, and others are refused meanwhile.
                self._settle(number, reply.status in statuses)
            elif isinstance(reply.body, bytes):
                breaker.record(number, now(), failed=False)
            else:
                reply.body.when_over(partial(self._over, number))
            return reply

        return call_unless_open

    def _over(self, number: int, error: BaseException | None) -> None:
        self._settle(number, self.broken(error))

    def _admit(self) -> int:
        now, breaker = self._now(), self._breaker
        number = breaker.admit(now)
        if number is None:
            raise self.refusal(breaker.open_until, now)
        return number

    def _settle(self, number: int, failed: bool | None) -> None:
        breaker = self._breaker
        if failed is None:
            breaker.release(number)
            return
        before = breaker.number
        breaker.record(number, self._now(), failed=failed)
        if breaker.number != before:
            self.changed(self._of, breaker)


class InstanceBreakers(_Judge):
    """Of each instance of a service: one that is open is out. As soon as none is left, calls are refused."""

    def __init__(
        self,
        service: str,
        settings: BreakerSettings,
        breakers: Breakers,
        instances: Instances[Any],
        now: Callable[[], float],
        registry: Registry,
    ) -> None:
        super().__init__(service, settings, registry)
        self._breakers = breakers
        self._instances = instances
        self._now = now

    def watch(self) -> None:
        """It is the one that is served: its breakers say who is out, whatever others said or will say."""
        instances, now, not_closed = self._instances, self._now(), self._breakers.not_closed
        instances.breakers = self._breakers
        for name in not_closed:
            self._watch(name)
        for instance in instances.members:
            held = not_closed.get(instance.name)
            if held is not None and held.state is State.OPEN:
                instances.take_out(instance, BREAKER, self._why(held), now)
            else:
                instances.put_back(instance, BREAKER, now)

    def wrap(self, inner: Caller) -> Caller:
        """The caller with this guard around it."""
        statuses, not_closed = self._statuses, self._breakers.not_closed

        async def call_what_is_closed(call: Call) -> Reply:
            trials = self._admit(call) if not_closed else None
            try:
                reply = await inner(call)
            except CallFailed as failure:
                self._settle(call, trials, self.failed(failure))
                raise
            except BaseException:
                self._settle(call, trials, None)
                raise
            instance, body = call.instance, reply.body
            breaker = self._breakers.of(instance.name)
            if reply.status in statuses or breaker.state is not State.CLOSED:
                self._settle(call, trials, reply.status in statuses)
                return reply
            if trials is not None:
                self._settle(call, trials, None)
            if isinstance(body, bytes):
                breaker.record(breaker.number, self._now(), failed=False)
            else:
                body.when_over(partial(self._over, instance, breaker.number))
            return reply

        return call_what_is_closed

    def _admit(self, call: Call) -> dict[str, int]:
        """The trials that the call may be, by instance; it must not go to others that are half open."""
        now, instances, trials, until = self._now(), self._instances, dict[str, int](), math.inf
        blocked = 0
        for name, breaker in list(self._breakers.not_closed.items()):
            instance = instances.named(name)
            if instance is None:
                self._breakers.forget(name)
                self._unwatch(name)
                continue
            number = breaker.admit(now)
            if number is not None:
                trials[name] = number
                if self._serves:
                    instances.put_back(instance, BREAKER, now)
                continue
            blocked += 1
            until = min(until, breaker.open_until)
            if breaker.state is State.HALF_OPEN:
                call.failed_on(instance)
            elif BREAKER not in instance.outs and self._serves:  # it went and came back
                instances.take_out(instance, BREAKER, self._why(breaker), now)
        if blocked and blocked >= sum(each.drained_since is None for each in instances.members):
            raise self.refusal(until, now)
        return trials

    def _settle(self, call: Call, trials: dict[str, int] | None, failed: bool | None) -> None:
        instance: Instance | None = call.instance
        asked = None if instance is None else self._breakers.of(instance.name)
        for name, number in (trials or {}).items():
            breaker = self._breakers.of(name)
            if breaker is not asked or failed is None:
                breaker.release(number)
        if asked is None or instance is None or failed is None:
            return
        number = (trials or {}).get(instance.name, asked.number if asked.state is State.CLOSED else -1)
        self._record(instance, number, failed=failed)

    def _over(self, instance: Instance, number: int, error: BaseException | None) -> None:
        self._record(instance, number, failed=self.broken(error))

    def _record(self, instance: Instance, number: int, *, failed: bool) -> None:
        asked, now = self._breakers.of(instance.name), self._now()
        before = asked.number
        asked.record(number, now, failed=failed)
        if asked.number == before:
            return
        if asked.state is State.OPEN:
            self._breakers.not_closed[instance.name] = asked
            if self._serves:
                self._instances.take_out(instance, BREAKER, self._why(asked), now)
                self._watch(instance.name)
        else:
            self._breakers.not_closed.pop(instance.name, None)
            self._unwatch(instance.name)
        self.changed(instance.name, asked)
        members = self._instances.members
        if len(self._breakers.named) > 2 * len(members) + 16:
            self._breakers.keep({each.name for each in members})

    def _watch(self, name: str) -> None:
        """Have the gauge tell of an instance, as long as there is one of this name."""
        instances, not_closed = self._instances, self._breakers.not_closed
        self._open.watch(lambda: name in not_closed and instances.named(name) is not None, self._service, name)

    def _unwatch(self, name: str) -> None:
        if self._serves:
            self._open.forget(self._service, name)

    @property
    def _serves(self) -> bool:
        """Whether its breakers are still those that count: a call may end long after they were replaced."""
        return self._instances.breakers is self._breakers

    def _why(self, breaker: Breaker) -> str:
        failed, calls = breaker.counts
        return f"{failed} of {calls} calls failed" if calls else "its trials failed"
