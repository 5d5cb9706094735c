"""Who is taken out, against a model that remembers every call; the clock is the test's."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from castlegate.rules.ejection import Ejected, Ejection, Outliers, SuccessRate


def of(*names: str, **said: object) -> Outliers[str]:
    outliers = Outliers[str](Ejection(**said))  # type: ignore[arg-type]
    for name in names:
        outliers.add(name)
    return outliers


def fail(outliers: Outliers[str], name: str, times: int, now: float = 0.0, *, connect: bool = False) -> Ejected | None:
    found = None
    for _ in range(times):
        found = outliers.fail(name, now, usable(outliers), connect=connect)
    return found


def usable(outliers: Outliers[str]) -> Callable[[], int]:
    return lambda: len(outliers._records) - len(outliers.ejected())


def test_the_fifth_failure_in_a_row_takes_it_out_for_30_s() -> None:
    outliers = of("a", "b", "c", "d")
    assert fail(outliers, "a", 4) is None
    assert fail(outliers, "a", 1, now=2.0) == Ejected(32.0, "5 failures in a row")


def test_a_success_in_between_begins_the_row_anew() -> None:
    outliers = of("a", "b")
    fail(outliers, "a", 4)
    outliers.succeed("a")
    assert fail(outliers, "a", 4) is None


def test_connects_count_apart() -> None:
    outliers = of("a", "b", errors=5, connects=2)
    assert fail(outliers, "a", 1, connect=True) is None
    assert fail(outliers, "a", 1) is None
    assert fail(outliers, "a", 1, connect=True) is None
    found = fail(outliers, "a", 1, connect=True)
    assert found is not None
    assert found.why == "not reached 2 times in a row"


def test_the_second_time_is_twice_as_long_and_the_longest_is_never_exceeded() -> None:
    outliers, now, took = of("a", "b", longest=100), 0.0, []
    for _ in range(5):
        found = fail(outliers, "a", 5, now)
        assert found is not None
        took.append(found.until - now)
        now = found.until
        assert outliers.due(now) == ["a"]
    assert took == [30, 60, 90, 100, 100]


def test_whole_intervals_in_make_the_next_time_shorter() -> None:
    outliers = of("a", "b")
    for _ in range(2):
        found = fail(outliers, "a", 5)
        outliers.release("a")
    assert found == Ejected(60, "5 failures in a row")
    for _ in range(2):  # the first interval was not a whole one
        assert not list(outliers.sweep(0, usable(outliers)))
    assert fail(outliers, "a", 5) == found
    outliers.release("a")
    for _ in range(10):
        assert not list(outliers.sweep(0, usable(outliers)))
    assert fail(outliers, "a", 5) == Ejected(30, "5 failures in a row")


def test_the_last_one_is_left_however_badly_it_does() -> None:
    outliers = of("a", "b", share=1.0)
    assert fail(outliers, "a", 5) is not None
    assert fail(outliers, "b", 100) is None
    assert fail(of("a"), "a", 100) is None


def test_one_that_others_have_taken_out_is_no_place_for_those_that_fail() -> None:
    assert of("a", "b").fail("a", 0.0, lambda: 1, connect=False) is None  # b is known to be ill
    outliers = of("a", "b", errors=1)
    assert outliers.fail("a", 0.0, lambda: 1, connect=False) is None


def test_it_is_judged_again_when_there_is_room() -> None:
    outliers = of("a", "b", "c", share=0.34)
    assert fail(outliers, "a", 5) is not None
    assert fail(outliers, "b", 7) is None
    outliers.release("a")
    assert fail(outliers, "b", 1) is not None


def test_who_does_much_worse_than_the_others_is_taken_out_after_the_interval() -> None:
    names = [*"abcdefghij"]
    outliers = of(*names, errors=1000)
    for name in names:
        for number in range(100):
            if name == "c" and number % 2:
                fail(outliers, name, 1)
            else:
                outliers.succeed(name)
    assert list(outliers.sweep(10.0, usable(outliers))) == [
        ("c", Ejected(40.0, "50% of its calls succeeded, 95% of all"))
    ]
    assert not list(outliers.sweep(20.0, usable(outliers))), "each interval begins from zero"


def test_too_few_calls_or_instances_are_not_compared() -> None:
    for instances, calls in ((4, 100), (10, 99)):
        names = [*"abcdefghij"][:instances]
        outliers = of(*names, errors=1000)
        for name in names:
            for _ in range(calls):
                if name == "a":
                    fail(outliers, name, 1)
                else:
                    outliers.succeed(name)
        assert not list(outliers.sweep(10.0, usable(outliers)))


def test_one_that_is_gone_is_forgotten() -> None:
    outliers = of("a", "b")
    fail(outliers, "a", 5)
    outliers.remove("a")
    assert outliers.ejected() == {}
    assert outliers.next_due is None
    assert outliers.fail("a", 0.0, lambda: 1, connect=False) is None


@pytest.mark.parametrize(("connect", "back"), [(True, True), (False, False)])
def test_one_that_is_reached_again_is_in_unless_it_failed_otherwise(connect: bool, back: bool) -> None:
    outliers = of("a", "b")
    fail(outliers, "a", 5, now=10.0, connect=connect)
    assert not outliers.reached("a", 9.0), "what was before says nothing"
    assert outliers.reached("a", 11.0) == back
    assert not outliers.reached("b", 11.0)
    assert bool(outliers.ejected()) != back


class AgainstAModel(RuleBasedStateMachine):
    """The model keeps lists of what happened and works everything out anew."""

    @initialize(
        errors=st.integers(1, 4),
        connects=st.integers(1, 4),
        share=st.sampled_from([0.1, 0.34, 0.5, 1.0]),
        hosts=st.integers(1, 4),
        requests=st.integers(1, 4),
    )
    def begin(self, errors: int, connects: int, share: float, hosts: int, requests: int) -> None:
        rate = SuccessRate(instances=hosts, requests=requests, deviations=1.0)
        self.settings = Ejection(
            errors=errors, connects=connects, share=share, success_rate=rate, time=10, longest=35, interval=5
        )
        self.outliers = Outliers[int](self.settings)
        self.now = 1.0
        self.row: dict[int, list[str]] = {}  # since it was taken in, or a success
        self.interval: dict[int, list[bool]] = {}
        self.out: dict[int, float] = {}
        self.times: dict[int, int] = {}
        self.whole: dict[int, bool] = {}
        self.ill: set[int] = set()  # out for another reason

    def usable(self) -> int:
        return sum(name not in self.out and name not in self.ill for name in self.row)

    def eject(self, name: int) -> float | None:
        room = max(1, math.floor(len(self.row) * self.settings.share))
        if name in self.out or len(self.out) >= room or self.usable() <= 1:
            return None
        self.times[name] = min(self.times[name] + 1, 4)  # 10, 20, 30, 35
        self.out[name] = self.now + min(10 * self.times[name], 35)
        self.whole[name] = False
        return self.out[name]

    def take_in(self, name: int) -> None:
        del self.out[name]
        self.row[name] = []
        self.whole[name] = False

    @rule(name=st.integers(0, 5))
    def add(self, name: int) -> None:
        if name not in self.row:
            self.outliers.add(name)
            self.row[name], self.interval[name], self.times[name], self.whole[name] = [], [], 0, False

    @precondition(lambda self: self.row)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.row)))
        self.outliers.remove(name)
        for kept in (self.row, self.interval, self.times, self.whole, self.out):
            kept.pop(name, None)
        self.ill.discard(name)

    @precondition(lambda self: self.row)
    @rule(data=st.data(), ill=st.booleans())
    def otherwise_out(self, data: st.DataObject, ill: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.row)))
        (self.ill.add if ill else self.ill.discard)(name)

    @precondition(lambda self: self.row)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.row)))
        self.outliers.succeed(name)
        self.row[name] = []
        self.interval[name].append(True)

    @precondition(lambda self: self.row)
    @rule(data=st.data(), connect=st.booleans(), times=st.integers(1, 4))
    def fail(self, data: st.DataObject, connect: bool, times: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.row)))
        for _ in range(times):
            usable = self.usable()
            self.row[name].append("connect" if connect else "error")
            self.interval[name].append(False)
            connects = 0
            while connects < len(self.row[name]) and self.row[name][-1 - connects] == "connect":
                connects += 1
            wanted = None
            if len(self.row[name]) >= self.settings.errors or connects >= self.settings.connects:
                wanted = self.eject(name)
            found = self.outliers.fail(name, self.now, lambda usable=usable: usable, connect=connect)
            assert (None if found is None else found.until) == wanted

    @rule()
    def sweep(self) -> None:
        others_out = len(self.ill - self.out.keys())
        compared = {
            name: sum(seen) / len(seen)
            for name, seen in self.interval.items()
            if name not in self.out and len(seen) >= self.settings.success_rate.requests
        }
        for name in self.row:
            self.interval[name] = []
            if name not in self.out:
                if self.whole[name]:
                    self.times[name] = max(0, self.times[name] - 1)
                self.whole[name] = True
        wanted = {}
        if len(compared) >= self.settings.success_rate.instances:
            mean = math.fsum(compared.values()) / len(compared)
            spread = math.sqrt(math.fsum((rate - mean) ** 2 for rate in compared.values()) / len(compared))
            for name in sorted(compared, key=lambda name: compared[name]):
                if compared[name] < mean - spread and (until := self.eject(name)) is not None:
                    wanted[name] = until
        found = self.outliers.sweep(self.now, lambda: len(self.row) - len(self.outliers.ejected()) - others_out)
        assert {name: out.until for name, out in found} == wanted

    @rule(seconds=st.sampled_from([0.5, 5.0, 10.0, 35.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        wanted = {name for name, until in self.out.items() if until <= self.now}
        assert set(self.outliers.due(self.now)) == wanted
        for name in wanted:
            self.take_in(name)

    @precondition(lambda self: self.row)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.row)))
        assert self.outliers.release(name) == (name in self.out)
        if name in self.out:
            self.take_in(name)

    @invariant()
    def the_same_are_out(self) -> None:
        if hasattr(self, "outliers"):
            assert {name: each.until for name, each in self.outliers.ejected().items()} == self.out
            assert self.outliers.next_due == min(self.out.values(), default=None)

    def teardown(self) -> None:
        if hasattr(self, "outliers"):
            self.outliers.due(self.now + self.settings.longest)
            assert not self.outliers.ejected(), "however it came, everybody comes back"


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


@given(st.integers(1, 50), st.floats(0.01, 1.0), st.integers(1, 400))
def test_never_more_than_the_share_and_never_all(count: int, share: float, failures: int) -> None:
    outliers = of(*map(str, range(count)), errors=1, share=share)
    for number in range(failures):
        fail(outliers, str(number % count), 1)
    assert len(outliers.ejected()) == min(max(1, int(count * share)), count - 1, failures)


def test_a_longest_time_below_the_first_is_a_mistake() -> None:
    from castlegate.config.report import Report

    report = Report()
    Ejection(time=30, longest=10).check(report.place())
    with pytest.raises(Exception, match="at least 'time'"):
        report.raise_if_any()
