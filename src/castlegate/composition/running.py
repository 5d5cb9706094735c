"""The parts of one request under way: each begins when its inputs are there; nothing runs on when the answer is known.

    waiting ──inputs there──▶ under way ──▶ ok, fallback, timeout, error (optional), skipped
                                   └──▶ the whole fails; what else is under way is cancelled at once
A `Run` ends once: when the last part is settled, when a part fails that the answer cannot do without, when the client
leaves. From then on it is `over`: whatever still comes is dropped.

Everything here runs inside the callbacks of whoever settles a call (see `waiting`), so nothing may raise: what is not
foreseen ends the run with that error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from castlegate.body import Budget, Share
from castlegate.composition.asking import Asking, declined
from castlegate.composition.contents import NULL, Digest, bad_answer, parse
from castlegate.composition.elements import Elements
from castlegate.composition.parts import CANCELLED, ERROR, FALLBACK, OK, SKIPPED, TIMEOUT, Asked, Part
from castlegate.composition.plans import common_lines
from castlegate.composition.reshaping import is_object
from castlegate.errors import GatewayError, Kinds, Outcome, PartUnfit
from castlegate.expressions.program import Undecided
from castlegate.message import Reply, Request
from castlegate.waiting import Waiter
from castlegate.wire.timer import Timer

_LATE = (Kinds.TIMEOUT, Kinds.CONNECT_TIMEOUT)
_OUTCOMES = (Outcome.NOT_SENT, Outcome.ANSWERED, Outcome.UNKNOWN)


class Run:
    """See the module."""

    __slots__ = (
        "_budget",
        "_left",
        "_lines",
        "_share",
        "_waits",
        "ended_by",
        "error",
        "now",
        "over",
        "passed_on",
        "request",
        "states",
        "status",
        "timer",
        "values",
        "waiter",
    )  # fmt: skip

    def __init__(self, parts: Sequence[Part], request: Request, timer: Timer, budget: Budget) -> None:
        self.request = request
        self.timer = timer
        self.now = timer.now
        self.states = [PartRun(self, part) for part in parts]
        self.values: dict[str, Any] = {}  # what parts answered, of those that others refer to
        self.over = False
        self.error: BaseException | None = None  # what the whole failed with,
        self.ended_by: PartRun | None = None  # of this part,
        self.status = 0  # with this status,
        self.passed_on: Reply | None = None  # and this answer, if that of the service is the whole's
        self.waiter: Waiter[None] = Waiter()
        self._waits = [len(part.inputs) for part in parts]  # inputs that have yet to come
        self._left = len(parts)
        self._lines: list[bytes] | None = None
        self._budget = budget
        self._share: Share | None = None

    def begin(self) -> None:
        """Start what needs nothing; `waiter` is settled when all is done, at the latest."""
        for state in self.states:
            if not state.part.inputs and not self.over:
                state.begin()

    def stop(self) -> None:
        """Nobody wants it any more."""
        if not self.over:
            self._end()

    @property
    def lines(self) -> list[bytes]:
        """The client's fields that services get."""
        if self._lines is None:
            self._lines = common_lines(self.request)
        return self._lines

    @property
    def outcome(self) -> Outcome:
        """What became of all that was asked: not sent only if nothing was."""
        return _OUTCOMES[max([state.sent for state in self.states])]

    def take(self, size: int) -> None:
        """Bytes of answers that are collected. Raises `RequestRefused`."""
        if self._share is None:
            self._share = Share(self._budget)
            self.request.on_end = [*(self.request.on_end or ()), self._share.give_back]
        self._share.take(size)

    def settled(self, state: PartRun) -> None:
        """A part has its place in the answer."""
        self._left -= 1
        for follower in state.part.followers:
            self._waits[follower.index] -= 1
            if not self._waits[follower.index] and not self.over:
                self.states[follower.index].begin()
        if not self._left and not self.over:
            self.over = True
            self.waiter.settle(None)

    def fail(self, state: PartRun | None, error: BaseException) -> None:
        """The whole fails, with a part if it is one's fault."""
        if not self.over:
            self.error, self.ended_by = error, state
            self._end()
            self.waiter.settle(None)

    def _end(self) -> None:
        self.over = True
        now = self.now()
        for state in self.states:
            if not state.ended:
                state.cancel(now)


class PartRun(Asking):
    """One part of a run. `ended` is 0 until it has its place, or never will."""

    __slots__ = ("_asks", "_elements", "began", "content", "digests", "ended", "error", "failures", "outcome", "part")

    def __init__(self, run: Run, part: Part) -> None:
        super().__init__(run, part.limit)
        self.part = part
        self.began = self.ended = 0.0
        self.content = NULL
        self.outcome = SKIPPED
        self.digests: tuple[Digest, ...] = ()  # of its answers
        self.error: GatewayError | None = None
        self.failures = 0  # elements that failed
        self._asks: Asked | None = None
        self._elements: Elements | None = None

    def begin(self) -> None:
        """All that it needs is there."""
        try:
            self._begin()
        except GatewayError as error:
            self.fall(error)
        except Exception as unforeseen:  # noqa: BLE001 - this is called from within callbacks
            self.run.fail(None, unforeseen)

    def _begin(self) -> None:
        part, run = self.part, self.run
        self.began = run.now()
        if part.when is not None and not _holds(part.when.holds, run):
            self._settle(SKIPPED)
        elif part.value is not None:
            content = part.value.render(run.request, run.values)
            self._place(OK, content)
        elif part.each is not None:
            assert part.asked is not None
            self._elements = Elements(self, part.each, part.asked, self._until(part.timeout))
            self._elements.begin()
        else:
            assert part.asked is not None
            self._asks = part.asked
            self.ask(part.asked, run.values, self._until(part.timeout))

    def cancel(self, now: float) -> None:
        """The whole is over."""
        if self.began:
            self.outcome, self.ended = CANCELLED, now
            if self._elements is not None:
                self._elements.give_up()
            else:
                self.give_up()
            self.part.counters[CANCELLED].value += 1

    def elements_answered(self, content: bytes, failures: int) -> None:
        """What its elements came to."""
        self.failures = failures
        self._place(OK, content, shaped=True)

    def answered(self, reply: Reply, body: bytes) -> None:
        """See `Asking`."""
        part = self.part
        digest = part.digest_of(reply)
        self.digests = (digest,)
        self._place(OK if self._asks is part.asked else FALLBACK, digest.take(body))

    def declined(self, reply: Reply, body: bytes) -> None:
        """See `Asking`."""
        if reply.status in self.part.pass_status:
            self.run.passed_on = Reply(reply.status, reply.headers, body)
            self.digests = (self.part.digest_of(reply),)
        self.failed(declined(reply))

    def failed(self, error: GatewayError) -> None:
        """See `Asking`."""
        part, run = self.part, self.run
        self.note(error)
        if isinstance(error, PartUnfit):
            missing = [run.states[index] for index in part.inputs if run.states[index].outcome not in (OK, FALLBACK)]
            if missing and all(state.outcome is SKIPPED for state in missing):
                self._settle(SKIPPED)
                return
            error = next((state.error for state in missing if state.error is not None), error)
        if error.kind is Kinds.SERVICE_ERROR and error.status in part.pass_status:
            self.run.status = error.status
            self._end_run(error)
        elif part.fallback_asked is not None and self._asks is part.asked:
            self._asks = part.fallback_asked
            self.ask(part.fallback_asked, run.values, self._until(part.fallback_asked.plan.timeout))
        elif part.fallback is not None:
            self.error = error
            self._place(FALLBACK, part.fallback.render(run.request, run.values), shaped=True)
        elif part.optional:
            self.error = error
            self._settle(_word(error))
        else:
            self._end_run(error)

    def _end_run(self, error: GatewayError) -> None:
        """And the whole with it."""
        self.error, self.outcome, self.ended = error, _word(error), self.run.now()
        self.part.counters[self.outcome].value += 1
        self.run.status = self.run.status or _status_of(error)
        self.run.fail(self, error)

    def _until(self, timeout: float) -> float:
        return min(self.run.now() + timeout, self.run.request.deadline)

    def _place(self, outcome: str, content: bytes, *, shaped: bool = False) -> None:
        """Raises `GatewayError` where the content does not have the form that is asked for."""
        part = self.part
        value = parse(content) if part.referenced else None
        if not shaped:
            for shape in part.shapes:
                content = shape(content)
        if part.merge and not is_object(content):
            raise bad_answer("The answer is no object, whose members could be merged.")
        self.content = content
        if part.referenced:
            self.run.values[part.name] = value
        self._settle(outcome)

    def _settle(self, outcome: str) -> None:
        self.outcome = outcome
        self.ended = self.run.now()
        self.part.counters[outcome].value += 1
        self.run.settled(self)


def _status_of(error: GatewayError) -> int:
    """The status of the whole where a part failed so."""
    if error.kind is not Kinds.SERVICE_ERROR:
        return error.status
    return 503 if error.status in (429, 503) else 504 if error.status == 504 else 502


def _word(error: GatewayError) -> str:
    return TIMEOUT if error.kind in _LATE or error.status == 504 else ERROR


def _holds(holds: Callable[[Any, float], bool], run: Run) -> bool:
    try:
        return holds(run, time.time())
    except Undecided:
        return False  # it is asked where the condition is true
