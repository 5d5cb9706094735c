"""The JSON Schema (2020-12) of configuration files, for editors: completion, descriptions, and most mistakes at once.

Made of the same structs as everything else. It must take whatever `castlegate check` takes, so where a value may come
from the environment or depends on its neighbours it is lenient: the last word is the check's. Only where an editor's
YAML takes for a number what is text to us, such as 010 or 0x1F, must the text stand in quotes for it.
"""

from __future__ import annotations

import re
from typing import Any, Literal, Union

import msgspec

from castlegate.config.docstrings import doc_of, docs_of
from castlegate.config.shapes import Shape, fields_of, is_struct, shape_of
from castlegate.config.units import Unit
from castlegate.document import Document

Schema = dict[str, Any]

_SUBSTITUTED: Schema = {"type": "string", "pattern": r"\$\{"}
_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def schema() -> Schema:
    """The whole of it."""
    definitions: dict[str, Schema] = {}
    root = _object(Document, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "castlegate",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def to_text() -> str:
    """As a file."""
    return msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode() + "\n"


def _object(struct: type[msgspec.Struct], definitions: dict[str, Schema]) -> Schema:
    docs = docs_of(struct)
    properties = {}
    for name, field in fields_of(struct).items():
        properties[name] = {"description": docs[name], **_schema(shape_of(field.type), definitions), **_default(field)}
    found: Schema = {
        "description": doc_of(struct),
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
    required = [name for name, field in fields_of(struct).items() if field.required]
    return {**found, "required": required} if required else found


def _schema(shape: Shape, definitions: dict[str, Schema]) -> Schema:
    choices = _choices(shape, definitions)
    if not choices:
        return {}
    if shape.nullable:
        choices.append({"type": "null"})
    return choices[0] if len(choices) == 1 else {"anyOf": choices}


def _choices(shape: Shape, definitions: dict[str, Schema]) -> list[Schema]:
    """What may stand there; nothing for anything at all."""
    if shape.kind is Any:
        return []
    if shape.unit is not None:
        return [{"type": "string", "pattern": _pattern(shape.unit)}, _SUBSTITUTED]
    if shape.kind is Literal:
        return [{"enum": list(shape.options)}, _SUBSTITUTED]
    if shape.kind is Union:
        return [choice for option in shape.options for choice in _choices(shape_of(option), definitions)]
    if shape.kind is list:
        return [{"type": "array", "items": _schema(shape_of(shape.options[0]), definitions)}]
    if shape.kind is dict:
        entries = _schema(shape_of(shape.options[0]), definitions)
        return [{"type": "object", "additionalProperties": entries or True}]
    if is_struct(shape.kind):
        return _section(shape.kind, definitions)
    scalar: Schema = {"type": _TYPES[shape.kind], **_range(shape)}
    return [scalar] if shape.kind is str else [scalar, _SUBSTITUTED]


def _section(struct: type[msgspec.Struct], definitions: dict[str, Schema]) -> list[Schema]:
    """A reference to the struct, and what may stand for one field of it."""
    name = struct.__name__
    if name in definitions:
        assert definitions[name].get("description", doc_of(struct)) == doc_of(struct), f"two structs are called {name}"
    else:
        definitions[name] = {}  # a struct that holds itself finds it there
        definitions[name] = _object(struct, definitions)
    short = getattr(struct, "short", None)
    lone = [] if short is None else _choices(shape_of(fields_of(struct)[short].type), definitions)
    return [*lone, {"$ref": f"#/$defs/{name}"}]


def _pattern(unit: Unit) -> str:
    names = "|".join(re.escape(name) for name in unit.factors)
    return rf"^\s*[0-9]+(\.[0-9]+)?\s*({names})\s*$"


def _range(shape: Shape) -> Schema:
    return {
        word: getattr(limits, name)
        for limits in shape.limits
        for name, word in _BOUNDS.items()
        if getattr(limits, name) is not None
    }


def _default(field: msgspec.structs.FieldInfo) -> Schema:
    """As it would be written."""
    default = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    if default in (None, msgspec.NODEFAULT, msgspec.UNSET, {}, []) or isinstance(default, msgspec.Struct):
        return {}
    unit = shape_of(field.type).unit
    return {"default": default if unit is None else unit.write(default)}
