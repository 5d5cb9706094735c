"""`when`: conditions over what policies know of a request and, by their names, what other parts answered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from castlegate.config.references import MISSING, dig
from castlegate.expressions.checking import Fact, Facts, Fetch
from castlegate.expressions.kinds import DYN
from castlegate.expressions.program import Condition, compile_condition

if TYPE_CHECKING:
    from castlegate.composition.running import Run


class PartFacts:
    """What a condition knows of a run."""

    def __init__(self, request: Facts, parts: Collection[str]) -> None:
        self.names = (*request.names, *parts)
        self.used: set[str] = set()
        """The parts that it asks for."""
        self._request = request
        self._parts = frozenset(parts)

    def find(self, name: str, steps: Sequence[str]) -> Fact:
        """See `Facts`."""
        if name not in self._parts:
            kind, fetch, taken = self._request.find(name, steps)
            return Fact(kind, _of_request(fetch), taken)
        return Fact(DYN, self._of_part(name, steps), len(steps))

    def presence(self, name: str, steps: Sequence[str]) -> Fetch | None:
        """See `Facts`."""
        if name not in self._parts:
            return _or_none(self._request.presence(name, steps))
        fetch = self._of_part(name, steps)
        return lambda run, now: fetch(run, now) is not MISSING

    def absence(self, name: str) -> Fetch | None:
        """See `Facts`; a part without an answer is null."""
        if name not in self._parts:
            return _or_none(self._request.absence(name))
        fetch = self._of_part(name, ())
        return lambda run, now: fetch(run, now) in (MISSING, None)

    def call(self, name: str, function: str, arguments: Sequence[object]) -> Fetch | None:
        """See `Facts`."""
        return None if name in self._parts else _or_none(self._request.call(name, function, arguments))

    def _of_part(self, name: str, steps: Sequence[str]) -> Fetch:
        self.used.add(name)
        path = list(steps)

        def fetch(run: Run, _now: float) -> Any:
            return dig(run.values.get(name, MISSING), path)

        return fetch


def _of_request(fetch: Fetch) -> Fetch:
    return lambda run, now: fetch(run.request, now)


def _or_none(fetch: Fetch | None) -> Fetch | None:
    return None if fetch is None else _of_request(fetch)


def compile_when(text: str, request: Facts, parts: Collection[str]) -> tuple[Condition, set[str]]:
    """The condition, and the parts that it asks for. Raises `Unreadable`."""
    facts = PartFacts(request, parts)
    return compile_condition(text, facts), facts.used
