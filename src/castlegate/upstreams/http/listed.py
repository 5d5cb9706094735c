"""Instances from a file that others write, read anew whenever it has changed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

import msgspec

from castlegate.config.addresses import parse_origin
from castlegate.config.environment import Environment
from castlegate.config.files import Signature, signature
from castlegate.config.reading import read
from castlegate.config.report import ConfigError, Report
from castlegate.config.source import LARGEST_FILE, compose_node
from castlegate.config.validation import validate
from castlegate.upstreams.http.discovery import Found, Member, NotFound
from castlegate.upstreams.http.settings import Target
from castlegate.upstreams.http.sources import InstanceFile


class _Content(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The file: a list as `instances` is one, or a mapping with it."""

    short: ClassVar[str] = "instances"

    instances: list[str | Target]


class Listing:
    """Of one file."""

    def __init__(self, settings: InstanceFile, folder: Path) -> None:
        self.name = settings.says
        self.least = self.patience = settings.every  # a look at a file troubles nobody
        self._scheme = settings.scheme
        self._file = folder / settings.path
        # Of the latest look.
        self._seen: Signature | None = None
        self._found: Found | NotFound = NotFound("it has not been read yet")

    async def look(self) -> Found:
        """See `Source`."""
        found = await asyncio.get_running_loop().run_in_executor(None, self._look)
        if isinstance(found, NotFound):
            raise found
        return found

    def _look(self) -> Found | NotFound:
        """In a thread: a file system that hangs holds up nobody."""
        now = signature([self._file])
        if now != self._seen:
            self._found = self._read()
            self._seen = now  # taken before it was read: what is written meanwhile is another change
        return self._found

    def _read(self) -> Found | NotFound:
        try:
            with self._file.open("rb") as file:
                content = file.read(LARGEST_FILE + 1)
        except OSError as error:
            return NotFound(f"it cannot be read: {error.strerror}")
        try:
            return Found(_members(content, self._file, self._scheme), self.least)
        except ConfigError as error:
            return NotFound(str(error))


def _members(content: bytes, file: Path, scheme: str) -> list[Member]:
    """Raises `ConfigError`."""
    report = Report(file.parent)
    root = compose_node(content, str(file), Environment({}, file.parent), report)
    listed = None if root is None else read(root, _Content, report.place())
    found: dict[str, Member] = {}
    if listed is not None:
        validate(listed, report.place())
        for index, each in enumerate(listed.instances):
            place = report.place("instances", index)
            target = Target(url=each) if isinstance(each, str) else each
            try:
                origin = parse_origin(target.url)
            except ValueError as error:
                place.refuse(target.url, error)
                continue
            if origin.tls != (scheme == "https"):
                place.mistake(f"expected {scheme}://, which 'scheme' says of all instances")
            found[str(origin)] = Member(str(origin), target.weight, target.priority)
    report.raise_if_any()
    return list(found.values())
