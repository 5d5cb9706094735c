"""From YAML nodes to settings structs: walks the nodes beside the types and reports every mistake, not the first.

Where a value is wrong the field takes its default and reading goes on. What a value must fulfil beyond its type is
`validation`'s business.
"""

from __future__ import annotations

import re
from typing import Any, Literal, TypeVar, Union

import msgspec

from castlegate.config import indentation
from castlegate.config.report import Block, Place, describe, show, suggest
from castlegate.config.shapes import Shape, expected, fields_of, is_struct, shape_of
from castlegate.config.source import Mapping, Node, Scalar, Sequence, resolve

S = TypeVar("S", bound=msgspec.Struct)

_WRONG: Any = object()  # in place of a value that could not be read; the mistake is in the report
_TRUE_OR_FALSE = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_MEANT = {
    "apikey": "keys", "apikeys": "keys", "api_key": "keys", "api_keys": "keys", "jwd": "jwt",
    "sub": "subject", "scope": "scopes",
}  # fmt: skip
_REFERENCE = re.compile(r"[a-z]+(\.[^\s{}]+)?")


def read(node: Node, struct: type[S], at: Place) -> S | None:
    """The document; None where a part without which there is none is missing or wrong."""
    at.report.positions.setdefault(at.path, node.position)
    value = _struct(node, Shape(struct), at)
    return None if value is _WRONG else value


def _value(node: Node, shape: Shape, at: Place) -> Any:
    if isinstance(node, Scalar):
        if node.broken:
            at.report.spoil(at.path)
            at.report.unknown.add(at.path)
            return _WRONG
        if node.substituted:
            at.report.written[at.path] = node.written
    if shape.kind is Any:
        return _json(node, at, template=shape.template)
    if shape.nullable and isinstance(node, Scalar) and node.value is None:
        return None
    if shape.kind is Union:
        return _union(node, shape, at)
    if is_struct(shape.kind):
        return _struct(node, shape, at)
    if shape.kind is list:
        return _list(node, shape, at)
    if shape.kind is dict:
        return _dict(node, shape, at)
    return _scalar(node, shape, at)


def _struct(node: Node, shape: Shape, at: Place) -> Any:
    fields = fields_of(shape.kind)
    short = getattr(shape.kind, "short", None)
    values: dict[str, Any] = {}
    if isinstance(node, Mapping):
        shapes = {name: shape_of(field.type) for name, field in fields.items()}
        for key, position, child in indentation.of_struct(node, shapes, at):
            if key not in fields:
                _unknown_key(key, position, shape, at)
                continue
            place = at.field(key)
            _locate(place, position, child)
            values[key] = _value(child, shapes[key], place)
            if values[key] is _WRONG:
                at.report.spoil(place.path)
    elif short is not None and not (isinstance(node, Scalar) and node.value is None):
        place = at.field(short)
        place.report.positions[place.path] = node.position
        values[short] = _short(node, shape_of(fields[short].type), place)
    else:
        return _wrong(node, shape, at)
    for name, field in fields.items():
        if field.required and name not in values:
            values[name] = _WRONG
            if not at.field(name).spoilt:
                at.mistake(f"'{name}' is missing: {expected(shape_of(field.type))}")
    if any(value is _WRONG and fields[name].required for name, value in values.items()):
        return _WRONG
    return shape.kind(**{name: value for name, value in values.items() if value is not _WRONG})


def _short(node: Node, shape: Shape, at: Place) -> Any:
    """The one field that stands for the whole struct. For text a number will do: its check knows better what to say."""
    unchecked = shape.kind is str and not shape.expression
    if unchecked and isinstance(node, Scalar) and isinstance(node.value, (int, float)) and not node.broken:
        return node.text
    return _value(node, shape, at)


def _unknown_key(key: str, position: Any, shape: Shape, at: Place) -> None:
    names = list(fields_of(shape.kind))
    meant = _MEANT.get(key.lower())
    elsewhere = getattr(shape.kind, "elsewhere", {}).get(key)
    hint = f"; did you mean '{meant}'?" if meant in names else suggest(key, names, "known are")
    if elsewhere is not None:
        hint = f"; {elsewhere}"
    where = f" in {describe(at.path)}" if at.path else ""
    at.report.add(position, (*at.path, key), f"unknown key {show(key)}{where}{hint}")
    for name in names:
        if hint == f"; did you mean '{name}'?":
            at.report.spoil((*at.path, name))  # it was said, in other letters


def _locate(place: Place, key: Any, node: Node) -> None:
    """A collection is found by its key, since its own mark is that of its first member; a scalar by itself."""
    place.report.positions[place.path] = node.position if isinstance(node, Scalar) else key


def _list(node: Node, shape: Shape, at: Place) -> Any:
    if not isinstance(node, Sequence):
        return _wrong(node, shape, at)
    item = shape_of(shape.options[0])
    values = []
    for index, child in enumerate(node.items):
        place = at.field(index)
        place.report.positions[place.path] = child.position
        values.append(_value(child, item, place))
    if any(value is _WRONG for value in values):
        at.report.spoil(at.path)
    return [value for value in values if value is not _WRONG]


def _dict(node: Node, shape: Shape, at: Place) -> Any:
    if not isinstance(node, Mapping):
        return _wrong(node, shape, at)
    entry = shape_of(shape.options[0])
    values = {}
    for key, position, child in indentation.of_dict(node, entry, at):
        place = at.field(key)
        _locate(place, position, child)
        value = _value(child, entry, place)
        if value is _WRONG:
            at.report.spoil(place.path)
        else:
            values[key] = value
    return values


def _union(node: Node, shape: Shape, at: Place) -> Any:
    if isinstance(node, Scalar):
        value = resolve(node.value) if node.substituted and isinstance(node.value, str) else node.value
        for option in shape.options:
            inner = shape_of(option)
            if type(value) is inner.kind or (inner.kind is Literal and value in inner.options):
                return value
    for option in shape.options:
        inner = shape_of(option)
        if isinstance(node, Scalar) and node.value is not None and getattr(inner.kind, "short", None) is not None:
            return _value(node, inner, at)
        if (is_struct(inner.kind) and isinstance(node, Mapping)) or (inner.kind is list and isinstance(node, Sequence)):
            return _value(node, inner, at)
    return _wrong(node, shape, at)


def _scalar(node: Node, shape: Shape, at: Place) -> Any:
    if not isinstance(node, Scalar):
        return _wrong(node, shape, at)
    value = node.value
    if shape.unit is not None:
        return _with_unit(node, shape, at)
    if shape.kind is str:
        if node.substituted or isinstance(value, str):
            if shape.expression:
                _note_begin(node, at)
            return _template(node, at) if shape.template else node.text
        return _wrong(node, shape, at)
    if node.substituted and isinstance(value, str):
        value = resolve(value)  # "${PORT}" in quotes may still be a number
    if shape.kind is Literal:
        if value in shape.options:
            return value
        hint = suggest(value, shape.options) if isinstance(value, str) and not node.substituted else ""
        at.mistake(f"expected {expected(shape)}, found {_found(node)}{hint}")
        return _WRONG
    if shape.kind is bool:
        return value if isinstance(value, bool) else _wrong(node, shape, at)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _wrong(node, shape, at)
    if shape.kind is float:
        return float(value)
    return value if isinstance(value, int) else _wrong(node, shape, at)


def _template(node: Scalar, at: Place) -> str:
    """The text, in which mistakes are found by their own columns."""
    _note_begin(node, at)
    return node.template


def _note_begin(node: Scalar, at: Place) -> None:
    if node.begin is not None:
        at.report.begins[at.path] = node.begin
    elif node.indent is not None:
        at.report.blocks[at.path] = Block(node.indent, node.written)


def _with_unit(node: Scalar, shape: Shape, at: Place) -> Any:
    assert shape.unit is not None
    try:
        value = shape.unit.parse(node.text)
    except ValueError:
        return _wrong(node, shape, at)
    at.report.written[at.path] = node.written
    return int(value) if shape.kind is int else value


def _json(node: Node, at: Place, *, template: bool) -> Any:
    """Any JSON, with the positions of all that is in it."""
    if isinstance(node, Scalar):
        return _template(node, at) if template and isinstance(node.value, str) else node.value
    values: Any
    if isinstance(node, Sequence):
        values = []
        for index, child in enumerate(node.items):
            place = at.field(index)
            place.report.positions[place.path] = child.position
            values.append(_value(child, Shape(Any, template=template), place))
        return [None if value is _WRONG else value for value in values]
    values = {}
    for key, position, child in node.entries:
        place = at.field(key)
        if node.flow and isinstance(child, Scalar) and child.plain and not child.written:
            text = f'{{{key}}} is a mapping without a value; a reference must stand in quotes: "{{{key}}}"'
            at.report.add(position, place.path, f"{describe(at.path)}: {text}")
            continue
        _locate(place, position, child)
        value = _value(child, Shape(Any, template=template), place)
        values[key] = None if value is _WRONG else value
    return values


def _wrong(node: Node, shape: Shape, at: Place) -> Any:
    """Report that something else was expected here."""
    at.mistake(f"expected {expected(shape)}, found {_found(node)}{_hint(node, shape)}")
    return _WRONG


def _found(node: Node) -> str:
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    if node.substituted or (isinstance(node.value, str)):
        return show(node.written)
    if node.value is None:
        return "nothing" if not node.written else "null"
    return f"the number {node.written}" if not isinstance(node.value, bool) else str(node.written)


def _hint(node: Node, shape: Shape) -> str:
    """What to write instead, where that is clear."""
    if isinstance(node, Mapping):
        lone = node.entries[0].key if node.flow and len(node.entries) == 1 else ""
        quotes = shape.kind is str and _REFERENCE.fullmatch(lone)
        return f'; a reference must stand in quotes: "{{{lone}}}"' if quotes else ""
    meant = next((hint for kind in _structs(shape) if (hint := _meant(node, kind))), "")
    if meant:
        return f"; {meant}"
    if isinstance(node, Sequence) or node.value is None or node.substituted:
        return ""
    if is_struct(shape.kind) and len(fields_of(shape.kind)) == 1:
        return f"; write {{{next(iter(fields_of(shape.kind)))}: {node.written}}}"
    if shape.unit is not None:
        with_unit = shape.unit.meant(node.written)
        return f"; write {with_unit}" if with_unit else ""
    if shape.kind is str:
        return f'; write "{node.written}"'
    options = [shape_of(option) for option in shape.options] if shape.kind is Union else [shape]
    if any(each.kind is list and _takes_text(shape_of(each.options[0])) for each in options):
        return f"; write [{node.written}]"
    if shape.kind is bool and node.written.lower() in _TRUE_OR_FALSE:
        return f"; write {_TRUE_OR_FALSE[node.written.lower()]}"
    if shape.kind in (int, float, bool) and not node.plain and type(resolve(node.written)) is shape.kind:
        return f"; write {node.written} without quotes"
    return ""


def _structs(shape: Shape) -> list[Any]:
    """The structs that a value of this shape can be."""
    options = [shape_of(option).kind for option in shape.options] if shape.kind is Union else [shape.kind]
    return [kind for kind in options if is_struct(kind)]


def _meant(node: Scalar | Sequence, kind: Any) -> str:
    """What a struct says of another value in its place, by its `meant`."""
    says = getattr(kind, "meant", None)
    items = node.items if isinstance(node, Sequence) else [node]
    texts = [item.written for item in items if isinstance(item, Scalar) and not item.substituted]
    return says(texts) or "" if says is not None and texts and len(texts) == len(items) else ""


def _takes_text(shape: Shape) -> bool:
    return shape.kind is str or (shape.kind is Union and str in shape.options)
