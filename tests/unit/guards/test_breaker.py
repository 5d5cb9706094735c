"""Breakers of instances when the guard around the calls is replaced: who is out never stays out for ever."""

from collections.abc import Awaitable, Callable

import pytest

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.guards.breaker import Breakers, BreakerSettings, InstanceBreakers
from castlegate.headers import Headers
from castlegate.message import Call, Reply, Request
from castlegate.rules.instances import BREAKER, Instance, Instances
from castlegate.telemetry.metrics import Registry
from castlegate.telemetry.trace import Trace

SETTINGS = BreakerSettings(per="instance", least=2, pause=1.0, trials=1)


class Service:
    """Two instances; `statuses` says what each answers."""

    def __init__(self) -> None:
        self.now = 100.0
        self.instances = Instances([Instance("a"), Instance("b")])
        self.statuses = {"a": 200, "b": 200}
        self.registry = Registry()

    def guard(self, breakers: Breakers) -> InstanceBreakers:
        return InstanceBreakers("s", SETTINGS, breakers, self.instances, lambda: self.now, self.registry)

    async def ask(self, guard: InstanceBreakers, name: str) -> None:
        """Have that one asked."""
        await guard.wrap(self._choosing(name))(make_call())

    def out(self) -> set[str]:
        return {each.name for each in self.instances.members if BREAKER in each.outs}

    def _choosing(self, name: str) -> Callable[[Call], Awaitable[Reply]]:
        async def inner(call: Call) -> Reply:
            call.instance = self.instances.named(name)
            return Reply(self.statuses[name], Headers(), b"")

        return inner


def make_call() -> Call:
    request = Request(b"1", Trace(b"", None), "", b"http", b"x", b"GET", b"/", b"", Headers(), b"", 100.0)
    return Call(request, b"GET", b"/", Headers(), b"", None, 10.0, idempotent=True)


@pytest.fixture
def service() -> Service:
    return Service()


async def test_what_a_call_of_before_a_reload_opens_is_tried_again_by_those_after_it(service: Service) -> None:
    breakers = Breakers(SETTINGS.rule)
    before, after = service.guard(breakers), service.guard(breakers)
    before.watch()
    after.watch()
    service.statuses["a"] = 500
    for _ in range(2):
        await service.ask(before, "a")
    assert service.out() == {"a"}
    service.statuses["a"] = 200
    service.now += 1.1
    await service.ask(after, "a")
    assert service.out() == set()


async def test_what_opened_while_a_reload_was_prepared_stays_out_and_comes_back(service: Service) -> None:
    breakers = Breakers(SETTINGS.rule)
    before, after = service.guard(breakers), service.guard(breakers)
    before.watch()
    service.statuses["a"] = 500
    for _ in range(2):
        await service.ask(before, "a")
    after.watch()
    assert service.out() == {"a"}
    service.statuses["a"] = 200
    service.now += 1.1
    await service.ask(after, "a")
    assert service.out() == set()


async def test_breakers_that_were_replaced_take_nothing_out_and_put_nothing_back(service: Service) -> None:
    before, after = service.guard(Breakers(SETTINGS.rule)), service.guard(Breakers(SETTINGS.rule))
    before.watch()
    service.statuses["a"] = 500
    for _ in range(2):
        await service.ask(before, "a")
    after.watch()
    assert service.out() == set()
    service.statuses["b"] = 500
    for _ in range(2):
        await service.ask(before, "b")
    assert service.out() == set()
    service.now += 0.5
    for _ in range(2):
        await service.ask(after, "b")
    assert service.out() == {"b"}
    service.now += 0.6  # the pause of those before is over
    service.statuses["b"] = 200
    await service.ask(before, "b")
    assert service.out() == {"b"}


async def test_one_that_went_while_it_was_out_is_judged_anew_when_it_is_back(service: Service) -> None:
    guard = service.guard(Breakers(SETTINGS.rule))
    guard.watch()
    service.statuses["a"] = 500
    for _ in range(2):
        await service.ask(guard, "a")
    service.instances.remove(service.instances.members[0])
    await service.ask(guard, "b")
    service.instances.add(Instance("a"), service.now)
    await service.ask(guard, "b")
    assert service.out() == set()
    for _ in range(2):
        await service.ask(guard, "a")
    assert service.out() == {"a"}


async def test_as_soon_as_none_is_left_calls_are_refused(service: Service) -> None:
    guard = service.guard(Breakers(SETTINGS.rule))
    guard.watch()
    service.statuses.update(a=500, b=500)
    for name in "aabb":
        await service.ask(guard, name)
    with pytest.raises(CallFailed) as failed:
        await service.ask(guard, "a")
    assert (failed.value.kind, failed.value.outcome) == (Kinds.BREAKER_OPEN, Outcome.NOT_SENT)
