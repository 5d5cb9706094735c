"""What a claim of a caller must say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from castlegate.config.references import dig


class ClaimRule:
    """A claim and the values of it that will do. A name with dots leads into objects, unless it has a `:` or `/`."""

    __slots__ = ("_accepted", "_steps", "name")

    def __init__(self, name: str, accepted: Any) -> None:
        self.name = name
        self._steps = [name] if ":" in name or "/" in name else name.split(".")
        self._accepted = frozenset(map(_typed, accepted if isinstance(accepted, list) else [accepted]))

    def holds(self, claims: Mapping[str, Any]) -> bool:
        """Whether the claim has one of the values."""
        found = dig(claims, self._steps)
        if isinstance(found, list):
            return any(isinstance(each, (str, int, float)) and _typed(each) in self._accepted for each in found)
        return isinstance(found, (str, int, float)) and _typed(found) in self._accepted


def _typed(value: Any) -> tuple[bool, Any]:
    return isinstance(value, bool), value  # `true` is not 1
