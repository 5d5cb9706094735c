"""What is tried again and what never is, whatever happens to each try."""

import asyncio
import math
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from castlegate.errors import CallFailed, Kind, Kinds, Outcome
from castlegate.guards.retry import Retries, Retry
from castlegate.headers import Headers
from castlegate.message import Call, Reply, Request
from castlegate.rules.budget import RepeatBudget
from castlegate.rules.instances import Instance, Instances
from castlegate.telemetry.metrics import Registry
from castlegate.telemetry.trace import Trace

NOT_SENT = (Kinds.CONNECT, Kinds.CONNECT_TIMEOUT, Kinds.POOL_EXHAUSTED)
UNKNOWN = (Kinds.NO_ANSWER, Kinds.RESET, Kinds.TIMEOUT)


class Try(NamedTuple):
    """What becomes of one."""

    kind: Kind | None  # None: an answer of this
    status: int
    seconds: float


TRIES = st.one_of(
    st.builds(Try, st.sampled_from([*NOT_SENT, *UNKNOWN]), st.just(0), st.sampled_from([0.0, 0.3, 2.0])),
    st.builds(Try, st.none(), st.sampled_from([200, 404, 503]), st.sampled_from([0.0, 0.3, 2.0])),
)
SETTINGS = st.one_of(
    st.none(),
    st.builds(
        Retries,
        tries=st.one_of(st.none(), st.integers(1, 5)),
        on=st.one_of(
            st.none(),
            st.lists(st.sampled_from(["connect", "no_answer", "reset", "timeout", "busy"]), unique=True, max_size=5),
        ),
        status=st.sampled_from([[], [503]]),
        methods=st.sampled_from([None, ["GET"], ["POST"]]),
        idempotency_key=st.sampled_from([None, "Idempotency-Key"]),
        per_try=st.sampled_from([None, 0.5]),
        backoff=st.just(0.0),
    ),
)


class Service:
    """Does with each try what is said, and goes on answering 200."""

    def __init__(self, tries: list[Try], instances: list[Instance], *, reused: bool = False) -> None:
        self.todo = list(tries)
        self.instances = instances
        self.reused = reused  # whether calls get connections that had been used before
        self.now = 100.0
        self.asked: list[tuple[Instance, Try, float]] = []  # with the time that it had
        self.open: list[Reply] = []

    async def __call__(self, call: Call) -> Reply:
        instance = next((each for each in self.instances if each not in call.tried), self.instances[0])
        call.instance = instance
        call.reused = self.reused and not call.fresh
        this = self.todo.pop(0) if self.todo else Try(None, 200, 0.0)
        left = call.until(self.now) - self.now
        self.asked.append((instance, this, left))
        if this.seconds >= left:
            this = Try(Kinds.TIMEOUT, 0, left)
            self.asked[-1] = (instance, this, left)
        self.now += this.seconds
        if this.kind is not None:
            call.failed_on(instance)
            raise CallFailed(this.kind, Outcome.NOT_SENT if this.kind in NOT_SENT else Outcome.UNKNOWN)
        return Reply(this.status, Headers(), b"")


def make_call(method: bytes, *, key: bool) -> Call:
    headers = Headers.of([(b"idempotency-key", b"7")] if key else [])
    trace = Trace(b"", None)
    request = Request(b"1", trace, "", b"http", b"x", method, b"/", b"", headers, b"", 100.0)
    request.deadline = 104.0
    return Call(request, method, b"/", headers, b"", None, 10.0, idempotent=method != b"POST")


async def run(
    tries: list[Try],
    said: Retries | None,
    instances: int,
    method: bytes,
    *,
    key: bool,
    budget: RepeatBudget,
    reused: bool = False,
) -> tuple[Service, Reply | CallFailed]:
    members = [Instance(str(number)) for number in range(instances)]
    service = Service(tries, members, reused=reused)
    guard = Retry("s", said, Instances[Any](members), budget, lambda: service.now, Registry())
    try:
        return service, await guard.wrap(service)(make_call(method, key=key))
    except CallFailed as failed:
        return service, failed


@settings(max_examples=400, deadline=None)
@given(st.lists(TRIES, max_size=8), SETTINGS, st.integers(1, 4), st.sampled_from([b"GET", b"POST"]), st.booleans())
def test_what_holds_of_every_call(
    tries: list[Try], said: Retries | None, instances: int, method: bytes, key: bool
) -> None:
    budget = RepeatBudget(0.2, 3)
    service, result = asyncio.run(run(tries, said, instances, method, key=key, budget=budget))
    asked = service.asked
    # Nothing that may have been executed is repeated unless that does no harm.
    harmless = method == b"GET" or (key and said is not None and said.idempotency_key is not None)
    sent = [each for _, each, _ in asked if each.kind not in NOT_SENT]
    assert harmless or len(sent) <= 1
    # Bounds.
    most = said.tries if said is not None and said.tries is not None else instances + 2
    assert 1 <= len(asked) <= most
    assert all(left > 0 for _, _, left in asked)
    assert service.now <= 104.0 + 1e-9
    if said is not None and said.methods is not None and method.decode() not in said.methods:
        assert len(asked) == 1
    # The last result is the one that is told, and an honest one.
    last = asked[-1][1]
    if isinstance(result, Reply):
        assert last.kind is None
        assert result.status == last.status
    else:
        assert result.kind is last.kind
        assert (result.outcome is Outcome.NOT_SENT) == (not sent)
    assert (budget.active, budget.repeats) == (0, 0)


@settings(max_examples=100, deadline=None)
@given(st.lists(TRIES, max_size=8), SETTINGS, st.integers(1, 4))
def test_without_a_budget_only_other_instances_are_tried(
    tries: list[Try], said: Retries | None, instances: int
) -> None:
    service, _ = asyncio.run(run(tries, said, instances, b"GET", key=False, budget=RepeatBudget(0.0, 0)))
    assert len({instance.name for instance, _, _ in service.asked}) == len(service.asked)
    assert all(each.kind in NOT_SENT for _, each, _ in service.asked[:-1])


@pytest.mark.parametrize("said", [None, Retries(tries=5, backoff=0.0)], ids=["nothing said", "five tries"])
@pytest.mark.parametrize(("reused", "tries"), [(True, 2), (False, 1)], ids=["used before", "fresh"])
def test_only_the_end_of_a_connection_that_was_used_before_is_free_and_only_once(
    said: Retries | None, *, reused: bool, tries: int
) -> None:
    silent = [Try(Kinds.NO_ANSWER, 0, 0.0)] * 5
    budget = RepeatBudget(0.0, 0)
    service, result = asyncio.run(run(silent, said, 2, b"GET", key=False, budget=budget, reused=reused))
    assert len(service.asked) == tries
    assert isinstance(result, CallFailed)


async def test_a_thousand_instances_that_are_not_reached_are_not_all_tried() -> None:
    refusing, budget = [Try(Kinds.CONNECT, 0, 0.0)] * 1000, RepeatBudget(0.0, 3)
    service, result = await run(refusing, None, 1000, b"POST", key=False, budget=budget)
    assert len(service.asked) == 1 + 5 + 3
    assert len({instance for instance, _, _ in service.asked}) == len(service.asked)
    assert isinstance(result, CallFailed)
    assert (result.kind, result.outcome) == (Kinds.CONNECT, Outcome.NOT_SENT)
    assert (budget.active, budget.repeats) == (0, 0)


async def test_to_go_on_to_an_instance_that_is_out_is_charged() -> None:
    members = [Instance(name) for name in "abc"]
    instances = Instances[Any](members)
    instances.take_out(members[2], "check", "no answer", 100.0)
    service = Service([Try(Kinds.CONNECT, 0, 0.0)] * 3, members)
    guard = Retry("s", None, instances, RepeatBudget(0.0, 0), lambda: service.now, Registry())
    with pytest.raises(CallFailed):
        await guard.wrap(service)(make_call(b"GET", key=False))
    assert [instance.name for instance, _, _ in service.asked] == ["a", "b"]


def test_with_room_in_the_budget_there_is_still_no_more_than_one_repetition_if_nothing_is_said() -> None:
    silent = [Try(Kinds.NO_ANSWER, 0, 0.0)] * 5
    service, _ = asyncio.run(run(silent, None, 2, b"GET", key=False, budget=RepeatBudget(1.0, 9), reused=True))
    assert len(service.asked) == 2


def test_each_try_but_the_last_has_its_own_time() -> None:
    slow = [Try(None, 200, 0.8)] * 3
    said = Retries(tries=3, per_try=0.5, backoff=0.0)
    service, result = asyncio.run(run(slow, said, 3, b"GET", key=False, budget=RepeatBudget(0.2, 3)))
    assert [left for _, _, left in service.asked] == [0.5, 0.5, 3.0]
    assert isinstance(result, Reply)
    assert math.isclose(service.now, 101.8)


async def test_what_the_last_failure_tells_clients_is_passed_on_though_an_earlier_try_was_sent() -> None:
    failures = [
        CallFailed(Kinds.NO_ANSWER, Outcome.UNKNOWN),
        CallFailed(
            Kinds.BREAKER_OPEN, Outcome.NOT_SENT, "open", headers=((b"retry-after", b"7"),), members={"more": "of it"}
        ),
    ]

    async def fail(call: Call) -> Reply:
        del call
        raise failures.pop(0)

    guard = Retry("s", None, Instances[Any](), RepeatBudget(0.2, 3), lambda: 100.0, Registry())
    with pytest.raises(CallFailed) as raised:
        await guard.wrap(fail)(make_call(b"GET", key=False))
    failed = raised.value
    assert (failed.kind, failed.outcome, failed.detail) == (Kinds.BREAKER_OPEN, Outcome.UNKNOWN, "open")
    assert (failed.headers, dict(failed.members)) == (((b"retry-after", b"7"),), {"more": "of it"})


@pytest.mark.parametrize(
    ("said", "tries"),
    [
        (b"0", 2),
        (b"Wed, 21 Oct 2015 07:28:00 GMT", 2),
        (b"soon", 2),
        (b"Wed, 21 Oct 2099 07:28:00 GMT", 1),
        (b"9" * 400, 1),
        (b"Wed, 99 Oct 2015 07:28:00 GMT", 2),
    ],
)
async def test_a_retry_after_is_a_number_or_a_date_and_beyond_the_deadline_it_is_the_end(
    said: bytes, tries: int
) -> None:
    asked: list[Call] = []

    async def busy(call: Call) -> Reply:
        asked.append(call)
        return Reply(503, Headers.of([(b"retry-after", said)]), b"")

    settings = Retries(tries=2, status=[503], backoff=0.0)
    guard = Retry("s", settings, Instances[Any](), RepeatBudget(0.2, 3), lambda: 100.0, Registry())
    assert (await guard.wrap(busy)(make_call(b"GET", key=False))).status == 503
    assert len(asked) == tries
