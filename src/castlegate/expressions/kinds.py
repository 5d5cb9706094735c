"""The types of CEL values, and what functions and operators take and give: those that the evaluating library has.

`dyn` is what is only known when a request comes, such as a claim; it fits everywhere, and what does not fit then
fails the expression.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Kind(NamedTuple):
    """A type; lists and maps know that of their items."""

    name: str
    item: Kind | None = None

    def __str__(self) -> str:
        return self.name if self.item is None else f"{self.name}({self.item})"


BOOL, INT, UINT, DOUBLE = Kind("bool"), Kind("int"), Kind("uint"), Kind("double")
STRING, BYTES, NULL, TYPE, DYN = Kind("string"), Kind("bytes"), Kind("null"), Kind("type"), Kind("dyn")
TIMESTAMP, DURATION = Kind("timestamp"), Kind("duration")

OF_LITERALS = {kind.name: kind for kind in (BOOL, INT, UINT, DOUBLE, STRING, BYTES, NULL)}
TYPE_NAMES = frozenset(("bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"))

_NUMBERS = frozenset((INT, UINT, DOUBLE))
_ORDERED = _NUMBERS | {STRING, BYTES, BOOL, TIMESTAMP, DURATION}
_ANY_LIST, _ANY_MAP = Kind("list", DYN), Kind("map", DYN)


def list_of(item: Kind) -> Kind:
    """The type of a list."""
    return Kind("list", item)


def map_of(value: Kind) -> Kind:
    """The type of a map by text."""
    return Kind("map", value)


def fits(found: Kind, wanted: Kind) -> bool:
    """Whether a value of one type may be one of the other."""
    if DYN in (found, wanted):
        return True
    if found.name != wanted.name:
        return False
    return found.item is None or wanted.item is None or fits(found.item, wanted.item)


def either(one: Kind, other: Kind) -> Kind:
    """The type of a value that is one or the other."""
    return one if one == other else DYN


class Signature(NamedTuple):
    """One way to call a function."""

    target: Kind | None
    arguments: tuple[Kind, ...]
    result: Kind


def _conversions(result: Kind, *sources: Kind) -> list[Signature]:
    return [Signature(None, (source,), result) for source in sources]


_SIZED = (STRING, BYTES, _ANY_LIST, _ANY_MAP)
_OF_TIME = (
    "getFullYear", "getMonth", "getDayOfYear", "getDayOfMonth", "getDate", "getDayOfWeek", "getHours", "getMinutes",
    "getSeconds", "getMilliseconds",
)  # fmt: skip
_OF_DURATION = ("getHours", "getMinutes", "getSeconds", "getMilliseconds")

FUNCTIONS: dict[str, list[Signature]] = {
    "size": [*_conversions(INT, *_SIZED), *[Signature(sized, (), INT) for sized in _SIZED]],
    "int": _conversions(INT, INT, UINT, DOUBLE, STRING),
    "uint": _conversions(UINT, INT, UINT, DOUBLE, STRING),
    "double": _conversions(DOUBLE, INT, UINT, DOUBLE, STRING),
    "string": _conversions(STRING, STRING, INT, UINT, DOUBLE, BYTES, TIMESTAMP, DURATION),
    "bytes": _conversions(BYTES, STRING),
    "timestamp": _conversions(TIMESTAMP, STRING),
    "duration": _conversions(DURATION, STRING),
    "type": _conversions(TYPE, DYN),
    "dyn": _conversions(DYN, DYN),
    **{name: [Signature(STRING, (STRING,), BOOL)] for name in ("contains", "startsWith", "endsWith", "matches")},
    **{name: [Signature(TIMESTAMP, (), INT)] for name in _OF_TIME},
}
for _name in _OF_DURATION:
    FUNCTIONS[_name].append(Signature(DURATION, (), INT))

MACROS = frozenset(("all", "exists", "exists_one", "filter", "map"))


def result_of(name: str, target: Kind | None, arguments: Sequence[Kind]) -> Kind | None:
    """What a call gives; None where the function does not take these."""
    results = [
        signature.result
        for signature in FUNCTIONS[name]
        if (signature.target is None) == (target is None)
        and (signature.target is None or target is None or fits(target, signature.target))
        and len(signature.arguments) == len(arguments)
        and all(map(fits, arguments, signature.arguments))
    ]
    return None if not results else results[0] if len(set(results)) == 1 else DYN


def result_of_binary(sign: str, left: Kind, right: Kind) -> Kind | None:
    """What an operator gives; None where it does not take these."""
    if sign in ("&&", "||"):
        return BOOL if fits(left, BOOL) and fits(right, BOOL) else None
    if sign in ("==", "!="):
        comparable = fits(left, right) or NULL in (left, right) or {left, right} <= _NUMBERS
        return BOOL if comparable else None
    if sign in ("<", "<=", ">", ">="):
        alike = left == right or DYN in (left, right) or {left, right} <= _NUMBERS
        return BOOL if alike and {left, right} <= _ORDERED | {DYN} else None
    if sign == "in":
        return _result_of_in(left, right)
    return _result_of_arithmetic(sign, left, right)


def _result_of_in(left: Kind, right: Kind) -> Kind | None:
    if right == DYN:
        return BOOL
    if right.name not in ("list", "map"):
        return None
    of = right.item if right.name == "list" else STRING
    return BOOL if of is None or fits(left, of) or {left, of} <= _NUMBERS else None


def _result_of_arithmetic(sign: str, left: Kind, right: Kind) -> Kind | None:
    if DYN in (left, right):
        known = right if left == DYN else left
        fine = known == DYN or known in _NUMBERS or (sign in "+-" and known in (TIMESTAMP, DURATION))
        return DYN if fine or (sign == "+" and known.name in ("string", "bytes", "list")) else None
    if sign in "+-" and {left, right} <= {TIMESTAMP, DURATION}:
        return _result_of_time(sign, left, right)
    if left == right and left in _NUMBERS:
        return None if sign == "%" and left == DOUBLE else left
    if sign == "+" and left.name == right.name and left.name in ("string", "bytes", "list"):
        return left if left == right else _ANY_LIST
    return None


def _result_of_time(sign: str, left: Kind, right: Kind) -> Kind | None:
    if sign == "+":
        return None if left == right == TIMESTAMP else TIMESTAMP if TIMESTAMP in (left, right) else DURATION
    if right == DURATION:
        return left
    return DURATION if left == TIMESTAMP else None
