"""A share of a service's calls goes to another service: a new version that is to prove itself.

The other one is a service like any other, with instances, guards and metrics of its own, so that the two can be
compared. It is the outermost of the guards: what is tried again is tried where it was sent at first.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from random import random
from typing import Annotated, Any

import msgspec

from castlegate.calls.claims import ClaimRule
from castlegate.calls.keys import key_of
from castlegate.config.report import Place, Report
from castlegate.config.units import TemplateText
from castlegate.message import Call, Caller, Reply, Request
from castlegate.sketch import Description, Sketch

Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]

_ALL = 2**64


class CanarySettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which calls go to another service instead. Any of the conditions is enough."""

    service: str
    """The other service, which speaks the same protocol and has the same paths or operations."""
    percent: Percent = 0.0
    """How many of a hundred calls."""
    key: TemplateText | None = None
    """What stays together: calls with the same key go to the same of the two, and those that go to the other one go on
    doing so when `percent` grows. `address`, or one reference such as `"{claims.sub}"`. Without it, and for calls that
    do not have it, chance decides for each."""
    headers: dict[str, str] = {}
    """Calls of requests with one of these fields of this value, whatever `percent` says."""
    claims: dict[str, Any] = {}
    """Calls for callers with one of these claims: each with the value that it must have, or a list of those that will
    do."""

    def check(self, at: Place) -> None:
        """That there is a condition, and a key that is one."""
        if self.key is not None:
            key_of(self.key, at.field("key"))
            if not self.percent and not at.field("percent").spoilt:
                at.field("key").mistake("goes with 'percent'")
        for name, accepted in self.claims.items():
            values = accepted if isinstance(accepted, list) else [accepted]
            if not values or not all(isinstance(value, (str, int, float)) for value in values):
                at.field("claims", name).mistake("expected text, a number, true or false, or a list of these")


class Canary:
    """Of one service's operation."""

    def __init__(self, settings: CanarySettings, other: Caller) -> None:
        """`other`: the caller of the same operation of the other service."""
        self._settings = settings
        self._other = other
        self._fields = [(name.lower().encode(), value.encode()) for name, value in settings.headers.items()]
        self._claims = [ClaimRule(*pair) for pair in settings.claims.items()]
        self._key: Callable[[Request], bytes] | None = None
        if settings.key is not None:
            self._key = key_of(settings.key, Report().place())
        self._share = settings.percent / 100

    def describe(self, sketch: Sketch) -> Description:
        """Which calls go elsewhere."""
        settings = self._settings
        says: dict[str, Any] = {}
        if self._chosen_by_name(sketch.request):
            says["sends"] = f"this request to '{settings.service}' instead"
        elif settings.percent:
            by = "" if settings.key is None else f", the same for the same {sketch.show(settings.key)}"
            says["sends"] = f"{settings.percent:g} of 100 calls to '{settings.service}' instead{by}"
        named = [f"{name}: {value}" for name, value in settings.headers.items()]
        if named or self._claims:
            says["always for"] = [*named, *[f"the claim {rule.name}" for rule in self._claims]]
        return Description(role="guard", name="canary", says=says)

    def wrap(self, inner: Caller) -> Caller:
        """The caller that chooses between the two."""
        other, chosen = self._other, self._chosen

        async def call_one_of_two(call: Call) -> Reply:
            return await (other(call) if chosen(call.request) else inner(call))

        return call_one_of_two

    def _chosen(self, request: Request) -> bool:
        """Whether it goes to the other one."""
        if (self._fields or self._claims) and self._chosen_by_name(request):
            return True
        key = b"" if self._key is None else self._key(request)
        if not key:
            return random() < self._share  # noqa: S311 - not a secret
        # Another hash than that of `rules.ring`: else a part of its instances would have none of these keys.
        hashed = int.from_bytes(blake2b(key, digest_size=8, person=b"canary").digest(), "little")
        return hashed < self._share * _ALL

    def _chosen_by_name(self, request: Request) -> bool:
        if any(request.headers.get(name) == value for name, value in self._fields):
            return True
        principal = request.principal
        return principal is not None and any(rule.holds(principal.claims) for rule in self._claims)
