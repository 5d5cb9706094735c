"""One settings struct made of several.

A class may inherit from at most one msgspec struct that has fields, while a route is a call, an event and what
`defaults` may say at once. Type checkers are told that it inherits from all of them, which is what it amounts to; only
`isinstance` knows better.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType
from typing import Any

import msgspec

from castlegate.config.report import Place
from castlegate.config.shapes import Checked


def join(
    name: str, *structs: type[msgspec.Struct], module: str, doc: str, elsewhere: Mapping[str, str] | None = None
) -> Any:
    """A frozen struct class with the fields, methods and checks of `structs`, which its `joined` remembers. For
    `elsewhere` see `shapes`.
    """
    fields: list[tuple[str, Any, Any]] = []
    namespace: dict[str, Any] = {}
    for struct in structs:
        for field in msgspec.structs.fields(struct):
            default: Any = field.default
            if field.default_factory is not msgspec.NODEFAULT:
                default = msgspec.field(default_factory=field.default_factory)
            fields.append((field.name, field.type, default))
        members = vars(struct).items()
        namespace |= {name: member for name, member in members if isinstance(member, (FunctionType, property))}

    def check(self: Any, at: Place) -> None:
        for struct in structs:
            if issubclass(struct, Checked):
                struct.check(self, at)

    namespace |= {"__doc__": doc, "check": check, "joined": structs, "elsewhere": elsewhere or {}}
    return msgspec.defstruct(
        name, fields, namespace=namespace, module=module, kw_only=True, frozen=True, forbid_unknown_fields=True
    )
