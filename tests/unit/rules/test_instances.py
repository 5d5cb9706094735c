"""Who may be chosen of the instances of a service."""

import math

from hypothesis import given
from hypothesis import strategies as st

from castlegate.rules.instances import BREAKER, Instance, Instances


def names(instances: list[Instance]) -> str:
    return "".join(each.name for each in instances)


def some(text: str, **settings: float) -> Instances[Instance]:
    return Instances([Instance(name) for name in text], **settings)


def get(instances: Instances[Instance], name: str) -> Instance:
    found = instances.named(name)
    assert found is not None
    return found


def test_all_may_be_chosen_while_nobody_says_otherwise() -> None:
    assert names(some("abc").available) == "abc"


def test_one_that_is_out_is_not_chosen_until_all_who_took_it_out_put_it_back() -> None:
    instances = some("ab")
    a = get(instances, "a")
    instances.take_out(a, "check", "no answer", 1.0)
    instances.take_out(a, "ejection", "five errors", 2.0)
    instances.put_back(a, "check", 3.0)
    assert names(instances.available) == "b"
    instances.put_back(a, "ejection", 4.0)
    assert names(instances.available) == "ab"


def test_why_and_since_when_one_is_out_is_kept() -> None:
    instances = some("ab")
    a = get(instances, "a")
    instances.take_out(a, "check", "no answer", 1.0)
    instances.take_out(a, "check", "503", 2.0)
    assert a.outs["check"] == ("503", 1.0)


def test_all_are_chosen_when_none_is_well_rather_than_none() -> None:
    instances = some("ab")
    for each in instances.members:
        instances.take_out(each, "check", "no answer", 1.0)
    assert names(instances.available) == "ab"
    assert instances.panicking


def test_below_the_least_share_nobody_looks_at_who_is_well() -> None:
    instances = some("abcd", least=0.5)
    for name in "abc":
        instances.take_out(get(instances, name), "check", "no answer", 1.0)
        assert instances.panicking == (name == "c")
    assert names(instances.available) == "abcd"


def test_one_whose_breaker_is_open_is_not_chosen_however_few_are_well() -> None:
    instances = some("abc", least=0.5)
    a, b, c = instances.members
    instances.take_out(a, BREAKER, "five failures", 1.0)
    instances.take_out(b, "check", "no answer", 1.0)
    instances.take_out(c, "ejection", "five errors", 1.0)
    assert names(instances.available) == "bc"
    assert instances.panicking
    assert instances.untried({b, c}) == []
    for each in (b, c):
        instances.take_out(each, BREAKER, "five failures", 2.0)
    assert instances.available == []
    instances.put_back(a, BREAKER, 3.0)
    assert names(instances.available) == "a"


def test_a_drained_one_is_not_chosen_even_when_no_other_is_left() -> None:
    instances = some("a")
    instances.drain(instances.members[0], 1.0)
    assert instances.available == []
    instances.resume(instances.members[0], 2.0)
    assert names(instances.available) == "a"


def test_the_next_priority_serves_while_none_of_the_one_before_is_well() -> None:
    first, second, third = Instance("a"), Instance("b", priority=1), Instance("c", priority=7)
    instances = Instances([third, second, first])
    assert names(instances.available) == "a"
    instances.take_out(first, "check", "no answer", 1.0)
    assert names(instances.available) == "b"
    instances.drain(second, 1.0)
    assert names(instances.available) == "c"
    instances.put_back(first, "check", 2.0)
    assert names(instances.available) == "a"


def test_where_all_were_tried_the_next_priority_is_asked() -> None:
    first, second = Instance("a"), Instance("b", priority=1)
    instances = Instances([first, second])
    assert names(instances.untried([first])) == "b"
    assert instances.untried([first, second]) == []


def test_one_that_comes_gets_its_share_little_by_little() -> None:
    instances = some("ab", slow_start=10.0)
    c = Instance("c", weight=4)
    instances.add(c, 100.0)
    assert (c.share, instances.even) == (0.1, False)
    shares = []
    for now in (101.0, 105.0, 109.0):
        instances.advance(now)
        shares.append(c.pull / 4)
    assert shares == [0.1, 0.5, 0.9]
    instances.advance(110.0)
    assert (c.pull, c.started, instances.next_step) == (4.0, None, math.inf)


def test_who_watches_is_told_of_every_change() -> None:
    instances = some("ab")
    seen = []
    instances.watch(lambda: seen.append(names(instances.available)))
    instances.take_out(get(instances, "a"), "check", "", 0.0)
    instances.take_out(get(instances, "a"), "check", "", 0.0)
    instances.add(Instance("c"), 0.0)
    instances.remove(get(instances, "b"))
    assert seen == ["b", "bc", "c"]


_NAMES = st.sampled_from("abcdef")
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("out"), _NAMES, st.sampled_from(["check", "ejection", BREAKER])),
        st.tuples(st.just("back"), _NAMES, st.sampled_from(["check", "ejection", BREAKER])),
        st.tuples(st.sampled_from(["drain", "resume", "add", "remove"]), _NAMES, st.just("")),
    ),
    max_size=40,
)


@given(_STEPS, st.sampled_from([0.0, 0.5, 1.0]))
def test_the_list_is_what_the_marks_say_whatever_came_before(steps: list[tuple[str, str, str]], least: float) -> None:
    instances = some("abc", least=least)
    for what, name, by in steps:
        instance = instances.named(name)
        if what == "add" and instance is None:
            instances.add(Instance(name, priority=ord(name) % 2), 0.0)
        elif instance is None:
            continue
        elif what == "out":
            instances.take_out(instance, by, "", 0.0)
        elif what == "back":
            instances.put_back(instance, by, 0.0)
        elif what == "drain":
            instances.drain(instance, 0.0)
        elif what == "resume":
            instances.resume(instance, 0.0)
        elif what == "remove":
            instances.remove(instance)
    usable = [each for each in instances.members if each.drained_since is None and BREAKER not in each.outs]
    assert all(each in usable for each in instances.available)
    assert bool(instances.available) == bool(usable)
    assert [each for each in instances.members if each.available] == instances.available
    assert len({each.priority for each in instances.available}) <= 1
    if not instances.panicking:
        assert all(each.well for each in instances.available)
