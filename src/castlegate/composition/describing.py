"""A composition as `castlegate explain` tells it: what runs side by side, what waits for what, and for how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from castlegate.composition.compiling import MakeFacts, inputs_of
from castlegate.composition.graph import longest, waves
from castlegate.composition.parts import Part
from castlegate.composition.settings import PartSettings
from castlegate.config.units import write_bytes, write_seconds
from castlegate.sketch import Description, Sketch


class ComposedRoute(Protocol):
    """What a route says of its composition."""

    @property
    def compose(self) -> dict[str, PartSettings] | None:
        """The parts."""


class Composition:
    """The endpoint of a route that is made of parts, whose calls follow in the chain."""

    def __init__(self, route: ComposedRoute, parts: Sequence[Part], timeout: float, facts: MakeFacts) -> None:
        self._settings: Mapping[str, PartSettings] = route.compose or {}
        self._parts = {part.name: part for part in parts}
        self._timeout = timeout
        self._facts = facts

    def describe(self, sketch: Sketch) -> Description:
        """The plan."""
        inputs = inputs_of(self._settings, self._facts, sketch.show)
        says: dict[str, Any] = {}
        for number, wave in enumerate(waves(inputs), 1):
            says[f"wave {number}"] = [self._line(name, inputs[name]) for name in wave]
        costs = {name: self._cost(part) for name, part in self._parts.items()}
        worst = max(longest(inputs, costs).values())
        bound = "" if worst <= self._timeout else f", of {write_seconds(round(worst, 6))} that its parts could take"
        says["worst case"] = f"{write_seconds(min(worst, self._timeout))}{bound}"
        return Description(role="endpoint", name="compose", says=says)

    def _line(self, name: str, inputs: Sequence[str]) -> str:
        part, settings = self._parts[name], self._settings[name]
        words = ["a value" if settings.call is None else f"calls {settings.call}"]
        if part.asked is not None:
            words.append(f"waits {write_seconds(part.timeout)}")
        if settings.each is not None:
            each = settings.each
            in_one = f", {settings.batch.size} in a call" if settings.batch is not None else ""
            words.append(f"for each of {each.of}: at most {each.most}, {each.concurrency} calls at once{in_one}")
        if inputs:
            words.append(f"after {', '.join(inputs)}")
        if settings.when is not None:
            words.append(f"when {settings.when}")
        words.append(f"up to {write_bytes(settings.limit)}")
        words.append(self._where_it_fails(part))
        return f"{name}: {'; '.join(words)}"

    def _where_it_fails(self, part: Part) -> str:
        if part.fallback_asked is not None:
            instead = f"{part.fallback_asked.plan.settings.call} is called"
            return f"where it fails {instead}{', then its fallback' if part.fallback is not None else ''}"
        if part.fallback is not None:
            return "where it fails its fallback"
        return "where it fails null" if part.optional else "where it fails so does the route"

    def _cost(self, part: Part) -> float:
        """Seconds at most."""
        if part.asked is None:
            return 0.0
        return part.timeout + (0.0 if part.fallback_asked is None else part.fallback_asked.plan.timeout)
