"""What the types of a document's fields mean: how they are taken apart, and how they are named to people.

The one place that knows the typing constructs which settings may use: text, numbers, true or false, `Literal`, lists,
dicts by name, structs, unions of them, any JSON (`Any`), and `Annotated` with a unit, a range or a template's mark.

A settings struct may have `short: ClassVar[str]`, the name of the field that a value in its place stands for,
`check(self, at)`, which reports what its types cannot say, `meant(texts)`, what to write where such texts stand in its
place, and `elsewhere`, what is said of keys that people look for in it.
"""

from __future__ import annotations

import types
from functools import cache
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin, runtime_checkable

import msgspec

from castlegate.config.report import Place, listed
from castlegate.config.units import Expression, Template, Unit


class Shape(msgspec.Struct, frozen=True):
    """A type without its wrapping."""

    kind: Any  # str, int, float, bool, Literal, list, dict, Any, Union, or a struct class
    options: tuple[Any, ...] = ()  # literals, item type, entry type, members of a union
    nullable: bool = False
    unit: Unit | None = None
    template: bool = False
    expression: bool = False
    limits: tuple[msgspec.Meta, ...] = ()


@runtime_checkable
class Checked(Protocol):
    """A struct that checks more than its types say."""

    def check(self, at: Place) -> None:
        """Report what is wrong; `at` is where the struct stands."""


@cache
def fields_of(struct: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """The fields of a settings struct by name."""
    return {field.name: field for field in msgspec.structs.fields(struct)}


@cache
def shape_of(annotation: Any) -> Shape:
    """Take a field's type apart."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _annotated(annotation)
    if origin in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        nullable = len(members) < len(get_args(annotation))
        if len(members) == 1:
            return msgspec.structs.replace(shape_of(members[0]), nullable=nullable)
        return Shape(Union, tuple(members), nullable)
    if origin is Literal:
        return Shape(Literal, get_args(annotation))
    if origin is list:
        return Shape(list, get_args(annotation))
    if origin is dict:
        return Shape(dict, get_args(annotation)[1:])
    return Shape(annotation)


def _annotated(annotation: Any) -> Shape:
    inner, *notes = get_args(annotation)
    shape = shape_of(inner)
    unit = next((note for note in notes if isinstance(note, Unit)), shape.unit)
    limits = tuple(note for note in notes if isinstance(note, msgspec.Meta))
    template = shape.template or any(isinstance(note, Template) for note in notes)
    expression = shape.expression or any(isinstance(note, Expression) for note in notes)
    return msgspec.structs.replace(
        shape, unit=unit, limits=shape.limits + limits, template=template, expression=expression
    )


def is_struct(kind: Any) -> bool:
    """Whether a shape's kind is a settings struct."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def expected(shape: Shape) -> str:
    """What a value of this shape looks like, to be read after "expected"."""
    if shape.unit is not None:
        return f"a {shape.unit.name} with its unit, such as {shape.unit.example}"
    if shape.kind is Literal:
        return listed([f"'{option}'" for option in shape.options], "or")
    if shape.kind is Union:
        return listed([expected(shape_of(option)) for option in shape.options], "or")
    if is_struct(shape.kind):
        quoted = [f"'{name}'" for name in fields_of(shape.kind)]
        names = f"a mapping with {listed(quoted)}"
        short = getattr(shape.kind, "short", None)
        return f"{expected(shape_of(fields_of(shape.kind)[short].type))}, or {names}" if short else names
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
    return words.get(shape.kind, "a mapping")
