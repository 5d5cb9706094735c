"""What settings must fulfil beyond being readable: types and ranges, then each struct's own `check`.

The same for documents read from a file and for those built in Python; only the latter can have a wrong type here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any, Literal, Union

import msgspec

from castlegate.config.report import Place
from castlegate.config.shapes import Checked, Shape, expected, fields_of, is_struct, shape_of

_LIMITS: tuple[tuple[str, str, Callable[[Any, Any], bool]], ...] = (
    ("gt", "more than", operator.gt),
    ("ge", "at least", operator.ge),
    ("lt", "less than", operator.lt),
    ("le", "at most", operator.le),
)
_SCALARS: dict[Any, Any] = {str: str, bool: bool, int: int, float: (int, float)}


def validate(value: msgspec.Struct, at: Place) -> None:
    """Report every mistake of `value` and of all that is in it."""
    _struct(value, at)


def _value(value: Any, shape: Shape, at: Place) -> bool:
    """Whether the types in `value` are right, so that checks may rely on them."""
    if value is None and shape.nullable:
        return True
    if shape.kind is Any:
        return True
    if not _has_type(value, shape):
        at.mistake(f"expected {expected(shape)}, found {at.shown(value)} ({type(value).__name__})")
        return False
    if shape.kind is Union:
        return _value(value, next(inner for inner in map(shape_of, shape.options) if _has_type(value, inner)), at)
    if is_struct(shape.kind):
        return _struct(value, at)
    if shape.kind is list:
        item = shape_of(shape.options[0])
        return _every(_value(each, item, at.field(index)) for index, each in enumerate(value))
    if shape.kind is dict:
        entry = shape_of(shape.options[0])
        return _every(_value(each, entry, at.field(key)) for key, each in value.items())
    _limits(value, shape, at)
    return True


def _struct(value: msgspec.Struct, at: Place) -> bool:
    sound = True
    for name, field in fields_of(type(value)).items():
        content = getattr(value, name)
        if content is not field.default and not _value(content, shape_of(field.type), at.field(name)):
            sound = False
    # What a section lacks because a variable is not set would only be complained of again; what holds between sections
    # is looked at all the same.
    if sound and isinstance(value, Checked) and (not at.path or at.known):
        value.check(at)
    return sound


def _every(sound: Iterable[bool]) -> bool:
    """Like `all`, but without stopping at the first: each reports its own mistakes."""
    return False not in list(sound)


def _has_type(value: Any, shape: Shape) -> bool:
    if shape.kind is Literal:
        return value in shape.options
    if shape.kind is Union:
        return any(_has_type(value, shape_of(option)) for option in shape.options)
    if isinstance(value, bool) and shape.kind is not bool:
        return False
    if shape.kind is dict:
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)
    return isinstance(value, _SCALARS.get(shape.kind, shape.kind))


def _limits(value: Any, shape: Shape, at: Place) -> None:
    for limits in shape.limits:
        for name, words, holds in _LIMITS:
            bound = getattr(limits, name)
            if bound is not None and not holds(value, bound):
                limit = shape.unit.write(bound) if shape.unit is not None else f"{bound:g}"
                found = value if shape.unit is None else shape.unit.write(value)
                at.mistake(f"must be {words} {limit}, found {at.shown(found)}")
