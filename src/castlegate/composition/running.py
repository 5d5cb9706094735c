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
from castlegate.composition.contents import NULL, Digest, bad_answer, parse, too_deep
from castlegate.composition.elements import Elements
from castlegate.composition.parts import CANCELLED, ERROR, FALLBACK, OK, SKIPPED, TIMEOUT, Part, PartCall
from castlegate.composition.plans import common_headers
from castlegate.composition.reshaping import is_object
from castlegate.errors import GatewayError, Kinds, Outcome, PartUnfit
from castlegate.expressions.program import Undecided
from castlegate.headers import Headers
from castlegate.message import Reply, Request
from castlegate.rules.deadlines import GRAIN
from castlegate.waiting import Waiter
from castlegate.wire.timer import Timer

_LATE = (Kinds.TIMEOUT, Kinds.CONNECT_TIMEOUT)
_OUTCOMES = (Outcome.NOT_SENT, Outcome.ANSWERED, Outcome.UNKNOWN)


class Run:
    """See the module. What most runs never set is the class's: making one is part of every request."""

    over = False
    error: BaseException | None = None  # what the whole failed with,
    ended_by: PartRun | None = None  # of this part,
    status = 0  # with this status,
    passed_on: Reply | None = None  # and this answer, if that of the service is the whole's
    _common: Headers | None = None  # for calls that have all the time there is
    _share: Share | None = None
    _deadline = 0.0

    def __init__(self, parts: Sequence[Part], request: Request, timer: Timer, budget: Budget) -> None:
        self.request = request
        self.timer = timer
        self.now = timer.now
        self.states = [PartRun(self, part) for part in parts]
        self.values: dict[str, Any] = {}  # what parts answered, of those that others refer to
        self.waiter: Waiter[None] = Waiter()
        self.left = len(parts)  # that have yet to get their place
        self._budget = budget

    def begin(self) -> None:
        """Start what needs nothing; `waiter` is settled when all is done, at the latest."""
        self._deadline = self.request.deadline + GRAIN  # calls end by themselves first: only that is judged by guards
        self.timer.add(self, self._deadline)
        # Told beforehand: one that is settled at once begins what waited for it, which waits for nothing then.
        for state in [state for state in self.states if not state.waits]:
            if not self.over:
                state.begin()

    def release(self) -> None:
        """It has come to its end: leave no circle of references for the collector to find."""
        for state in self.states:
            del state.run

    def stop(self) -> None:
        """Nobody wants it any more."""
        if not self.over:
            self._end()

    def common(self, until: float, left: float) -> Headers:
        """The fields that every service gets for a call which ends at a loop time, in `left` seconds."""
        if until != self.request.deadline:
            return common_headers(self.request, left)
        if self._common is None:
            self._common = common_headers(self.request, left)
        return self._common

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

    def follow(self, part: Part) -> None:
        """A part has its place in the answer: begin what waited for it alone."""
        for follower in part.followers:
            following = self.states[follower.index]
            following.waits -= 1
            if not following.waits and not self.over:
                following.begin()

    def finish(self) -> None:
        """Every part has its place."""
        if not self.over:
            self.over = True
            self.timer.remove(self, self._deadline)
            self.waiter.settle(None)

    def fail(self, state: PartRun | None, error: BaseException) -> None:
        """The whole fails, with a part if it is one's fault."""
        if not self.over:
            self.error, self.ended_by = error, state
            self._end()
            self.waiter.settle(None)

    def expire(self) -> None:
        """Called by the timer: what is under way is late, whatever its callers make of deadlines."""
        for state in self.states:
            if state.began and not state.ended:
                state.run_out()

    def _end(self) -> None:
        self.over = True
        self.timer.remove(self, self._deadline)
        now = self.now()
        for state in self.states:
            if not state.ended:
                state.cancel(now)


class PartRun(Asking):
    """One part of a run. `ended` is 0 until it has its place, or never will."""

    began = ended = 0.0
    content = NULL
    outcome = SKIPPED
    digests: tuple[Digest, ...] = ()  # of its answers
    error: GatewayError | None = None
    failures = 0  # elements that failed
    _asks: PartCall | None = None
    _elements: Elements | None = None

    def __init__(self, run: Run, part: Part) -> None:
        self.run = run
        self.part = part
        self.limit = part.limit
        self.waits = len(part.inputs)  # that have yet to come

    def begin(self) -> None:
        """All that it needs is there."""
        part, run = self.part, self.run
        self.began = run.now()
        try:
            if part.only_calls:
                self._call_for(part.asked, self.began)
            elif part.when is not None and not _holds(part.when.holds, run):
                self._settle(SKIPPED)
            elif part.value is not None:
                self._place(OK, part.value.render(run.request, run.values))
            elif part.each is not None:
                assert part.asked is not None
                self._elements = Elements(self, part.each, part.asked, self._until(part.timeout, self.began))
                self._elements.begin()
            else:
                self._call_for(part.asked, self.began)
        except GatewayError as error:
            self.fall(error)
        except RecursionError:  # of what another part answered
            self.fall(too_deep())
        except Exception as unforeseen:  # noqa: BLE001 - this is called from within callbacks
            run.fail(None, unforeseen)

    def _call_for(self, asked: PartCall | None, now: float) -> None:
        assert asked is not None
        self._asks = asked
        self.ask(asked, self.run.values, self._until(asked.plan.timeout, now), now)

    def run_out(self) -> None:
        """See `Asking`."""
        if self._elements is None:
            super().run_out()
        else:
            self._elements.run_out()

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
        content = digest.take(body)
        outcome = OK if self._asks is part.asked else FALLBACK
        if part.as_it_is:
            self.content = content
            self._settle(outcome)
        else:
            self._place(outcome, content)

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
        unasked = False  # because of what another failed with
        if isinstance(error, PartUnfit):
            missing = [run.states[index] for index in part.inputs if run.states[index].outcome not in (OK, FALLBACK)]
            cause = next((state.error for state in missing if state.error is not None), None)
            if missing and cause is None:
                self._settle(SKIPPED)
                return
            unasked = cause is not None and self._call is None
            error = cause or error
        if not unasked and error.kind is Kinds.SERVICE_ERROR and error.status in part.pass_status:
            self.run.status = error.status
            self._end_run(error, _word(error))
        elif part.fallback_asked is not None and self._asks is part.asked:
            self._call_for(part.fallback_asked, run.now())
        elif part.fallback is not None:
            self.error = error
            self._place(FALLBACK, part.fallback.render(run.request, run.values), shaped=True)
        elif part.optional:
            self.error = error
            self._settle(SKIPPED if unasked else _word(error))
        else:
            self._end_run(error, SKIPPED if unasked else _word(error))

    def _end_run(self, error: GatewayError, outcome: str) -> None:
        """And the whole with it."""
        self.error, self.outcome, self.ended = error, outcome, self.run.now()
        self.part.counters[self.outcome].value += 1
        self.run.status = self.run.status or _status_of(error)
        self.run.fail(self, error)

    def _until(self, timeout: float, now: float) -> float:
        own, deadline = now + timeout, self.run.request.deadline
        return own if own < deadline else deadline  # noqa: FURB136 - half the time of min()

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
        run = self.run
        self.outcome = outcome
        self.ended = run.now()
        part = self.part
        part.counters[outcome].value += 1
        run.left -= 1
        if part.followers:
            run.follow(part)
        if not run.left:
            run.finish()


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
