"""Who is asked next: what every balancer keeps to, and what each is for."""

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kafka.calls import make_request

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.headers import Headers
from castlegate.message import Call
from castlegate.rules.balancing import Balancer, LeastRequest, PeakEwma, RoundRobin
from castlegate.rules.instances import Instance, Instances
from castlegate.rules.ring import ConsistentHash

Some = Instances[Instance]


def by_key(instances: Some) -> ConsistentHash[Instance]:
    return ConsistentHash(instances, lambda call: call.key or b"", RoundRobin(instances))


BALANCERS: list[Callable[[Some], Balancer[Instance]]] = [RoundRobin, LeastRequest, PeakEwma, by_key]
every_balancer = pytest.mark.parametrize("make", BALANCERS)


def some(*weights: int) -> Some:
    return Instances([Instance(f"10.0.0.{number}:80", weight) for number, weight in enumerate(weights)])


def call(key: bytes = b"") -> Call:
    return Call(make_request(), b"GET", b"/", Headers(), b"", key, 1.0, idempotent=True)


def shares(balancer: Balancer[Instance], calls: int, now: float = 0.0) -> list[float]:
    """Of each instance in so many calls of which none is in flight when the next begins, in the order of names."""
    asked = Counter(balancer.choose(call(b"%d" % number), now).name for number in range(calls))
    return [count / calls for _, count in sorted(asked.items())]


# All of them.


_CHANGES = st.lists(
    st.tuples(st.sampled_from(["out", "back", "drain", "remove", "add"]), st.integers(0, 9)), max_size=20
)


@every_balancer
@given(changes=_CHANGES, keys=st.lists(st.integers(0, 99), min_size=1, max_size=10), data=st.data())
@settings(max_examples=50)
def test_only_those_that_may_be_chosen_are_and_none_twice_for_a_call_while_there_is_another(
    make: Callable[[Some], Balancer[Instance]], changes: list[tuple[str, int]], keys: list[int], data: st.DataObject
) -> None:
    instances = some(1, 1, 3)
    balancer = make(instances)
    for what, number in changes:
        name = f"10.0.0.{number}:80"
        instance = instances.named(name)
        if instance is None:
            if what == "add":
                instances.add(Instance(name, 1 + number, number % 2), 0.0)
        elif what == "out":
            instances.take_out(instance, "check", "", 0.0)
        elif what == "back":
            instances.put_back(instance, "check", 0.0)
        elif what == "drain":
            instances.drain(instance, 0.0)
        elif what == "remove":
            instances.remove(instance)
    for key in keys:
        asked = call(b"%d" % key)
        if not instances.available:
            with pytest.raises(CallFailed) as failed:
                balancer.choose(asked, 0.0)
            assert (failed.value.kind, failed.value.outcome) == (Kinds.NO_INSTANCE, Outcome.NOT_SENT)
            continue
        first = balancer.choose(asked, 0.0)
        assert first in instances.available
        first.in_flight += data.draw(st.integers(0, 3))
        while left := instances.untried(asked.tried):
            chosen = balancer.choose(asked, 0.0)
            assert chosen in left
            asked.failed_on(chosen)
        assert balancer.choose(asked, 0.0) in instances.available


@every_balancer
@given(count=st.integers(2, 4), tries=st.integers(1, 12), key=st.integers(0, 99))
@settings(max_examples=30)
def test_a_call_that_failed_on_all_goes_to_each_in_turn(
    make: Callable[[Some], Balancer[Instance]], count: int, tries: int, key: int
) -> None:
    balancer = make(some(*range(1, count + 1)))
    asked = call(b"%d" % key)
    order = []
    for _ in range(tries):
        order.append(balancer.choose(asked, 0.0))
        asked.failed_on(order[-1])
    assert order == [order[number % count] for number in range(tries)]
    assert len(set(order)) == min(count, tries)


@pytest.mark.parametrize("make", [RoundRobin, LeastRequest, PeakEwma])
def test_a_heavier_instance_gets_as_much_more(make: Callable[[Some], Balancer[Instance]]) -> None:
    random.seed(7)
    assert shares(make(some(1, 3, 6)), 20_000) == pytest.approx([0.1, 0.3, 0.6], abs=0.015)


@pytest.mark.parametrize("make", [RoundRobin, LeastRequest, PeakEwma])
def test_one_in_its_slow_start_gets_the_share_that_is_due(make: Callable[[Some], Balancer[Instance]]) -> None:
    random.seed(7)
    instances = Instances([Instance("a"), Instance("b")], slow_start=10.0)
    balancer = make(instances)
    instances.add(Instance("c"), 100.0)
    assert shares(balancer, 10_000, 100.0)[2] == pytest.approx(0.1 / 2.1, abs=0.01)
    assert shares(balancer, 10_000, 105.0)[2] == pytest.approx(0.5 / 2.5, abs=0.02)
    assert shares(balancer, 10_000, 110.0)[2] == pytest.approx(1 / 3, abs=0.02)


# Round robin.


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8))
def test_in_turns_each_is_at_any_time_near_what_it_is_due(weights: list[int]) -> None:
    balancer = RoundRobin(some(*weights))
    asked: Counter[str] = Counter()
    for done in range(1, 2 * sum(weights) + 1):
        asked[balancer.choose(call(), 0.0).name] += 1
        for number, weight in enumerate(weights):
            assert abs(asked[f"10.0.0.{number}:80"] - done * weight / sum(weights)) <= 1 + len(weights) / 2


# By load.


def test_of_two_the_one_with_fewer_calls_in_flight_is_asked() -> None:
    instances = some(1, 1)
    busy, idle = instances.members
    busy.in_flight = 1
    assert {LeastRequest(instances).choose(call(), 0.0) for _ in range(50)} == {idle}


def test_calls_in_flight_are_weighed_by_what_the_instance_can_do() -> None:
    instances = some(1, 4)
    light, heavy = instances.members
    light.in_flight, heavy.in_flight = 1, 3
    random.seed(7)
    asked = Counter(LeastRequest(instances).choose(call(), 0.0) for _ in range(1000))
    assert asked[heavy] > 900


def test_a_slow_instance_is_left_alone_after_its_first_slow_answer() -> None:
    instances = some(1, 1)
    slow, quick = instances.members
    balancer = PeakEwma(instances)
    for each in (slow, quick):
        balancer.learn(each, 0.005, 0.0)
    balancer.learn(slow, 0.5, 1.0)
    assert {balancer.choose(call(), 1.0) for _ in range(50)} == {quick}


def test_a_slow_instance_is_asked_again_when_its_past_has_faded() -> None:
    instances = some(1, 1)
    slow, quick = instances.members
    balancer = PeakEwma(instances)
    balancer.learn(slow, 0.5, 0.0)
    balancer.learn(quick, 0.005, 100.0)
    assert balancer.choose(call(), 100.0) is slow


def test_one_that_never_answered_gets_one_call_to_show_itself() -> None:
    instances = some(1, 1)
    known, unknown = instances.members
    balancer = PeakEwma(instances)
    balancer.learn(known, 0.005, 0.0)
    assert balancer.choose(call(), 0.0) is unknown
    unknown.in_flight = 1
    assert balancer.choose(call(), 0.0) is known


# By key.

_KEYS = [b"key-%d" % number for number in range(400)]


def owners(balancer: Balancer[Instance]) -> dict[bytes, Instance]:
    return {key: balancer.choose(call(key), 0.0) for key in _KEYS}


def test_a_key_has_the_same_instance_whatever_the_order_in_which_they_came() -> None:
    names = [f"10.0.0.{number}:80" for number in range(9)]
    one, other = Instances([Instance(name) for name in names[:1]]), Instances([Instance(name) for name in names])
    balancers = by_key(one), by_key(other)
    for name in reversed(names[1:]):
        one.add(Instance(name), 0.0)
    assert {k: i.name for k, i in owners(balancers[0]).items()} == {k: i.name for k, i in owners(balancers[1]).items()}


@given(st.integers(2, 20), st.data())
@settings(max_examples=20)
def test_only_the_keys_of_one_that_is_out_move_and_move_back(count: int, data: st.DataObject) -> None:
    instances = some(*[1] * count)
    balancer = by_key(instances)
    before = owners(balancer)
    gone = data.draw(st.sampled_from(instances.members))
    instances.take_out(gone, "check", "", 0.0)
    without = owners(balancer)
    assert {key for key in _KEYS if without[key] is not before[key]} == {key for key in _KEYS if before[key] is gone}
    instances.put_back(gone, "check", 0.0)
    assert owners(balancer) == before


@given(st.integers(1, 20))
@settings(max_examples=20)
def test_one_that_comes_takes_keys_and_moves_no_others_and_the_same_when_it_goes(count: int) -> None:
    instances = some(*[1] * count)
    balancer = by_key(instances)
    before = owners(balancer)
    came = Instance("10.0.1.1:80")
    instances.add(came, 0.0)
    after = owners(balancer)
    assert all(after[key] is before[key] for key in _KEYS if after[key] is not came)
    instances.remove(came)
    assert owners(balancer) == before


def test_keys_are_spread_by_weight() -> None:
    balancer = by_key(some(1, 1, 2))
    assert shares(balancer, 20_000) == pytest.approx([0.25, 0.25, 0.5], abs=0.06)


def test_keys_of_a_priority_that_is_gone_are_spread_over_the_next() -> None:
    first, *others = Instance("a"), Instance("b", priority=1), Instance("c", priority=1)
    instances = Instances([first, *others])
    balancer = by_key(instances)
    assert set(owners(balancer).values()) == {first}
    instances.take_out(first, "check", "", 0.0)
    assert set(owners(balancer).values()) == set(others)


def test_a_call_without_a_key_goes_to_whoever_the_other_balancer_says() -> None:
    balancer = by_key(some(1, 1))
    assert balancer.choose(call(), 0.0) is not balancer.choose(call(), 0.0)
