"""How an instance is chosen for a call, as it is configured: which balancer, by what key, by which cookie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import msgspec

from castlegate.calls.keys import key_of
from castlegate.config.report import Place, Report
from castlegate.config.units import SecondsOrZero, TemplateText
from castlegate.errors import CallFailed
from castlegate.message import Call, Caller, Guard, Reply
from castlegate.rules.balancing import Balancer, LeastRequest, PeakEwma, RoundRobin
from castlegate.rules.instances import Instance, Instances
from castlegate.rules.ring import ConsistentHash
from castlegate.sketch import Sketch
from castlegate.upstreams.http.sticky import Stickiness, Sticky

_FAILED = 1.0  # seconds that a call which failed counts as at least, so that failing at once does not attract more

_HOW = {
    "least_request": "of two by chance the one with fewer calls in flight",
    "round_robin": "each in turn",
    "peak_ewma": "of two by chance the one with the shorter wait to expect",
}


class Balance(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which of several instances is asked. One of the words of `by` stands for that alone."""

    short: ClassVar[str] = "by"

    by: Literal["least_request", "round_robin", "peak_ewma", "hash"] = "least_request"
    """`least_request`: of two by chance the one with fewer requests in flight. `round_robin`: each in turn.
    `peak_ewma`: of two by chance the one that seems to answer sooner, by its latest answers and what is in flight.
    `hash`: the same one for the same `key`, of which few change their instance when instances come and go. All of them
    heed weights."""
    key: TemplateText | None = None
    """With `hash`: what of a request decides. `address` (the client's), or one reference: `"{path.id}"`,
    `"{header.x-tenant}"`, `"{query.id}"`, `"{cookie.session}"`, `"{principal.subject}"`, `"{claims.tenant}"`. Requests
    that do not have it are spread by `least_request`."""
    sticky: Sticky | None = None
    """A client stays at the instance that answered it first, by a cookie of the gateway's, for as long as that may be
    asked; its first request goes where `by` says."""
    slow_start: SecondsOrZero = 0.0
    """An instance that comes, or comes back after it was out, gets a tenth of its share at first and all of it after
    this long. `hash` does not heed it."""

    def check(self, at: Place) -> None:
        """The key, where there is to be one."""
        if self.by == "hash" and self.key is None:
            if not at.field("key").spoilt:
                at.mistake("'hash' needs a 'key', such as '{path.id}', '{header.x-tenant}' or 'address'")
        elif self.by != "hash" and self.key is not None:
            at.field("key").mistake(f"goes with 'by: hash', not with '{self.by}'")
        elif self.key is not None:
            key_of(self.key, at.field("key"))


class Choosing(NamedTuple):
    """What is made of it."""

    balancer: Balancer[Any]
    wrappers: list[Guard]  # around the call of an instance


def choosing(settings: Balance, instances: Instances[Any], service: str, now: Callable[[], float]) -> Choosing:
    """The balancer over these instances."""
    balancer: Balancer[Any]
    wrappers: list[Guard] = []
    if settings.by == "round_robin":
        balancer = RoundRobin(instances)
    elif settings.by == "peak_ewma":
        balancer = learner = PeakEwma(instances)
        wrappers.append(Learning(learner, now))
    else:
        balancer = LeastRequest(instances)
        if settings.by == "hash":
            assert settings.key is not None, "the settings were checked"
            key = key_of(settings.key, Report().place())
            balancer = ConsistentHash(instances, lambda call: key(call.request), balancer)
    if settings.sticky is not None:
        sticking = Stickiness(settings.sticky, service, instances, balancer)
        balancer = sticking
        wrappers.append(sticking)
    return Choosing(balancer, wrappers)


def told(settings: Balance, sketch: Sketch, instances: Instances[Any]) -> str:
    """How one is chosen for this request, for `castlegate explain`."""
    if settings.by == "hash":
        assert settings.key is not None, "the settings were checked"
        key = key_of(settings.key, Report().place())(sketch.request)
        shown = sketch.show(key)
        if key and sketch.knows(key) and instances.available:
            ring = ConsistentHash(instances, lambda _call: key, RoundRobin(instances))
            how = f"{ring.choose(sketch.sent, 0.0).name}, to which the key {shown} belongs"
        else:
            how = f"the same for the same {shown or settings.key}" + ("" if key else f"; {_HOW['least_request']}")
    else:
        how = _HOW[settings.by]
    sticky = settings.sticky
    return how if sticky is None else f"the one that the cookie '{sticky.cookie}' stands for; else {how}"


class Learning:
    """Tells a balancer how long calls took to the head of their answer."""

    def __init__(self, balancer: PeakEwma[Any], now: Callable[[], float]) -> None:
        self._balancer = balancer
        self._now = now

    def wrap(self, inner: Caller) -> Caller:
        """The caller with this around it."""
        learn, now = self._balancer.learn, self._now

        async def call_and_learn(call: Call) -> Reply:
            began = now()
            try:
                reply = await inner(call)
            except CallFailed:
                instance: Instance | None = call.instance
                if instance is not None:
                    ended = now()
                    learn(instance, max(ended - began, _FAILED), ended)
                raise
            ended = now()
            learn(call.instance, ended - began, ended)
            return reply

        return call_and_learn
