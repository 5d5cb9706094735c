"""What the settings structs say of themselves: the docstring of each, and the one below each of its fields.

The reference and the editor's schema are made of these, so that they cannot say anything else than the code does.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache

import msgspec

from castlegate.config.shapes import fields_of


@cache
def docs_of(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Field → the docstring below it, as one line. Raises `LookupError` for a field without."""
    docs: dict[str, str] = {}
    for source in getattr(struct, "joined", None) or _inherited(struct):
        [body] = ast.parse(textwrap.dedent(inspect.getsource(source))).body
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                docs[field.target.id] = " ".join(str(ast.literal_eval(below.value)).split())
    missing = fields_of(struct).keys() - docs.keys()
    if missing:
        raise LookupError(f"{struct.__name__}: no docstring below {', '.join(sorted(missing))}")
    return docs


def _inherited(struct: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """It and what it inherits from, which comes first."""
    bases = reversed(struct.__mro__)
    return [each for each in bases if issubclass(each, msgspec.Struct) and each is not msgspec.Struct]


def doc_of(struct: type[msgspec.Struct]) -> str:
    """The docstring of the struct itself."""
    return inspect.cleandoc(struct.__doc__ or "")
