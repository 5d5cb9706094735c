"""The graph and a run of it: any acyclic graph, any order in which services answer, any failure."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.config.requests import request

from castlegate.body import Budget
from castlegate.composition.answering import failure
from castlegate.composition.compiling import compile_parts
from castlegate.composition.graph import Cycle, longest, waves
from castlegate.composition.parts import PartCall
from castlegate.composition.plans import PartPlan
from castlegate.composition.running import Run
from castlegate.composition.settings import PartSettings
from castlegate.config.references import request_scope
from castlegate.config.report import Report
from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.headers import Headers
from castlegate.message import Call, Reply
from castlegate.policies.facts import RequestFacts
from castlegate.rules.deadlines import GRAIN
from castlegate.telemetry.metrics import Registry
from castlegate.waiting import Waiter

Graph = dict[str, list[str]]


@st.composite
def graphs(draw: st.DrawFn, *, acyclic: bool = True) -> Graph:
    """Parts in any order, each with the parts that it needs."""
    names = [f"p{number}" for number in range(draw(st.integers(1, 8)))]
    found = {}
    for index, name in enumerate(names):
        others = names[:index] if acyclic else names
        found[name] = draw(st.lists(st.sampled_from(others), unique=True)) if others else []
    order = draw(st.permutations(names))
    return {name: found[name] for name in order}


@given(graphs())
def test_waves_are_the_fewest_in_which_nothing_comes_before_what_it_needs(graph: Graph) -> None:
    found = waves(graph)
    number = {name: index for index, wave in enumerate(found) for name in wave}
    assert sorted(number) == sorted(graph)
    for name, inputs in graph.items():
        assert number[name] == max((number[each] + 1 for each in inputs), default=0)


@given(graphs(acyclic=False))
def test_a_circle_is_named_and_only_where_there_is_one(graph: Graph) -> None:
    names = _circle(graph)
    assert bool(names) == _has_circle(graph)
    following = [*names[1:], *names[:1]]
    assert all(needed in graph[name] for name, needed in zip(names, following, strict=True))


def _circle(graph: Graph) -> list[str]:
    try:
        waves(graph)
    except Cycle as cycle:
        return cycle.names
    return []


def _has_circle(graph: Graph) -> bool:
    left = dict(graph)
    while ready := [name for name, inputs in left.items() if not set(inputs) & left.keys()]:
        for name in ready:
            del left[name]
    return bool(left)


@given(graphs())
def test_the_longest_way_costs_what_its_parts_cost(graph: Graph) -> None:
    found = longest(graph, dict.fromkeys(graph, 1.0))
    assert max(found.values()) == len(waves(graph))


class Services:
    """Callers whose calls the test settles."""

    def __init__(self) -> None:
        self.open: dict[str, Waiter[Reply]] = {}
        self.begun: list[str] = []
        self.cancelled: set[str] = set()

    def caller(self, name: str) -> Any:
        async def call(call: Call) -> Reply:
            self.begun.append(name)
            call.sent = True
            waiter = self.open[name] = Waiter[Reply]()
            try:
                return await waiter
            except asyncio.CancelledError:
                self.cancelled.add(name)
                raise
            finally:
                del self.open[name]

        return call


class FakeTimer:
    """A clock that the test moves on, and who is to be told of it."""

    def __init__(self) -> None:
        self.time = 1.0
        self.entries: set[tuple[Any, float]] = set()

    def now(self) -> float:
        return self.time

    def add(self, entry: Any, deadline: float) -> None:
        self.entries.add((entry, deadline))

    def remove(self, entry: Any, deadline: float) -> None:
        self.entries.discard((entry, deadline))

    def expire(self, until: float) -> None:
        self.time = until
        for entry, deadline in sorted(self.entries, key=lambda each: each[1]):
            if deadline <= until:
                self.entries.discard((entry, deadline))
                entry.expire()


def start(
    graph: Graph, services: Services, optional: set[str] | None = None, timeouts: dict[str, float] | None = None
) -> Run:
    parts = {
        name: PartSettings(
            call=name,
            send=[f"{{{each}?}}" for each in inputs],
            optional=name in (optional or ()),
            timeout=(timeouts or {}).get(name),
        )
        for name, inputs in graph.items()
    }
    report = Report()

    def bind(settings: Any, said: float | None, otherwise: float, scope: Any, at: Any) -> PartCall:
        return PartCall(
            PartPlan(settings, said or otherwise, scope, at, over_http=False), services.caller(settings.call)
        )

    compiled = compile_parts(
        parts, request_scope(), report.place(), RequestFacts, bind,
        timeout=9.0, counts=Registry().counter("c", "", "r", "p", "o"), route="r", fields={},
    )  # fmt: skip
    assert not report
    timer: Any = FakeTimer()
    asked = request()
    asked.deadline = 10.0
    run = Run(compiled, asked, timer, Budget(1000))
    run.begin()
    return run


def timer_of(run: Run) -> FakeTimer:
    timer: Any = run.timer
    return timer


def answer(value: bytes = b"1") -> Reply:
    return Reply(200, Headers([b"content-type: application/json\r\n"]), value)


@given(graphs(), st.data())
def test_each_part_is_asked_once_and_as_soon_as_all_that_it_needs_is_there(graph: Graph, data: st.DataObject) -> None:
    services = Services()
    run = start(graph, services)
    answered: set[str] = set()
    while services.open:
        assert set(services.open) == {n for n in graph if n not in answered and set(graph[n]) <= answered}
        name = data.draw(st.sampled_from(sorted(services.open)))
        answered.add(name)
        services.open[name].settle(answer())
    assert sorted(services.begun) == sorted(graph)
    assert run.over
    assert run.waiter.done()
    assert not timer_of(run).entries
    assert [state.outcome for state in run.states] == ["ok"] * len(graph)


@given(graphs(), st.data())
def test_a_failure_cancels_all_that_is_under_way_and_begins_nothing_more(graph: Graph, data: st.DataObject) -> None:
    services = Services()
    run = start(graph, services)
    for _ in range(data.draw(st.integers(0, len(graph) - 1))):
        services.open[data.draw(st.sampled_from(sorted(services.open)))].settle(answer())
    under_way, begun = set(services.open), list(services.begun)
    failing = data.draw(st.sampled_from(sorted(under_way)))
    outcome = data.draw(st.sampled_from(Outcome))
    services.open[failing].fail(CallFailed(Kinds.TIMEOUT, outcome))
    assert run.over
    assert run.waiter.done()
    assert not services.open
    assert not timer_of(run).entries
    assert services.cancelled == under_way - {failing}
    assert services.begun == begun
    told = {state.part.name: state.outcome for state in run.states}
    assert told[failing] == "timeout"
    assert {name for name, word in told.items() if word == "cancelled"} == under_way - {failing}
    expected = Outcome.UNKNOWN if len(under_way) > 1 else max(
        outcome, Outcome.ANSWERED if len(begun) > 1 else Outcome.NOT_SENT, key=list(_weights()).index
    )  # fmt: skip
    assert run.outcome is expected


def _weights() -> Iterator[Outcome]:
    yield from (Outcome.NOT_SENT, Outcome.ANSWERED, Outcome.UNKNOWN)


@given(graphs(), st.data())
def test_whoever_leaves_leaves_nothing_running(graph: Graph, data: st.DataObject) -> None:
    services = Services()
    run = start(graph, services)
    for _ in range(data.draw(st.integers(0, len(graph) - 1))):
        services.open[data.draw(st.sampled_from(sorted(services.open)))].settle(answer())
    begun = list(services.begun)
    run.stop()
    assert not services.open
    assert services.begun == begun


@given(graphs(), st.data())
def test_optional_failures_fail_nothing_else(graph: Graph, data: st.DataObject) -> None:
    services = Services()
    failing = data.draw(st.sets(st.sampled_from(sorted(graph))))
    run = start(graph, services, optional=failing)
    while services.open:
        name = data.draw(st.sampled_from(sorted(services.open)))
        if name in failing:
            services.open[name].fail(CallFailed(Kinds.CONNECT, Outcome.NOT_SENT))
        else:
            services.open[name].settle(answer())
    assert run.error is None
    assert {s.part.name: s.outcome for s in run.states} == {n: "error" if n in failing else "ok" for n in graph}


def test_what_is_not_foreseen_ends_the_run_with_that_error() -> None:
    services = Services()
    run = start({"a": [], "b": []}, services)
    services.open["a"].fail(ZeroDivisionError("by zero"))
    assert isinstance(run.error, ZeroDivisionError)
    assert services.cancelled == {"b"}
    with pytest.raises(KeyError):
        services.open["b"]


def test_who_does_not_heed_a_part_s_time_is_given_up() -> None:
    services = Services()
    run = start({"slow": [], "other": []}, services, optional={"slow"}, timeouts={"slow": 2.0})
    timer_of(run).expire(3.0 + GRAIN)
    assert services.cancelled == {"slow"}
    assert run.states[0].outcome == "timeout"
    assert not run.over
    services.open["other"].settle(answer())
    assert run.over
    assert not timer_of(run).entries


def test_who_does_not_heed_the_route_s_time_is_given_up() -> None:
    services = Services()
    run = start({"a": [], "b": [], "c": ["a"]}, services, optional={"a", "b", "c"})
    timer_of(run).expire(10.0 + GRAIN)
    assert services.cancelled == {"a", "b"}
    assert run.over
    assert {state.outcome for state in run.states[:2]} == {"timeout"}
    assert run.outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(("told", "passed", "status"), [(404, [404], 404), (404, [], 502), (503, [], 503)])
def test_a_status_that_a_service_names_over_kafka_is_passed_on_too(told: int, passed: list[int], status: int) -> None:
    services = Services()
    run = start({"a": []}, services)
    run.states[0].part.pass_status = frozenset(passed)
    services.open["a"].fail(CallFailed(Kinds.SERVICE_ERROR, Outcome.ANSWERED, "no order 7", status=told))
    assert isinstance(run.error, CallFailed)
    found = failure(run, run.error)
    assert (found.status, found.outcome) == (status, Outcome.ANSWERED)
    assert found.detail == "The part 'a' failed: no order 7"
