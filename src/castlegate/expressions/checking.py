"""Types of an expression, found at load, and what it asks of a request: each such part becomes a leaf.

What an expression knows of a request is said by `Facts`. A part that names one (`principal.claims.team`,
`headers['x-tenant']`, `has(path.id)`) is a leaf with a way to fetch it; evaluation then gets the leaves alone, not the
objects that they are in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, Protocol

from castlegate.config.report import listed, suggest
from castlegate.expressions.kinds import (
    BOOL,
    DOUBLE,
    DYN,
    FUNCTIONS,
    INT,
    MACROS,
    OF_LITERALS,
    STRING,
    TYPE,
    TYPE_NAMES,
    UINT,
    Kind,
    either,
    fits,
    list_of,
    map_of,
    result_of,
    result_of_binary,
)
from castlegate.expressions.syntax import (
    Binary,
    Call,
    Choice,
    Index,
    Items,
    Literal,
    Members,
    Name,
    Node,
    Select,
    Unary,
    Unreadable,
)

Fetch = Callable[[Any, float], Any]
"""Of a request and the time in seconds since 1970: the value, or MISSING."""

_CONVERTING = ("int", "uint", "double", "bytes", "timestamp", "duration")


class Fact(NamedTuple):
    """Something that is known of a request."""

    kind: Kind
    fetch: Fetch
    steps: int
    """How many of the names behind the variable lead to it; any further ones lead into its value."""


class Unknown(Exception):
    """There is no such fact; `step` is the name at fault, None the variable itself."""

    def __init__(self, text: str, step: int | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.step = step


class Facts(Protocol):
    """What expressions of one kind know of a request."""

    @property
    def names(self) -> Collection[str]:
        """The variables."""

    def find(self, name: str, steps: Sequence[str]) -> Fact:
        """What `name.step.step` is. Raises `Unknown`."""

    def presence(self, name: str, steps: Sequence[str]) -> Fetch | None:
        """Whether there is `name.step.step`; None where that is to be seen from the value around it."""

    def absence(self, name: str) -> Fetch | None:
        """Whether a variable is null; None for those that never are."""

    def call(self, name: str, function: str, arguments: Sequence[object]) -> Fetch | None:
        """What a function of the facts' own gives of a variable and constants, true or false; None where it is none.
        Raises `Unknown` where it does not take them.
        """


class Leaf(NamedTuple):
    """A part of the text that is fetched."""

    start: int
    end: int
    fetch: Fetch


class Constant(NamedTuple):
    """A part that can be evaluated at load, to see whether it can be at all."""

    offset: int
    text: str


class Checked(NamedTuple):
    """What was found of an expression."""

    kind: Kind
    leaves: list[Leaf]
    constants: list[Constant]
    iterates: bool
    """Whether it goes through lists or maps,"""
    builds: bool
    """and makes lists of them: `map`, `filter`."""
    matches: bool
    """Whether it compares text with patterns."""


def check(node: Node, text: str, facts: Facts) -> Checked:
    """Of a whole expression. Raises `Unreadable`."""
    checker = _Checker(text, facts)
    kind = checker.kind(node)
    return Checked(kind, checker.leaves, checker.constants, checker.iterates, checker.builds, checker.matches)


class _Path(NamedTuple):
    """A variable and the names behind it, each with where it stands."""

    name: str
    steps: list[str]
    places: list[int]


class _Checker:
    def __init__(self, text: str, facts: Facts) -> None:
        self._text = text
        self._facts = facts
        self._bound: dict[str, Kind] = {}  # variables of the macro around
        self.leaves: list[Leaf] = []
        self.constants: list[Constant] = []
        self.iterates = self.builds = self.matches = False

    def kind(self, node: Node) -> Kind:
        if isinstance(node, Literal):
            return OF_LITERALS[node.kind]
        if isinstance(node, Name):
            return self._name(node)
        if isinstance(node, (Select, Index)):
            return self._inner(node)
        if isinstance(node, Call):
            return self._call(node)
        if isinstance(node, Binary):
            return self._binary(node)
        if isinstance(node, Unary):
            return self._unary(node)
        if isinstance(node, Choice):
            self._boolean(node.condition)
            return either(self.kind(node.yes), self.kind(node.no))
        if isinstance(node, Items):
            return list_of(_common([self.kind(item) for item in node.items]))
        assert isinstance(node, Members)
        for key, _ in node.members:
            self._want(key, STRING, "a key of a map")
        return map_of(_common([self.kind(value) for _, value in node.members]))

    # What is known of the request.

    def _path(self, node: Node) -> _Path | None:
        """Of a variable of the facts and the constant names behind it."""
        steps: list[str] = []
        places: list[int] = []
        while isinstance(node, (Select, Index)):
            if isinstance(node, Select):
                steps.append(node.name)
                places.append(node.at)
            elif isinstance(node.key, Literal) and isinstance(node.key.value, str) and node.key.kind == "string":
                steps.append(node.key.value)
                places.append(node.key.start)
            else:
                return None
            node = node.target
        if not isinstance(node, Name) or node.name in self._bound or node.name not in self._facts.names:
            return None
        return _Path(node.name, steps[::-1], places[::-1])

    def _fact(self, node: Node, path: _Path) -> Fact:
        try:
            return self._facts.find(path.name, path.steps)
        except Unknown as unknown:
            at = node.start if unknown.step is None else path.places[unknown.step]
            raise Unreadable(at, unknown.text) from unknown

    def _leaf(self, node: Node, fetch: Fetch) -> None:
        self.leaves.append(Leaf(node.start, node.end, fetch))

    # Names, and what is inside of values.

    def _name(self, node: Name) -> Kind:
        if node.name in self._bound:
            return self._bound[node.name]
        path = self._path(node)
        if path is not None:
            fact = self._fact(node, path)
            self._leaf(node, fact.fetch)
            return fact.kind
        if node.name in TYPE_NAMES:
            return TYPE
        known = [*self._facts.names, *self._bound]
        hint = suggest(node.name, known) or f"; there are {listed(known)}"
        raise Unreadable(node.start, f"there is no variable '{node.name}'{hint}")

    def _inner(self, node: Select | Index) -> Kind:
        path = self._path(node)
        if path is not None:
            fact = self._fact(node, path)
            if fact.steps == len(path.steps):
                self._leaf(node, fact.fetch)
                return fact.kind
        outer = self.kind(node.target)
        at = node.at if isinstance(node, Select) else node.key.start
        if outer.name == "list":
            if isinstance(node, Select) or self.kind(node.key) not in (INT, UINT, DYN):
                raise Unreadable(at, "a list is read by whole numbers, such as [0]")
        elif outer.name != "dyn" and outer.name != "map":
            raise Unreadable(at, f"there is nothing inside a value of type {outer}")
        elif isinstance(node, Index):
            key = self.kind(node.key)
            if not fits(key, STRING) and not (outer == DYN and key in (INT, UINT)):
                raise Unreadable(at, f"a map is read by text, not by {key}")
        return outer.item or DYN

    # Operators.

    def _binary(self, node: Binary) -> Kind:
        if node.sign in ("==", "!=") and self._compares_with_null(node):
            return BOOL
        if node.sign == "in" and self._names_a_member(node):
            return BOOL
        left, right = self.kind(node.left), self.kind(node.right)
        result = result_of_binary(node.sign, left, right)
        if result is None:
            hint = ""
            if node.sign in ("+", "-", "*", "/", "%") and {left, right} <= {INT, UINT, DOUBLE}:
                hint = "; say int(...), uint(...) or double(...) of one"
            raise Unreadable(node.at, f"'{node.sign}' does not go between {left} and {right}{hint}")
        return result

    def _compares_with_null(self, node: Binary) -> bool:
        """`principal == null`: a leaf of its own."""
        for one, other in ((node.left, node.right), (node.right, node.left)):
            if isinstance(one, Name) and isinstance(other, Literal) and other.kind == "null":
                path = self._path(one)
                absent = None if path is None else self._facts.absence(path.name)
                if absent is not None:
                    self._leaf(node, absent if node.sign == "==" else _negated(absent))
                    return True
        return False

    def _names_a_member(self, node: Binary) -> bool:
        """`'x-tenant' in headers`: a leaf of its own."""
        path = self._path(node.right)
        if path is None or not isinstance(node.left, Literal) or not isinstance(node.left.value, str):
            return False
        if self._is_known_otherwise(path):
            return False
        present = self._facts.presence(path.name, [*path.steps, node.left.value])
        if present is None:
            return False
        self._leaf(node, present)
        return True

    def _is_known_otherwise(self, path: _Path) -> bool:
        """Whether it is a value that may be no map, such as a claim."""
        try:
            return self._facts.find(path.name, path.steps).kind.name != "map"
        except Unknown:
            return False

    def _unary(self, node: Unary) -> Kind:
        if node.sign == "!":
            return self._boolean(node.operand)
        kind = self.kind(node.operand)
        if kind not in (INT, DOUBLE, DYN):
            raise Unreadable(node.start, f"'-' does not go before {kind}")
        return kind

    def _boolean(self, node: Node) -> Kind:
        return self._want(node, BOOL, "what is true or false")

    def _want(self, node: Node, wanted: Kind, what: str) -> Kind:
        kind = self.kind(node)
        if not fits(kind, wanted):
            raise Unreadable(node.start, f"expected {what} ({wanted}), found {kind}")
        return wanted

    # Calls.

    def _call(self, node: Call) -> Kind:
        if node.name == "has" and node.target is None:
            return self._has(node)
        if node.name in MACROS and node.target is not None:
            return self._macro(node, node.target)
        if self._is_own(node):
            return BOOL
        if node.name not in FUNCTIONS:
            known = [*FUNCTIONS, *MACROS, "has"]
            raise Unreadable(node.at, f"there is no function '{node.name}'{suggest(node.name, known)}")
        target = None if node.target is None else self.kind(node.target)
        arguments = [self.kind(argument) for argument in node.arguments]
        result = result_of(node.name, target, arguments)
        if result is None:
            of = "" if target is None else f" of {target}"
            raise Unreadable(node.at, f"'{node.name}'{of} does not take ({', '.join(map(str, arguments))})")
        self._note_constants(node)
        return result

    def _is_own(self, node: Call) -> bool:
        """A function that the facts have: a leaf of its own."""
        path = None if node.target is None else self._path(node.target)
        if path is None or path.steps:
            return False
        values = [each.value if isinstance(each, Literal) else None for each in node.arguments]
        try:
            fetch = self._facts.call(path.name, node.name, values)
        except Unknown as unknown:
            at = node.at if unknown.step is None else node.arguments[unknown.step].start
            raise Unreadable(at, unknown.text) from unknown
        if fetch is not None:
            self._leaf(node, fetch)
        return fetch is not None

    def _note_constants(self, node: Call) -> None:
        """Patterns are compiled at every evaluation: constant ones, and not once for each item of a list."""
        argument = node.arguments[0] if node.arguments else None
        constant = isinstance(argument, Literal)
        if node.name == "matches":
            assert argument is not None
            if not constant:
                raise Unreadable(argument.start, "the pattern must be a text as it stands, so that it can be checked")
            if self._bound:
                raise Unreadable(node.at, "'matches' cannot stand inside of all, exists, filter or map")
            self.matches = True
            self.constants.append(Constant(argument.start, f"''.matches({self._text[argument.start : argument.end]})"))
        elif node.name in _CONVERTING and constant:
            self.constants.append(Constant(node.start, self._text[node.start : node.end]))

    def _has(self, node: Call) -> Kind:
        if len(node.arguments) != 1 or not isinstance(node.arguments[0], Select):
            raise Unreadable(node.start, "'has' takes a field, such as has(principal.claims.team)")
        field = node.arguments[0]
        path = self._path(field)
        if path is not None:
            present = self._facts.presence(path.name, path.steps)
            if present is not None:
                self._leaf(node, present)
                return BOOL
        outer = self.kind(field.target)
        if outer.name not in ("dyn", "map"):
            raise Unreadable(field.at, f"there is nothing inside a value of type {outer}")
        return BOOL

    def _macro(self, node: Call, target: Node) -> Kind:
        allowed = (2, 3) if node.name == "map" else (2,)
        variable = node.arguments[0] if node.arguments else node
        if len(node.arguments) not in allowed or not isinstance(variable, Name):
            raise Unreadable(node.at, f"'{node.name}' takes a name and an expression: {node.name}(x, x == 'a')")
        if self._bound:
            raise Unreadable(node.at, f"'{node.name}' cannot stand inside of another one: its cost has no bound")
        if variable.name in self._facts.names or variable.name in TYPE_NAMES:
            raise Unreadable(variable.start, f"'{variable.name}' has a meaning already; take another name")
        kind = self.kind(target)
        if kind.name not in ("list", "map", "dyn"):
            raise Unreadable(node.at, f"'{node.name}' goes through lists and maps, not through {kind}")
        item = STRING if kind.name == "map" else kind.item or DYN
        self.iterates = True
        self.builds = self.builds or node.name in ("map", "filter")
        self._bound = {variable.name: item}
        *conditions, last = node.arguments[1:]
        for condition in conditions:
            self._boolean(condition)
        result = self.kind(last) if node.name == "map" else self._boolean(last)
        self._bound = {}
        if node.name == "map":
            return list_of(result)
        return list_of(item) if node.name == "filter" else BOOL


def _negated(fetch: Fetch) -> Fetch:
    return lambda subject, now: not fetch(subject, now)


def _common(kinds: list[Kind]) -> Kind:
    return kinds[0] if kinds and all(kind == kinds[0] for kind in kinds) else DYN
