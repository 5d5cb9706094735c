"""How configurations name functions: `python:package.module:function` where a service could stand too."""

from __future__ import annotations

import re
from typing import NamedTuple

PREFIX = "python:"

_REFERENCE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


class Reference(NamedTuple):
    """A function of a module."""

    module: str
    function: str

    def __str__(self) -> str:
        return f"{self.module}:{self.function}"


def is_function(call: str | None) -> bool:
    """Whether what is called is a function, and no service."""
    return call is not None and call.startswith(PREFIX)


def parse_reference(text: str) -> Reference | None:
    """`module:function`, with or without the prefix; None if it is no such thing."""
    text = text.removeprefix(PREFIX)
    return Reference(*text.split(":")) if _REFERENCE.fullmatch(text) else None
