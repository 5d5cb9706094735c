"""What outlives a reload: everything that holds state beside a request, by what it was made from.

A generation asks for a resource by its kind and its settings. Where the generation before had one of the same, it goes
on with that one, its keys, counts and connections included; else a new one is made. It is stopped when the last
generation that uses it has ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar, cast

import msgspec

logger = logging.getLogger("castlegate.resources")


class Resource(Protocol):
    """Something that works beside requests."""

    async def start(self) -> None:
        """Begin; what cannot be reached is tried again in the background, not waited for."""

    async def stop(self) -> None:
        """End what it runs, close what it holds; also where `start` failed half way."""


V = TypeVar("V")


class Kept(Generic[V]):
    """A value that outlives a reload and does nothing by itself."""

    def __init__(self, value: V) -> None:
        self.value = value

    async def start(self) -> None:
        """Nothing."""

    async def stop(self) -> None:
        """Nothing."""


R = TypeVar("R", bound=Resource)


class Resources:
    """Of one generation."""

    def __init__(self, previous: Resources | None = None) -> None:
        self._previous = previous
        self._held: dict[tuple[str, bytes], Resource] = {}
        self._new: list[Resource] = []

    def keep(self, kind: str, settings: Any, make: Callable[[], R]) -> R:
        """The one of this kind and these settings, made now if there is none yet. `kind` says also whose it is, where
        two of the same settings must not be one.
        """
        key = kind, msgspec.msgpack.encode(settings)
        found = self._held.get(key)
        if found is None:
            found = None if self._previous is None else self._previous._held.get(key)
            if found is None:
                found = make()
                self._new.append(found)
            self._held[key] = found
        return cast("R", found)

    async def start(self) -> None:
        """Start those that were made here; nothing is carried over any more from now on."""
        self._previous = None
        while self._new:
            resource = self._new.pop(0)
            await resource.start()

    async def retire(self, others: Iterable[Resources]) -> None:
        """Stop those that none of the others holds; one that cannot be is logged, and keeps no other from it."""
        used = {id(resource) for other in others for resource in other._held.values()}
        for (kind, _), resource in self._held.items():
            if id(resource) not in used and resource not in self._new:
                try:
                    await resource.stop()
                except Exception:
                    logger.exception("%s could not be stopped", kind)
        self._held.clear()
