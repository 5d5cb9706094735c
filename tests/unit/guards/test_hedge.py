"""Two tries of one call: whatever becomes of each, there is one result, and nothing of the other is left."""

import asyncio
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.guards.hedge import Hedge, HedgeSettings
from castlegate.headers import Headers
from castlegate.message import Call, Reply, Request
from castlegate.rules.budget import RepeatBudget
from castlegate.rules.percentile import Percentile
from castlegate.telemetry.metrics import Registry
from castlegate.telemetry.trace import Trace
from castlegate.waiting import DirectTask, Waiter


class Result(NamedTuple):
    """Of one try: an answer of this status, or a failure."""

    status: int
    outcome: Outcome = Outcome.ANSWERED


RESULTS = st.sampled_from(
    [Result(200), Result(404), Result(503), Result(0, Outcome.NOT_SENT), Result(0, Outcome.UNKNOWN)]
)


class Answer(Reply):
    """One that notes whether it was closed."""

    __slots__ = ("closed",)

    def __init__(self, status: int) -> None:
        super().__init__(status, Headers(), b"")
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Service:
    """Each try waits until the test ends it."""

    def __init__(self) -> None:
        self.waiters: list[Waiter[Reply]] = []
        self.cancelled = 0
        self.answers: list[Answer] = []
        self.twice = asyncio.Event()

    async def __call__(self, call: Call) -> Reply:
        call.instance = len(self.waiters)
        waiter: Waiter[Reply] = Waiter()
        self.waiters.append(waiter)
        if len(self.waiters) == 2:
            self.twice.set()
        try:
            return await waiter
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def end(self, number: int, result: Result) -> None:
        if result.status:
            self.answers.append(Answer(result.status))
            self.waiters[number].settle(self.answers[-1])
        else:
            self.waiters[number].fail(CallFailed(Kinds.TIMEOUT, result.outcome))


class Race:
    """A hedged call under way, whose second try is begun."""

    def __init__(self, budget: RepeatBudget) -> None:
        self.service = Service()
        loop = asyncio.get_running_loop()
        hedge = Hedge("s", HedgeSettings(after=0.001), Percentile(95), budget, loop.time, Registry())
        request = Request(b"1", Trace(b"", None), "", b"http", b"x", b"GET", b"/", b"", Headers(), b"", 0.0)
        self.call = Call(request, b"GET", b"/", Headers(), b"", None, 10.0, idempotent=True)
        self.ended: list[tuple[Reply | None, BaseException | None]] = []
        self.task = DirectTask(self._run(hedge), lambda result, error: self.ended.append((result, error)))
        self.task.start()

    async def _run(self, hedge: Hedge) -> Reply:
        return await hedge.wrap(self.service)(self.call)

    async def both(self) -> None:
        async with asyncio.timeout(5):
            await self.service.twice.wait()


def is_good(result: Result) -> bool:
    return 0 < result.status < 500


@settings(max_examples=60, deadline=None)
@given(RESULTS, RESULTS, st.booleans())
def test_one_result_and_nothing_left(first: Result, second: Result, second_is_first: bool) -> None:
    async def run() -> None:
        budget = RepeatBudget(0.2, 3)
        race = Race(budget)
        await race.both()
        order = [(1, second), (0, first)] if second_is_first else [(0, first), (1, second)]
        for number, result in order:
            if not race.ended:
                race.service.end(number, result)
        assert len(race.ended) == 1
        reply, error = race.ended[0]
        earlier, later = order[0][1], order[1][1]
        if is_good(earlier):
            assert reply is not None
            assert reply.status == earlier.status
            assert race.service.cancelled == 1
        elif is_good(later):
            assert reply is not None
            assert reply.status == later.status
        elif earlier.status or later.status:
            assert reply is not None
            assert reply.status == 503
        else:
            assert isinstance(error, CallFailed)
            unsent = earlier.outcome is later.outcome is Outcome.NOT_SENT
            assert error.outcome is (Outcome.NOT_SENT if unsent else Outcome.UNKNOWN)
        # Each answer was given to the caller, or closed.
        assert [answer.closed for answer in race.service.answers] == [
            answer is not reply for answer in race.service.answers
        ]
        assert budget.repeats == 0

    asyncio.run(run())


async def test_who_leaves_cancels_both() -> None:
    budget = RepeatBudget(0.2, 3)
    race = Race(budget)
    await race.both()
    race.task.cancel()
    assert race.service.cancelled == 2
    assert isinstance(race.ended[0][1], asyncio.CancelledError)
    assert budget.repeats == 0


async def test_the_second_goes_elsewhere_and_who_won_is_known() -> None:
    race = Race(RepeatBudget(0.2, 3))
    await race.both()
    race.service.end(1, Result(200))
    assert race.call.instance == 1


async def test_without_budget_there_is_no_second() -> None:
    race = Race(RepeatBudget(0.0, 0))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await race.both()
    race.service.end(0, Result(200))
    assert race.ended[0][0] is not None
