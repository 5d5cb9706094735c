"""Rates, quotas and concurrency of a route: a request is admitted if all of them do, and told what is left.

What is counted per address stands before authentication, so that who tries credentials is limited too; the rest behind
authorization, so that who is refused uses up nothing. A request that one limit refuses is counted by none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from castlegate.errors import GatewayError, Kinds, RequestRefused
from castlegate.headers import Headers
from castlegate.means import Means
from castlegate.message import Handler, Request, Response
from castlegate.policies.limits import measures
from castlegate.policies.limits.measures import AnyCounts, Exceeded, LimitName
from castlegate.policies.limits.per import WORDS, key_of
from castlegate.policies.limits.settings import AnyLimit, Limits
from castlegate.policies.policy import Site
from castlegate.problem import problem
from castlegate.rules.gcra import Pace, parse_rate
from castlegate.rules.windows import Window
from castlegate.sketch import Description, Sketch
from castlegate.stores.kafka_store import KafkaStore
from castlegate.stores.redis_store import RedisStore

_Measure = measures.Rate | measures.OwnRate | measures.Quota
_Counted = measures.Rate | measures.Quota


def limit_addresses(settings: Limits, site: Site) -> Limit | None:
    """What is counted per address."""
    return _make(settings, site, by_address=True)


def limit(settings: Limits, site: Site) -> Limit | None:
    """The rest."""
    return _make(settings, site, by_address=False)


def _make(settings: Limits, site: Site, *, by_address: bool) -> Limit | None:
    means, store = site.means, None
    maker = _Maker(settings, site, _counts(settings, means), by_address=by_address)
    counted, slots = maker.counted(), maker.slots()
    if not counted and not slots:
        return None
    if counted and means.limit_store.store != "memory":
        maker.says["counted by"] = [means.limit_store.store]
    if counted and means.limit_store.store == "redis":
        store = means.resources.keep(
            "limits",
            means.limit_store,
            lambda: RedisStore(means.limit_store, means.folder, means.timer, means.registry),
        )
    return Limit(counted, slots, store, maker.says, refuse_when_lost=means.limit_store.lost == "refuse")


def _counts(settings: Limits, means: Means) -> AnyCounts:
    """What its rates and quotas are counted by."""
    cluster = means.cluster
    if means.limit_store.store != "kafka" or not (settings.rates or settings.quotas):
        return means.counts
    assert cluster is not None, "the document was checked"

    def make() -> KafkaStore:
        log = cluster.news(means.limit_store.topic)
        return KafkaStore(means.limit_store, means.counts, log, means.timer, means.registry, cluster.max_record)

    return means.resources.keep(f"limits of {cluster.name}", means.limit_store, make)


class _Maker:
    """Of the limits of one route."""

    def __init__(self, settings: Limits, site: Site, counts: AnyCounts, *, by_address: bool) -> None:
        self._settings = settings
        self._counts = counts
        self._site = site
        self._by_address = by_address
        self._names: set[str] = set()
        self.says: dict[str, list[str]] = {}
        self._refused = site.means.registry.counter(
            "castlegate_limited_total", "Requests refused by limits, quotas and concurrency.", "route", "limit"
        )

    def counted(self) -> list[_Measure]:
        """Rates and quotas."""
        counts, made = self._counts, list[_Measure]()
        for rate in self._settings.rates:
            count, period = parse_rate(rate.rate)
            pace = Pace(count, period, rate.burst or count)
            name = rate.per if rate.per in WORDS else "limit"
            limit_name = self._limit_name(rate, name, "", (str(pace.number), str(pace.period), str(pace.burst)))
            if limit_name is not None:
                self._say("at most", f"{rate.rate}, {pace.burst} at once, per {rate.per}")
                made.append((measures.OwnRate if rate.own else measures.Rate)(limit_name, pace, counts))
        windows: tuple[Window, Window] = ("daily", "monthly")
        for quota in self._settings.quotas:
            for window in windows:
                amount = getattr(quota, window)
                limit_name = None if amount is None else self._limit_name(quota, window, f"-{window}", (window,))
                if limit_name is not None:
                    self._say(window, f"{amount} per {quota.per}")
                    made.append(measures.Quota(limit_name, window, amount, counts))
        return made

    def slots(self) -> list[measures.Concurrency]:
        """Concurrency."""
        made = []
        for each in self._settings.slots:
            limit_name = self._limit_name(each, "concurrency", "", ())
            if limit_name is not None:
                self._say("concurrent", f"{each.most} per {each.per}")
                made.append(measures.Concurrency(limit_name, each.most, self._counts))
        return made

    def _limit_name(self, said: AnyLimit, name: str, suffix: str, more: tuple[str, ...]) -> LimitName | None:
        """None where it is counted at the other place of the chain. Names differ within a route."""
        if said.name is not None:
            name = said.name + suffix
        unique, number = name, 1
        while unique in self._names:
            number += 1
            unique = f"{name}-{number}"
        self._names.add(unique)
        if (said.per == "address") is not self._by_address:
            return None
        site = self._site
        whose = f"route {site.name}" if said.name is None else f"name {said.name}"
        parts = (type(said).__name__, whose, said.per, *more)
        return LimitName(
            unique, key_of(said.per, site.scope, site.at), parts, self._refused.child(site.name, unique)
        )  # fmt: skip

    def _say(self, name: str, text: str) -> None:
        self.says.setdefault(name, []).append(text)


class Limit:
    """Admits a request if all of its limits do."""

    def __init__(
        self,
        counted: list[_Measure],
        slots: list[measures.Concurrency],
        store: RedisStore | None,
        says: dict[str, list[str]],
        *,
        refuse_when_lost: bool,
    ) -> None:
        self._counted = counted
        self._slots = slots
        self._store = store
        self._says = says
        self._refuse_when_lost = refuse_when_lost
        self._policy = self._policy_of(counted)
        self._plain = [measure for measure in counted if not isinstance(measure, measures.OwnRate)]
        self._own = len(self._plain) < len(counted)

    def describe(self, sketch: Sketch) -> Description:
        """The limits."""
        del sketch
        says: dict[str, Any] = {name: texts[0] if len(texts) == 1 else texts for name, texts in self._says.items()}
        return Description(role="policy", name="limit", says=says)

    def wrap(self, inner: Handler) -> Handler:
        """Answers tell what is left."""
        store, plain, slots, own, line = self._store, self._plain, self._slots, self._own, self._policy

        async def handle(request: Request) -> Response:
            counted, policy = plain, line
            if own:
                counted = self._held_to(request)
                policy = self._policy_of(counted)
            try:
                if store is not None:
                    found = await self._ask(store, counted, request)
                else:
                    found = _count(counted, request)
                    if slots and not isinstance(found, Exceeded):
                        found = self._hold(found, counted, request)
            except GatewayError as error:
                return problem(error, request)
            if isinstance(found, Exceeded):
                return _refuse(found, request, policy)
            response = await inner(request)
            left = b"ratelimit: %b\r\n" % b", ".join(found)
            response.headers = Headers([*response.headers.lines, policy, left])
            return response

        return handle

    def _held_to(self, request: Request) -> list[_Counted]:
        return [
            measure.measure(request) if isinstance(measure, measures.OwnRate) else measure for measure in self._counted
        ]

    def _policy_of(self, counted: Sequence[_Measure]) -> bytes:
        return b"ratelimit-policy: %b\r\n" % b", ".join([measure.policy for measure in (*counted, *self._slots)])

    def _hold(self, items: list[bytes], counted: Sequence[_Counted], request: Request) -> list[bytes] | Exceeded:
        """Slots: those that are held are released at the request's end, refused or not. If there are none, what was
        counted is given back. Raises `RequestRefused`.
        """
        for slots in self._slots:
            try:
                found = slots.take(request)
            except GatewayError:
                _give_back(counted, request)
                raise
            if isinstance(found, Exceeded):
                _give_back(counted, request)
                return found
            items.append(found)
        return items

    async def _ask(self, store: RedisStore, counted: Sequence[_Counted], request: Request) -> list[bytes] | Exceeded:
        """Count it in Redis. Slots are held before, so that nothing need be given back there. Raises
        `RequestRefused`.
        """
        held = self._hold([], (), request)
        if isinstance(held, Exceeded):
            return held
        values = await store.ask([measure.question(request) for measure in counted], request.deadline)
        if values is not None:
            return _judged(counted, values, held)
        if self._refuse_when_lost:
            raise RequestRefused(Kinds.UNCOUNTED)
        found = _count(counted, request)
        return found if isinstance(found, Exceeded) else [*found, *held]


def _count(counted: Sequence[_Counted], request: Request) -> list[bytes] | Exceeded:
    """Count it in memory, by all or by none. Raises `RequestRefused`."""
    items: list[bytes] = []
    for number, measure in enumerate(counted):
        try:
            found = measure.take(request)
        except GatewayError:
            _give_back(counted[:number], request)
            raise
        if isinstance(found, Exceeded):
            _give_back(counted[:number], request)
            return _longest(found, counted[number + 1 :], request)
        items.append(found)
    return items


def _longest(worst: Exceeded, others: Sequence[_Counted], request: Request) -> Exceeded:
    """Of all that would refuse it the one that does so for the longest: before that, trying again is of no use."""
    for measure in others:
        found = measure.take(request)
        if not isinstance(found, Exceeded):
            measure.give_back(request)
        elif found.wait > worst.wait:
            worst = found
    return worst


def _give_back(counted: Sequence[_Counted], request: Request) -> None:
    for measure in counted:
        measure.give_back(request)


def _judged(counted: Sequence[_Counted], values: list[int], held: list[bytes]) -> list[bytes] | Exceeded:
    """What Redis said: something negative of those that refuse it."""
    refusing = [
        found
        for measure, value in zip(counted, values, strict=True)
        if value < 0 and isinstance(found := measure.answered(value), Exceeded)
    ]
    if refusing:
        return max(refusing, key=lambda found: found.wait)
    answered = [measure.answered(value) for measure, value in zip(counted, values, strict=True)]
    return [*(item for item in answered if not isinstance(item, Exceeded)), *held]


def _refuse(found: Exceeded, request: Request, policy: bytes) -> Response:
    told = policy.rstrip().partition(b": ")[2]
    fields = (b"retry-after", b"%d" % found.wait), (b"ratelimit-policy", told), (b"ratelimit", found.item)
    return problem(RequestRefused(found.kind, found.detail, headers=fields), request)
