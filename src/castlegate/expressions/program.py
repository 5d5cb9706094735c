"""Conditions in CEL: read, checked and compiled at load; evaluated with what they ask of a request, and nothing else.

Evaluation is bounded: an expression has at most `LONGEST` characters, goes through lists only one at a time, compiles
patterns only outside of that, and where it goes through any, what it is given holds at most `MOST_VALUES` values;
`MOST_BUILT` where it makes a list of them, which the library copies for each. Text that is compared with patterns,
which takes time by the product of both, has at most `LONGEST_MATCHED` characters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from castlegate.config.references import MISSING
from castlegate.expressions.checking import Checked, Facts, Fetch, check
from castlegate.expressions.kinds import BOOL, fits
from castlegate.expressions.syntax import Node, Unreadable, conjuncts, parse

LONGEST = 4096  # characters
MOST_VALUES = 1000
MOST_BUILT = 100
LONGEST_MATCHED = 4096


class Undecided(Exception):
    """The expression gave neither true nor false; says why, to operators only."""


class Condition:
    """An expression that is true or false."""

    __slots__ = ("_execute", "_facts", "_leaves", "_matches", "_most", "_node", "text")

    def __init__(self, text: str, node: Node, checked: Checked, facts: Facts) -> None:
        self.text = text
        self._node = node
        self._facts = facts
        self._most = MOST_BUILT if checked.builds else MOST_VALUES if checked.iterates else None
        self._matches = checked.matches
        source, self._leaves = _with_names(text, checked)
        self._execute = _compile(source)

    def holds(self, subject: Any, now: float) -> bool:
        """Whether it is true of a request at a time. Raises `Undecided`."""
        values: dict[str, Any] = {}
        try:
            for name, fetch in self._leaves:
                value = fetch(subject, now)
                if value is not MISSING:  # else evaluation fails where it meets the name, unless it need not
                    values[name] = value
        except RecursionError as error:
            raise Undecided("a value is nested too deeply") from error
        if self._most is not None and not _is_small(values, self._most):
            raise Undecided(f"it would go through more than {self._most} values")
        if self._matches and not _is_short(values):
            raise Undecided(f"a text is longer than {LONGEST_MATCHED} characters, too long for patterns")
        try:
            found = self._execute(values)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of the library is no `Exception`
            raise Undecided(self._reason(subject, now)) from error
        if found is True:
            return True
        if found is False:
            return False
        raise Undecided("it gave neither true nor false")

    def parts(self) -> list[Condition]:
        """What must all be true for it to be."""
        texts = [self.text[node.start : node.end] for node in conjuncts(self._node)]
        return [self] if len(texts) == 1 else [compile_condition(text, self._facts) for text in texts]

    def _reason(self, subject: Any, now: float) -> str:
        missing = [fetch for _, fetch in self._leaves if fetch(subject, now) is MISSING]
        return "something that it asks for is missing" if missing else "it cannot be computed from these values"


def compile_condition(text: str, facts: Facts) -> Condition:
    """The condition that a text is. Raises `Unreadable`."""
    if len(text) > LONGEST:
        raise Unreadable(0, f"expected at most {LONGEST} characters, found {len(text)}")
    node = parse(text)
    checked = check(node, text, facts)
    if not fits(checked.kind, BOOL):
        raise Unreadable(0, f"expected what is true or false, found {checked.kind}")
    for constant in checked.constants:
        try:
            _compile(constant.text)({})
        except Exception as error:
            reason = str(error).strip().splitlines()[-1].removeprefix("error: ").partition(". Check")[0]
            raise Unreadable(constant.offset, f"this cannot be computed: {reason}") from error
    try:
        return Condition(text, node, checked, facts)
    except ValueError as error:  # what the library does not read: nothing that is known
        raise Unreadable(0, "this is not understood") from error


def _with_names(text: str, checked: Checked) -> tuple[str, list[tuple[str, Fetch]]]:
    """The text with a name of its own in place of each leaf; a leaf that repeats has one name."""
    names: dict[str, str] = {}
    leaves: list[tuple[str, Fetch]] = []
    pieces, end = [], 0
    for leaf in sorted(checked.leaves, key=lambda leaf: leaf.start):
        written = text[leaf.start : leaf.end]
        if written not in names:
            names[written] = f"_{len(names)}"
            leaves.append((names[written], leaf.fetch))
        pieces += [text[end : leaf.start], f" {names[written]} "]
        end = leaf.end
    return "".join([*pieces, text[end:]]), leaves


def _compile(source: str) -> Callable[[dict[str, Any]], Any]:
    import cel  # takes a fifth of a second, and few configurations have expressions

    return cel.compile(source).execute


def _is_short(values: dict[str, Any]) -> bool:
    waiting: list[Any] = list(values.values())
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and len(value) > LONGEST_MATCHED:
            return False
        if isinstance(value, (dict, list)):
            waiting.extend(value.values() if isinstance(value, dict) else value)
    return True


def _is_small(values: dict[str, Any], most: int) -> bool:
    left = most
    waiting: list[Any] = list(values.values())
    while waiting:
        value = waiting.pop()
        left -= 1
        if left < 0 or (isinstance(value, (dict, list)) and len(value) > left):
            return False
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return True
