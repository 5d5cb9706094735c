"""Which parts of a composition wait for which: a pure function of the inputs that each part names.

A part begins as soon as all that it names is there. Waves are how this is drawn: a part stands in the one behind the
last of its inputs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping


class Cycle(Exception):
    """Parts that wait for each other: each of `names` needs the next, the last one the first."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(" → ".join([*names, names[0]]))
        self.names = names


def waves(inputs: Mapping[str, Collection[str]]) -> list[list[str]]:
    """The parts in the least number of waves, each in the order of `inputs`. Raises `Cycle`."""
    number: dict[str, int] = {}
    for name in inputs:
        _place(name, inputs, number)
    found: list[list[str]] = [[] for _ in range(max(number.values(), default=-1) + 1)]
    for name in inputs:
        found[number[name]].append(name)
    return found


def longest(inputs: Mapping[str, Collection[str]], cost: Mapping[str, float]) -> dict[str, float]:
    """Of each part, what all that must be done one after the other up to its end costs at most."""
    total: dict[str, float] = {}
    for wave in waves(inputs):
        for name in wave:
            total[name] = cost[name] + max((total[each] for each in inputs[name]), default=0.0)
    return total


def _place(name: str, inputs: Mapping[str, Collection[str]], number: dict[str, int]) -> None:
    """Number the part and all that it waits for; without recursion, since chains may be as long as they like."""
    path: list[str] = []  # each needs the next
    waiting = [name]
    while waiting:
        current = waiting[-1]
        if current in number:
            waiting.pop()
            continue
        if current in inputs[current]:
            raise Cycle([current])
        if path and path[-1] == current:  # all that it needs is placed
            number[current] = max((number[each] + 1 for each in inputs[current]), default=0)
            path.pop()
            waiting.pop()
            continue
        if current in path:
            raise Cycle(path[path.index(current) :])
        path.append(current)
        waiting += [each for each in inputs[current] if each not in number]
