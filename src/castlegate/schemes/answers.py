"""What others said of credentials: kept within bounds, asked once however many wait for it, never open by mistake.

Nothing but an acceptance lets a request in. It is kept for as long as the answer allows and no longer than the bound;
a refusal is kept for a moment, apart, so that no flood of invented credentials pushes out the good ones; a failure is
not kept. Credentials are known by their SHA-256 alone.

A question is a task of its own: that the client who asked first leaves, fails nobody else. It leaves `_asked` when the
task has ended, in whatever way, and everybody who waits is told then; whoever leaves earlier is told by its deadline.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from hashlib import sha256
from typing import Any, ClassVar, NamedTuple, Protocol

import msgspec

from castlegate.config.units import Count, SecondsOrZero
from castlegate.errors import GatewayError, Kinds
from castlegate.means import Means
from castlegate.message import Request
from castlegate.principal import Principal
from castlegate.schemes.scheme import Unauthenticated
from castlegate.telemetry.metrics import Registry
from castlegate.waiting import Waiter
from castlegate.wire.timer import Timer

logger = logging.getLogger("castlegate.auth")

_LOG_EVERY = 10.0  # seconds between two lines on questions of a scheme that failed


class AnswerCache(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How long answers are believed without asking again. A plain duration stands for `accepted` alone."""

    short: ClassVar[str] = "accepted"

    accepted: SecondsOrZero = 30.0
    """At most so long a credential that was accepted needs no question; shorter where the answer says so. This is also
    how long a withdrawn one may go on working. `0s` asks for every request."""
    refused: SecondsOrZero = 5.0
    """The same for one that was refused."""
    entries: Count = 10_000
    """At most so many of either are kept by each worker; the oldest make room."""


class Accepted(NamedTuple):
    """Whose it is."""

    principal: Principal
    keep: float | None
    """Seconds that the answer allows it to be kept; None where it does not say."""


class Rejected(NamedTuple):
    """It is nobody's."""

    detail: str


Verdict = Accepted | Rejected
Question = Callable[[], Coroutine[Any, Any, Verdict]]


class Nonsense(Exception):
    """An answer that nothing can be made of; says why, in words fit for the log: none of the answer's own."""


class _Asked:
    """One question and who waits for its answer."""

    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Task[Verdict]) -> None:
        self.task = task
        self.waiting: set[_Waiting] = set()


class _Waiting:
    """One request that waits; an entry of the timer."""

    __slots__ = ("waiter",)

    def __init__(self) -> None:
        self.waiter: Waiter[Principal] = Waiter()

    def expire(self) -> None:
        """Its own deadline has passed."""
        self.waiter.fail(_unverifiable())


class Answers:
    """Those that one scheme was given, by one worker."""

    def __init__(
        self,
        name: str,
        cache: AnswerCache,
        *,
        questions: int,
        within: float,
        timer: Timer,
        registry: Registry,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`questions` may be asked at once, of which each is over `within` so many seconds; `clock` tells Unix time."""
        # For good.
        self._name = name
        self._cache = cache
        self._most = questions
        self._within = within
        self._timer = timer
        self._clock = clock
        results = registry.counter(
            "castlegate_auth_questions_total",
            "Credentials that others were asked about: accepted, refused, failed, or not asked since too many were.",
            "scheme",
            "result",
        )
        self._counts = {result: results.child(name, result) for result in ("accepted", "refused", "failed", "full")}
        # Changed by `_told` alone, but that `known` and `ask` drop what is over.
        self._accepted: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()  # with loop time until which
        self._refused: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        # Changed by `ask` and `_told`.
        self._asked: dict[bytes, _Asked] = {}
        self._quiet_until = -math.inf

    async def start(self) -> None:
        """Questions are asked as credentials come."""

    async def stop(self) -> None:
        """End the questions; who waits for one is told that nothing can be verified."""
        for asked in list(self._asked.values()):
            asked.task.cancel()

    def known(self, credential: bytes) -> Principal | None:
        """Whose it is, if that was said and still holds."""
        digest = sha256(credential).digest()
        found = self._accepted.get(digest)
        if found is None:
            return None
        until, principal = found
        if self._timer.now() < until and self._clock() < principal.expires:
            return principal
        del self._accepted[digest]
        return None

    async def ask(self, credential: bytes, request: Request, question: Question) -> Principal:
        """Whose it is; `question` is what asks for it, if nobody does already. Raises `Unauthenticated`."""
        digest, now = sha256(credential).digest(), self._timer.now()
        refused = self._refused.get(digest)
        if refused is not None:
            if now < refused[0]:
                raise Unauthenticated(refused[1])
            del self._refused[digest]
        asked = self._asked.get(digest)
        if asked is None:
            if len(self._asked) >= self._most:
                self._counts["full"].value += 1
                raise _unverifiable()
            task = asyncio.get_running_loop().create_task(self._answer(question))
            asked = self._asked[digest] = _Asked(task)
            task.add_done_callback(lambda done: self._told(digest, done))
        waiting = _Waiting()
        asked.waiting.add(waiting)
        # While the client still sends there is no deadline of the request: then the question's own counts.
        deadline = min(request.deadline, now + self._within)
        self._timer.add(waiting, deadline)
        try:
            return await waiting.waiter
        finally:
            self._timer.remove(waiting, deadline)
            asked.waiting.discard(waiting)

    async def _answer(self, question: Question) -> Verdict:
        async with asyncio.timeout(self._within):
            return await question()

    def _told(self, digest: bytes, task: asyncio.Task[Verdict]) -> None:
        waiting = self._asked.pop(digest).waiting
        verdict = self._verdict(task)
        if verdict is None:
            for each in list(waiting):
                each.waiter.fail(_unverifiable())
        elif isinstance(verdict, Rejected):
            self._accepted.pop(digest, None)
            self._keep(self._refused, digest, (self._timer.now() + self._cache.refused, verdict.detail))
            for each in list(waiting):
                each.waiter.fail(Unauthenticated(verdict.detail))
        else:
            keep = self._cache.accepted if verdict.keep is None else min(verdict.keep, self._cache.accepted)
            if keep > 0:
                self._keep(self._accepted, digest, (self._timer.now() + keep, verdict.principal))
            for each in list(waiting):
                each.waiter.settle(verdict.principal)

    def _verdict(self, task: asyncio.Task[Verdict]) -> Verdict | None:
        """What the question came to; None for nothing, which is counted and logged."""
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            verdict = task.result()
            self._counts["accepted" if isinstance(verdict, Accepted) else "refused"].value += 1
            return verdict
        self._counts["failed"].value += 1
        if task.cancelled():
            return None
        now = self._timer.now()
        if isinstance(error, (GatewayError, Nonsense, TimeoutError)):
            if now >= self._quiet_until:
                self._quiet_until = now + _LOG_EVERY
                logger.warning("auth '%s': credentials cannot be verified: %s", self._name, _reason(error))
        else:
            logger.error("auth '%s': a credential could not be verified", self._name, exc_info=error)
        return None

    def _keep(self, table: OrderedDict[bytes, Any], digest: bytes, entry: tuple[float, Any]) -> None:
        if len(table) >= self._cache.entries:
            table.popitem(last=False)
        table[digest] = entry


class Asking(Protocol):
    """What is said of a scheme that asks."""

    @property
    def cache(self) -> AnswerCache:
        """How long answers are believed."""

    @property
    def questions(self) -> int:
        """That the instance may ask at once."""

    @property
    def timeout(self) -> float:
        """For each of them."""


def kept_answers(kind: str, name: str, settings: Asking, means: Means) -> Answers:
    """Those of a scheme, which go on over reloads that leave its settings as they were."""
    return means.resources.keep(
        kind,
        settings,
        lambda: Answers(
            name,
            settings.cache,
            questions=-(-settings.questions // means.workers),
            within=settings.timeout,
            timer=means.timer,
            registry=means.registry,
        ),
    )


def _reason(error: GatewayError | Nonsense | TimeoutError) -> str:
    """Nothing of what the other said: it may have repeated the credential."""
    if isinstance(error, GatewayError):
        return f"{error.kind.title.lower()} (status {error.status})"
    return str(error) or "no answer in time"


def _unverifiable() -> Unauthenticated:
    return Unauthenticated("The credential cannot be verified now.", kind=Kinds.UNVERIFIABLE)
