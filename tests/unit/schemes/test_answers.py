"""What others said of credentials: how long it is believed, how often it is asked for, and what becomes of those who wait."""

import asyncio
import math
import time
from collections.abc import Callable

import pytest

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.headers import Headers
from castlegate.message import Request
from castlegate.principal import Principal
from castlegate.schemes.answers import Accepted, AnswerCache, Answers, Nonsense, Rejected, Verdict
from castlegate.schemes.scheme import Unauthenticated
from castlegate.telemetry.metrics import Registry
from castlegate.telemetry.trace import Trace
from castlegate.wire.timer import Timer

ANN = Accepted(Principal(subject="ann", scheme="s"), None)


class Other:
    """Who is asked: answers when it is told to, with what it was given."""

    def __init__(self, verdict: Verdict | Exception = ANN) -> None:
        self.verdict = verdict
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> Verdict:
        self.asked += 1
        await self.gate.wait()
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict


def answers(
    *, questions: int = 10, within: float = 5.0, clock: Callable[[], float] = time.time, **cache: float
) -> Answers:
    timer = Timer(asyncio.get_running_loop())
    settings = AnswerCache(**cache)  # type: ignore[arg-type]
    return Answers("s", settings, questions=questions, within=within, timer=timer, registry=Registry(), clock=clock)


def a_request(deadline: float = math.inf) -> Request:
    request = Request(b"1", Trace(b"", None), "-", b"http", b"x", b"GET", b"/", b"", Headers(), b"", 0.0)
    request.deadline = deadline
    return request


async def ask(said: Answers, credential: bytes, other: Other, deadline: float = math.inf) -> int:
    """The status that it comes to."""
    try:
        await said.ask(credential, a_request(deadline), other)
    except Unauthenticated as error:
        return error.status
    return 200


async def test_who_waits_for_the_same_answer_gets_it_of_one_question_whoever_leaves() -> None:
    said, other = answers(), Other()
    other.gate.clear()
    waiting = [asyncio.create_task(ask(said, b"t", other)) for _ in range(50)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    other.gate.set()
    assert await asyncio.gather(*waiting[1:]) == [200] * 49
    assert other.asked == 1
    assert said.known(b"t") is ANN.principal


async def test_a_failure_reaches_all_who_wait_and_is_not_kept() -> None:
    said, other = answers(), Other(CallFailed(Kinds.CONNECT, Outcome.NOT_SENT))
    assert await asyncio.gather(*[ask(said, b"t", other) for _ in range(5)]) == [503] * 5
    other.verdict = Nonsense("it makes none")
    assert await ask(said, b"t", other) == 503
    other.verdict = ZeroDivisionError("a mistake of ours")
    assert await ask(said, b"t", other) == 503
    other.verdict = ANN
    assert await ask(said, b"t", other) == 200
    assert other.asked == 4


async def test_a_question_and_who_waits_for_it_end_in_time() -> None:
    said, other = answers(within=0.3), Other()
    other.gate.clear()
    began = time.monotonic()
    soon = asyncio.get_running_loop().time() + 0.05
    assert await ask(said, b"t", other, soon) == 503
    assert time.monotonic() - began < 0.25
    assert await ask(said, b"t", other) == 503
    assert other.asked == 1
    other.gate.set()
    assert await ask(said, b"t", other) == 200


async def test_questions_at_once_are_bounded() -> None:
    said, other = answers(questions=2), Other()
    other.gate.clear()
    waiting = [asyncio.create_task(ask(said, b"%d" % n, other)) for n in range(2)]
    await asyncio.sleep(0)
    assert await ask(said, b"one too many", other) == 503
    joined = asyncio.create_task(ask(said, b"1", other))
    await asyncio.sleep(0)
    other.gate.set()
    assert await asyncio.gather(*waiting, joined) == [200] * 3
    assert other.asked == 2


async def test_invented_credentials_push_out_no_good_ones_and_both_are_bounded() -> None:
    said = answers(entries=100)
    for number in range(100):
        await ask(said, b"good-%d" % number, Other())
    refusing = Other(Rejected("no"))
    for number in range(1000):
        assert await ask(said, b"bad-%d" % number, refusing) == 401
    assert all(said.known(b"good-%d" % number) for number in range(100))
    assert refusing.asked == 1000
    assert await ask(said, b"bad-999", refusing) == 401
    assert refusing.asked == 1000
    await ask(said, b"good-100", Other())
    assert said.known(b"good-0") is None
    assert said.known(b"good-100")
    assert await ask(said, b"bad-0", refusing) == 401
    assert refusing.asked == 1001


@pytest.mark.parametrize("keep", [0.0, -1.0, 0.02])
async def test_an_answer_is_kept_no_longer_than_it_allows(keep: float) -> None:
    said, other = answers(), Other(Accepted(ANN.principal, keep))
    assert await ask(said, b"t", other) == 200
    await asyncio.sleep(max(0.0, keep))
    assert said.known(b"t") is None


async def test_an_acceptance_is_over_with_the_credential_whatever_was_said_of_keeping() -> None:
    ending = Principal(subject="ann", scheme="s", expires=1000.0)
    now = 999.9
    said = answers(clock=lambda: now)
    assert await ask(said, b"t", Other(Accepted(ending, 60.0))) == 200
    assert said.known(b"t") is ending
    now = 1000.0
    assert said.known(b"t") is None


async def test_stopping_tells_everybody_who_waits() -> None:
    said, other = answers(), Other()
    other.gate.clear()
    waiting = [asyncio.create_task(ask(said, b"t", other)) for _ in range(3)]
    await asyncio.sleep(0)
    await said.stop()
    assert await asyncio.gather(*waiting) == [503] * 3
