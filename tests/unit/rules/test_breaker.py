"""The breaker, against a model that remembers every call."""

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from castlegate.rules.breaker import Breaker, Rule, State

RULES = st.builds(
    Rule,
    window=st.sampled_from([1.0, 10.0]),
    least=st.integers(1, 8),
    share=st.sampled_from([0.25, 0.5, 1.0]),
    pause=st.sampled_from([1.0, 5.0]),
    longest_pause=st.sampled_from([5.0, 15.0]),
    trials=st.integers(1, 4),
)


class BreakerMachine(RuleBasedStateMachine):
    """Calls begin, end well or badly or say nothing, and time passes."""

    @initialize(of=RULES)
    def begin(self, of: Rule) -> None:
        self.rule = of
        self.breaker = Breaker(of)
        self.now = 100.0
        self.under_way: list[tuple[int, str]] = []  # number, the model's state when it was admitted
        # The model.
        self.state = "closed"
        self.era = 0
        self.seen: list[tuple[float, bool]] = []  # since it closed
        self.opened_at = 0.0
        self.pause = of.pause
        self.trials = 0
        self.well = 0
        self.eras: list[int] = []

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.3, 1.0, 4.0, 20.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def call(self) -> None:
        if self.state == "open" and self.now >= self.opened_at + self.pause:
            self.state, self.trials, self.well = "half open", 0, 0
            self.era += 1
        expected = self.state == "closed" or (self.state == "half open" and self.trials + self.well < self.rule.trials)
        number = self.breaker.admit(self.now)
        assert (number is not None) == expected
        if number is not None:
            self.trials += self.state == "half open"
            self.under_way.append((number, self.state))
            self.eras.append(self.era)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), end=st.sampled_from(["well", "badly", "nothing"]))
    def end(self, data: st.DataObject, end: str) -> None:
        at = data.draw(st.integers(0, len(self.under_way) - 1))
        number, _ = self.under_way.pop(at)
        era = self.eras.pop(at)
        if end == "nothing":
            self.breaker.release(number)
        else:
            self.breaker.record(number, self.now, failed=end == "badly")
        if era != self.era:
            return
        if self.state == "half open":
            self.trials -= 1
            if end == "badly":
                self.pause = min(self.rule.longest_pause, self.pause * 2)
                self.trip()
            elif end == "well":
                self.well += 1
                if self.well == self.rule.trials:
                    self.state, self.seen, self.pause = "closed", [], self.rule.pause
                    self.era += 1
        elif end != "nothing":
            self.seen.append((self.now, end == "badly"))
            step = self.rule.window / 10
            oldest = int(self.now / step) - 9
            window = [failed for time, failed in self.seen if int(time / step) >= oldest]
            if end == "badly" and len(window) >= self.rule.least and sum(window) >= self.rule.share * len(window):
                self.trip()

    def trip(self) -> None:
        self.state, self.opened_at = "open", self.now
        self.era += 1

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "breaker"):
            assert self.breaker.state.value == self.state
            if self.breaker.state is State.OPEN:
                assert self.breaker.open_until == self.opened_at + min(self.pause, self._bound())

    def _bound(self) -> float:
        return max(self.rule.pause, self.rule.longest_pause)


BreakerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestBreaker = BreakerMachine.TestCase
