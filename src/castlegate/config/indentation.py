"""Keys that stand beside what they belong to, or inside of what they belong beside: one mistake for all that follows.

```yaml
services:
users: {http: [...]}      # beside 'services', which is empty
```
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Union

from castlegate.config.report import Place, describe, show
from castlegate.config.shapes import Shape, fields_of, is_struct, shape_of
from castlegate.config.source import Entry, Mapping, Node, Scalar

Belongs = Callable[[Entry], bool]


def of_struct(node: Mapping, fields: dict[str, Shape], at: Place) -> list[Entry]:
    """The entries that are where they belong, of a mapping that says these fields; others are reported."""
    entries = _beside(node, at, lambda key: _inside_of(fields[key], fields) if key in fields else None)
    kept = []
    for key, position, child in entries:
        inner = fields.get(key)
        if inner is not None and inner.kind is dict and isinstance(child, Mapping):
            child = _without_neighbours(child, inner, fields, at.field(key), at)
        kept.append(Entry(key, position, child))
    return kept


def of_dict(node: Mapping, entry: Shape, at: Place) -> list[Entry]:
    """The same of a mapping with names of any kind."""
    if not is_struct(entry.kind):
        return node.entries
    known = fields_of(entry.kind)
    kept = _beside(node, at, lambda _: lambda found: found.key in known)
    if len(kept) < len(node.entries):
        at.report.spoil(at.path)  # it may seem to be empty now
    return kept


def _beside(node: Mapping, at: Place, inside: Callable[[str], Belongs | None]) -> list[Entry]:
    """Without what follows an empty entry and belongs to it. `inside`: what that is, for a key."""
    kept: list[Entry] = []
    belongs: Belongs | None = None
    told = False
    for entry in node.entries:
        if belongs is not None and belongs(entry):
            if not told:
                owner = kept.pop()
                at.report.add(
                    entry.position,
                    (*at.path, owner.key),
                    f"indent {show(entry.key)} further: it belongs to {describe((*at.path, owner.key))}",
                )
                told = True
            continue
        belongs, told = inside(entry.key) if _is_empty(entry.node) else None, False
        kept.append(entry)
    return kept


def _inside_of(shape: Shape, outer: Collection[str]) -> Belongs | None:
    """What may stand in a value of this shape, and not beside it."""
    if shape.kind is dict:
        return lambda entry: entry.key not in outer and isinstance(entry.node, Mapping)
    options = [shape_of(option) for option in shape.options] if shape.kind is Union else [shape]
    names = {name for option in options if is_struct(option.kind) for name in fields_of(option.kind)}
    return lambda entry: entry.key in names and entry.key not in outer


def _without_neighbours(child: Mapping, inner: Shape, outer: Collection[str], at: Place, around: Place) -> Mapping:
    """Without entries that are no such ones, but have the name of what stands beside the whole."""
    entry = shape_of(inner.options[0])
    if not is_struct(entry.kind):
        return child
    known = fields_of(entry.kind)
    kept = Mapping(child.position, flow=child.flow)
    for found in child.entries:
        strange = isinstance(found.node, Mapping) and not any(each.key in known for each in found.node.entries)
        if found.key in outer and strange:
            text = f"indent {show(found.key)} less: it stands beside {describe(at.path)}, not in it"
            around.report.add(found.position, (*around.path, found.key), text)
        else:
            kept.entries.append(found)
    return kept


def _is_empty(node: Node) -> bool:
    return isinstance(node, Scalar) and node.plain and not node.written
