"""The graph and a run of it: any acyclic graph, any order in which services answer, any failure."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.config.requests import request

from castlegate.body import Budget
from castlegate.composition.compiling import compile_parts
from castlegate.composition.graph import Cycle, longest, waves
from castlegate.composition.parts import Asked
from castlegate.composition.plans import PartPlan
from castlegate.composition.running import Run
from castlegate.composition.settings import PartSettings
from castlegate.config.references import request_scope
from castlegate.config.report import Report
from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.headers import Headers
from castlegate.message import Call, Reply
from castlegate.policies.facts import RequestFacts
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
    def now(self) -> float:
        return 1.0

    add = remove = lambda *_: None


def start(graph: Graph, services: Services, optional: set[str] | None = None) -> Run:
    parts = {
        name: PartSettings(call=name, send=[f"{{{each}?}}" for each in inputs], optional=name in (optional or ()))
        for name, inputs in graph.items()
    }
    report = Report()

    def bind(settings: Any, said: float | None, otherwise: float, scope: Any, at: Any) -> Asked:
        return Asked(PartPlan(settings, said or otherwise, scope, at, over_http=False), services.caller(settings.call))

    compiled = compile_parts(
        parts, request_scope(), report.place(), RequestFacts, bind,
        timeout=9.0, counts=Registry().counter("c", "", "r", "p", "o"), route="r", fields={},
    )  # fmt: skip
    assert not report
    timer: Any = FakeTimer()
    run = Run(compiled, request(), timer, Budget(1000))
    run.begin()
    return run


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
