"""How often and how many at once, as the configuration says it. Refused with 429, of concurrency with 503."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import msgspec

from castlegate.config.references import Scope
from castlegate.config.report import Place, show
from castlegate.config.units import Count, TemplateText
from castlegate.policies.limits.per import check_per
from castlegate.rules.gcra import Pace, parse_rate

_OF_CALLERS = re.compile(r"principal|key|.*\{(claims|principal)[.}?:\[].*")
_QUOTA = re.compile(r"([0-9]+)\s*(?:/\s*([a-z]+))?")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class RateLimit(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How often. A plain rate stands for `rate` alone."""

    short: ClassVar[str] = "rate"

    rate: str
    """Such as `10/s`, `100/min`, `1000/h` or `5/10s`: after a `burst`, requests are admitted in even steps of it."""
    burst: Count | None = None
    """How many may come at once after a pause; if nothing is said, as many as the number of `rate`. In any time at most
    so many are admitted, and what the rate gives in it."""
    per: TemplateText = "address"
    """Whose requests are counted together: `address` (of the client, behind trusted proxies the one that they vouch
    for; of IPv6 the /64), `principal`, `key` (the credential: an API key, a token's id), `route` (all of them), or a
    reference such as `{path.id}` or `{claims.tenant}`."""
    own: bool = False
    """`true`: a principal whose claims have a `limit`, as API keys with a limit of their own do, has that instead."""
    name: str | None = None
    """How clients and metrics see it. Each route counts for itself, but those whose limits have the same name count
    together."""

    def check(self, at: Place) -> None:
        """The rate, and what goes together."""
        try:
            count, period = parse_rate(self.rate)
        except ValueError as error:
            at.field("rate").refuse(self.rate, error)
        else:
            if (self.burst or 1) * Pace(count, period, 1).interval > 2**62:
                at.field("burst").mistake("this many at once are more than anyone could mean")
        if self.own and self.per not in ("principal", "key"):
            at.field("own").mistake("a limit of one's own is per principal or key; say 'per: principal'")
        _check_name(self.name, at)


class QuotaLimit(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How many in a day or a month of the calendar, by UTC. What is used is kept over restarts."""

    daily: Count | None = None
    """Requests from midnight to midnight."""
    monthly: Count | None = None
    """Requests from the first of a month to the first of the next."""
    per: TemplateText = "principal"
    """Whose requests are counted together; see `limit`."""
    name: str | None = None
    """See `limit`."""

    @staticmethod
    def meant(texts: list[str]) -> str:
        """A number alone, or with its time."""
        match = _QUOTA.fullmatch(texts[0]) if len(texts) == 1 else None
        if match is None:
            return ""
        window = match[2] or "day"
        if window not in ("day", "month"):
            return f"a quota is of a day or a month; 'limit: {texts[0]}' says how often"
        return f"write {{{'daily' if window == 'day' else 'monthly'}: {match[1]}}}"

    def check(self, at: Place) -> None:
        """At least one."""
        spoilt = at.field("daily").spoilt or at.field("monthly").spoilt
        if self.daily is None and self.monthly is None and not spoilt:
            at.mistake("neither 'daily' nor 'monthly' is said; a quota is one of them, or both")
        _check_name(self.name, at)


class ConcurrencyLimit(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How many at once. A plain number stands for `most` alone."""

    short: ClassVar[str] = "most"

    most: Count
    """Requests from their head to the last byte of their answer; one more is answered 503."""
    per: TemplateText = "route"
    """Whose requests are counted together; see `limit`."""
    name: str | None = None
    """See `limit`."""

    def check(self, at: Place) -> None:
        """The name."""
        _check_name(self.name, at)


class Limits(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How often a route may be called. Of what `defaults` say a public route takes only what is not per caller."""

    limit: RateLimit | list[RateLimit] | None = None
    """How often: a rate such as `100/min` for each client's address, or one or several with more said of them. More
    are answered 429. `[]` takes away what `defaults` say."""
    quota: QuotaLimit | list[QuotaLimit] | None = None
    """How many in a day or month, for each principal if nothing else is said. More are answered 429."""
    concurrency: ConcurrencyLimit | list[ConcurrencyLimit] | None = None
    """How many at once: a number for the whole route, or one or several with more said of them. More are answered
    503."""

    @property
    def rates(self) -> list[RateLimit]:
        """Of `limit`."""
        return _listed(self.limit)

    @property
    def quotas(self) -> list[QuotaLimit]:
        """Of `quota`."""
        return _listed(self.quota)

    @property
    def slots(self) -> list[ConcurrencyLimit]:
        """Of `concurrency`."""
        return _listed(self.concurrency)


S = TypeVar("S")


def _listed(said: S | list[S] | None) -> list[S]:
    return [] if said is None else said if isinstance(said, list) else [said]


def _check_name(name: str | None, at: Place) -> None:
    if name is not None and not _NAME.fullmatch(name):
        at.field("name").mistake(f"{at.field('name').shown(name)}: a name has letters, digits, '_', '.' and '-'")


def of_anybody(said: Any) -> list[Any]:
    """Those that can be told of callers whom nobody knows: what a public route takes from `defaults`."""
    return [each for each in _listed(said) if not _OF_CALLERS.fullmatch(each.per)]


AnyLimit = RateLimit | QuotaLimit | ConcurrencyLimit
Named = dict[tuple[str, str], AnyLimit]
"""Limits that count together, by kind and name."""


def check_limits(limits: Limits, scope: Scope, at: Place, named: Named, *, public: bool) -> None:
    """Report what is wrong with those of a route, its `defaults` among them. `named` is that of all routes."""
    every: list[tuple[str, Sequence[AnyLimit]]] = [
        ("limit", limits.rates), ("quota", limits.quotas), ("concurrency", limits.slots)
    ]  # fmt: skip
    for field, found in every:
        for index, each in enumerate(found):
            place = at.field(field, index) if isinstance(getattr(limits, field), list) else at.field(field)
            check_per(each.per, scope, place.field("per"), public=public)
            if each.name is not None and named.setdefault((field, each.name), each) != each:
                place.field("name").mistake(
                    f"another route has a {field} of the name {show(each.name)} that says something else; those of one "
                    "name count together, so they must be the same"
                )
        repeated = _repeated(found)
        if repeated is not None:
            at.field(field, repeated).mistake("it counts what one before it counts, so that each request counts twice")


def _repeated(limits: Sequence[AnyLimit]) -> int | None:
    """The first that counts in the same place as one before it. Rates that differ do not."""
    seen: set[tuple[object, ...]] = set()
    for index, each in enumerate(limits):
        counts: set[tuple[object, ...]]
        if isinstance(each, RateLimit):
            counts = {(each.per, each.name, each.rate, each.burst)}
        elif isinstance(each, QuotaLimit):
            said = {"daily": each.daily, "monthly": each.monthly}
            counts = {(each.per, each.name, window) for window, amount in said.items() if amount is not None}
        else:
            counts = {(each.per, each.name)}
        if seen & counts:
            return index
        seen |= counts
    return None
