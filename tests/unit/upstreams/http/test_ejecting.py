"""What becomes of instances by how they answer calls: which failures count, and how a worker's clock brings them back."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from castlegate.body import Body
from castlegate.errors import CallFailed, Kind, Kinds, Outcome
from castlegate.headers import Headers
from castlegate.message import Call, Reply
from castlegate.rules.ejection import Ejection, SuccessRate
from castlegate.rules.instances import Instance, Instances
from castlegate.telemetry.metrics import Registry
from castlegate.upstreams.http.ejecting import EJECTION, Ejecting


class Bed:
    """Instances that answer calls as a test says."""

    def __init__(self, count: int, **said: Any) -> None:
        self.members = [Instance(f"h{number}:80") for number in range(count)]
        self.instances = Instances(self.members)
        now = asyncio.get_running_loop().time
        self.ejecting = Ejecting("users", Ejection(**said), self.instances, now, Registry())
        self._caller = self.ejecting.wrap(self._answer)
        self._says: int | CallFailed = 200

    async def call(self, number: int, says: int | Kind, times: int = 1, body: bytes | Body = b"") -> None:
        self._body = body
        self._says = CallFailed(says, Outcome.UNKNOWN) if isinstance(says, Kind) else says
        call: Any = Call.__new__(Call)
        for _ in range(times):
            call.instance = self.members[number]
            if isinstance(says, Kind):
                with pytest.raises(CallFailed):
                    await self._caller(call)
            else:
                await self._caller(call)

    async def _answer(self, _call: Call) -> Reply:
        if isinstance(self._says, CallFailed):
            raise self._says
        return Reply(self._says, Headers(), self._body)

    def out(self) -> list[int]:
        return [number for number, each in enumerate(self.members) if EJECTION in each.outs]


@pytest.fixture
async def bed() -> Any:
    made: list[Bed] = []

    def make(count: int, **said: Any) -> Bed:
        made.append(Bed(count, **said))
        return made[-1]

    yield make
    for each in made:
        each.ejecting.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - whatever it is about
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    "says",
    [500, 502, 503, 504, 599, Kinds.CONNECT, Kinds.CONNECT_TIMEOUT, Kinds.TLS, Kinds.CERTIFICATE, Kinds.NO_ANSWER,
     Kinds.RESET, Kinds.BAD_ANSWER, Kinds.TIMEOUT],
    ids=str,
)  # fmt: skip
async def test_what_is_a_failure_of_the_instance(bed: Callable[..., Bed], says: int | Kind) -> None:
    it = bed(3)
    await it.call(1, says, 5)
    assert it.out() == [1]


@pytest.mark.parametrize("says", [200, 304, 400, 404, 429, 501, 505, Kinds.POOL_EXHAUSTED, Kinds.NO_INSTANCE], ids=str)
async def test_what_is_not(bed: Callable[..., Bed], says: int | Kind) -> None:
    it = bed(3)
    await it.call(1, says, 50)
    assert it.out() == []


class Source:
    def pause_body(self) -> None: ...

    def resume_body(self) -> None: ...

    def drop_body(self) -> None: ...


async def test_an_answer_counts_when_its_body_is_over_and_as_a_failure_if_its_service_broke_it_off(
    bed: Callable[..., Bed],
) -> None:
    it = bed(3)
    for ends in 4 * ["broken"] + ["whole"] + 4 * ["broken"] + ["left"] + 4 * ["broken"]:
        body = Body(Source())
        await it.call(1, 200, body=body)
        if ends == "broken":
            body.fail(CallFailed(Kinds.RESET, Outcome.UNKNOWN))
        elif ends == "whole":
            body.end()
        else:
            body.close()
    assert it.out() == []
    body = Body(Source())
    body.fail(CallFailed(Kinds.TIMEOUT, Outcome.UNKNOWN))
    await it.call(1, 200, body=body)
    assert it.out() == [1]


async def test_a_call_that_never_chose_an_instance_is_nobodys_failure(bed: Callable[..., Bed]) -> None:
    it = bed(3)
    await it.call(1, 500, 4)
    await it.call(1, Kinds.NO_INSTANCE)
    assert it.out() == []


async def test_its_time_ends_by_itself(bed: Callable[..., Bed]) -> None:
    it = bed(3, time=0.02)
    await it.call(0, 500, 5)
    assert it.out() == [0]
    await until(lambda: it.out() == [])
    await it.call(0, 500, 4)
    assert it.out() == [], "it begins from zero"


async def test_each_of_several_comes_back_in_its_time(bed: Callable[..., Bed]) -> None:
    it = bed(6, time=0.1, longest=10)
    await it.call(0, 500, 5)
    await until(lambda: it.out() == [])
    await it.call(0, 500, 5)
    await it.call(1, 500, 5)
    assert it.out() == [0, 1]
    await until(lambda: it.out() == [0])
    await until(lambda: it.out() == [])


async def test_one_that_does_much_worse_than_others_is_out_after_the_interval(bed: Callable[..., Bed]) -> None:
    rate = SuccessRate(instances=5, requests=20)
    it = bed(10, errors=1000, interval=0.3, time=60, success_rate=rate)
    for _ in range(21):
        for number in range(10):
            await it.call(number, 200)
        await it.call(7, 500)
    await until(lambda: it.out() == [7])
    assert it.members[7].outs[EJECTION].why.startswith("49% of its calls succeeded, ")


async def test_instances_that_come_and_go_are_judged_and_forgotten(bed: Callable[..., Bed]) -> None:
    it = bed(2)
    await it.call(0, 500, 5)
    it.instances.remove(it.members[0])
    fresh = Instance("h0:80")
    it.instances.add(fresh, 0.0)
    it.members[0], gone = fresh, it.members[0]
    await it.call(0, 500, 4)
    assert it.out() == []
    it.members[0] = gone
    await it.call(0, 500, 9)
    assert fresh.well, "late failures of one that has gone are nobody's"


async def test_a_check_brings_back_what_could_not_be_reached_and_nothing_else(bed: Callable[..., Bed]) -> None:
    it = bed(4)
    await it.call(0, Kinds.CONNECT, 5)
    await it.call(1, 500, 5)
    later = asyncio.get_running_loop().time() + 1
    for each in it.members:
        it.ejecting.reached(each, later)
    assert it.out() == [1]


async def test_another_who_holds_an_instance_out_is_not_overruled(bed: Callable[..., Bed]) -> None:
    it = bed(3, time=0.01)
    it.instances.take_out(it.members[0], "check", "status 500", 0.0)
    await it.call(0, 500, 5)
    assert it.out() == [0]
    await until(lambda: it.out() == [])
    assert not it.members[0].well
