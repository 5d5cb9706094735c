"""The parts of a composition as they are at run time: everything that could be resolved at load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from castlegate.composition.contents import Digest
from castlegate.composition.plans import PartPlan
from castlegate.composition.reshaping import Shape
from castlegate.config.references import Reference
from castlegate.config.templates import JsonTemplate
from castlegate.expressions.program import Condition
from castlegate.message import Caller, Reply
from castlegate.telemetry.metrics import Counter, Family

OK, FALLBACK, TIMEOUT, ERROR, SKIPPED, CANCELLED = "ok", "fallback", "timeout", "error", "skipped", "cancelled"
_MOST_DIGESTS = 256

OUTCOMES = (OK, FALLBACK, TIMEOUT, ERROR, SKIPPED, CANCELLED)


class PartCall(NamedTuple):
    """A call that a part can make."""

    plan: PartPlan
    caller: Caller


class Batching(NamedTuple):
    """How the answer of one call is told apart by elements."""

    by: str | None
    within: list[str]


class EachPlan(NamedTuple):
    """The elements of a part."""

    of: Reference
    most: int
    concurrency: int
    size: int
    join: str | None
    batch: Batching | None


class Tally(dict[str, Counter]):
    """Counters of a part by outcome, made when they are first needed: a family holds so many only."""

    def __init__(self, family: Family[Counter], route: str, part: str) -> None:
        super().__init__()
        self._of = family, route, part

    def __missing__(self, outcome: str) -> Counter:
        family, route, part = self._of
        counter = self[outcome] = family.child(route, part, outcome)
        return counter


class Part:
    """One part."""

    __slots__ = (
        "as_it_is", "asked", "counters", "digests", "each", "fallback", "fallback_asked", "followers", "hidden",
        "index", "inputs", "limit", "merge", "name", "only_calls", "optional", "pass_status", "passed", "referenced",
        "shapes", "timeout", "value", "when", "words",
    )  # fmt: skip

    def __init__(self, name: str, index: int) -> None:
        self.name = name
        self.index = index
        self.inputs: list[int] = []  # the parts that it waits for
        self.followers: list[Part] = []  # those that wait for it
        self.referenced = False
        self.asked: PartCall | None = None  # None: it is a value
        self.value: JsonTemplate | None = None
        self.each: EachPlan | None = None
        self.when: Condition | None = None
        self.timeout = 0.0  # seconds
        self.optional = False
        self.fallback: JsonTemplate | None = None
        self.fallback_asked: PartCall | None = None
        self.shapes: Sequence[Shape] = ()
        self.merge = False
        self.hidden = False
        self.limit = 0  # bytes
        self.pass_status: frozenset[int] = frozenset()
        self.passed: tuple[bytes, ...] = ()  # beginnings of lines
        self.counters: Mapping[str, Counter] = {}  # by outcome
        self.digests: dict[bytes, Digest] = {}  # by the fields of answers, which repeat on each connection
        self.only_calls = False  # it is neither conditional nor for elements
        self.as_it_is = False  # its answer is not looked into
        self.words = {outcome: f"{name};outcome={outcome};ms=".encode() for outcome in OUTCOMES}  # of the report

    def compiled(self) -> None:
        """All of the above is set."""
        self.only_calls = self.asked is not None and self.when is None and self.each is None
        self.as_it_is = not (self.referenced or self.shapes or self.merge)

    def digest_of(self, reply: Reply) -> Digest:
        """What the fields of an answer to it say."""
        wire = reply.headers.wire
        digest = self.digests.get(wire)
        if digest is None:
            if len(self.digests) >= _MOST_DIGESTS:
                self.digests.clear()
            digest = self.digests[wire] = Digest(reply.headers, self.passed)
        return digest
