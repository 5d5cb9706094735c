"""Deadlines by the grain of time in which they are due."""

from castlegate.rules.deadlines import GRAIN, Deadlines


class Woken:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def test_an_entry_is_due_when_its_grain_has_passed_and_once() -> None:
    deadlines: Deadlines[str] = Deadlines(Woken())
    deadlines.add("a", 1.0)
    assert deadlines.due(1.0) == []
    assert deadlines.due(1.0 + 2 * GRAIN) == ["a"]
    assert deadlines.due(2.0) == []


def test_whoever_looks_is_woken_whenever_there_were_none() -> None:
    woken = Woken()
    deadlines: Deadlines[str] = Deadlines(woken)
    deadlines.add("a", 10.0)
    deadlines.add("b", 20.0)
    assert woken.times == 1
    deadlines.remove("a", 10.0)
    deadlines.remove("b", 20.0)
    deadlines.add("c", 10.0)  # in a grain that was made before
    assert woken.times == 2
    assert deadlines.due(10.1) == ["c"]
